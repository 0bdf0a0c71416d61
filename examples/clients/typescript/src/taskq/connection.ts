// The way to the server; docs/clients.md tells what a client does and why.
import { readFileSync } from "node:fs";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

// A connection to TASKQ_ADDRESS, by TLS when TASKQ_TLS_CA names a CA, with the certificate of TASKQ_TLS_CERT and
// TASKQ_TLS_KEY, and TASKQ_TOKEN in every call.
export function connect(): Transport {
  const address = process.env.TASKQ_ADDRESS || "127.0.0.1:50051";
  const ca = process.env.TASKQ_TLS_CA;
  const token = process.env.TASKQ_TOKEN;
  if (token && !ca && !/^(127\.[0-9.]+|localhost|\[::1\]):/.test(address)) {
    throw new Error(`a token would go to ${address} in plaintext; must go by TLS: set TASKQ_TLS_CA`);
  }
  const showToken: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
  return createGrpcTransport({
    baseUrl: `${ca ? "https" : "http"}://${address}`,
    nodeOptions: ca
      ? { ca: readFileSync(ca), cert: contentOf(process.env.TASKQ_TLS_CERT), key: contentOf(process.env.TASKQ_TLS_KEY) }
      : {},
    interceptors: token ? [showToken] : [],
    readMaxBytes: 4 << 20,
    // A half-open connection is found within 30 s. The server hangs up on who pings more often than every 10 s.
    pingIntervalMs: 20_000,
    pingTimeoutMs: 10_000,
    pingIdleConnection: true,
  });
}

function contentOf(file: string | undefined): Buffer | undefined {
  return file ? readFileSync(file) : undefined;
}
