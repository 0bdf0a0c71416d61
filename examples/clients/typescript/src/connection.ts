// The way to the server, and the patience of those who use it; docs/clients.md tells what a client does and why.
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

// Rung by one, waited for by another.
export class Bell {
  private isRung = false;
  private wake = () => {};

  ring(): void {
    this.isRung = true;
    this.wake();
  }

  // Until it is rung, or so many milliseconds have passed, or it is all over.
  async wait(milliseconds: number, over: AbortSignal): Promise<void> {
    if (!this.isRung && !over.aborted) {
      await new Promise<void>((resolve) => {
        const timer = Number.isFinite(milliseconds) ? setTimeout(() => this.wake(), milliseconds) : undefined;
        this.wake = () => {
          clearTimeout(timer);
          over.removeEventListener("abort", this.wake);
          resolve();
        };
        over.addEventListener("abort", this.wake);
      });
      this.wake = () => {};
    }
    this.isRung = false;
  }
}

// Pauses that grow from the first to the longest, spread so that many clients do not return at the same instant.
export class Pauses {
  private next = 0;

  constructor(
    private readonly first: number,
    private readonly most: number,
  ) {}

  reset(): void {
    this.next = 0;
  }

  async wait(over: AbortSignal, early = new Bell()): Promise<void> {
    this.next = Math.min(Math.max(2 * this.next, this.first), this.most);
    await early.wait((this.next * (1 + Math.random())) / 2, over);
  }
}
