// The tasks of `taskq conformance`.
import { appendFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Failed, type Handler } from "./taskq/outcome.js";
import { fromJSON } from "./taskq/payload.js";

export const conformance: Record<string, Handler> = {
  "conformance.echo": async (task) => task.payload,
  "conformance.sleep": async (task, signal) => {
    const { seconds, file } = fromJSON<{ seconds: number; file: string }>(task.payload);
    await appendFile(file, "begin\n");
    await sleep(1_000 * seconds, undefined, { signal });
    await appendFile(file, "end\n");
    return undefined;
  },
  "conformance.fail": async (task) => {
    const failure = fromJSON<{ error_type: string; message: string; retryable: boolean }>(task.payload);
    throw new Failed(failure.error_type, failure.message, failure.retryable);
  },
  "conformance.large": async (task) => {
    const { bytes } = fromJSON<{ bytes: number }>(task.payload);
    return { data: new Uint8Array(bytes) };
  },
};
