// Cooks, and runs the tasks of `taskq conformance`, until SIGTERM: node dist/cook.js
import { appendFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { AssignedTask } from "./generated/taskq/v1/processor_service_pb.js";
import { Failed, Processor } from "./processor.js";

const processor = new Processor(
  {
    "kitchen.cook": async (task) => {
      const { dish } = argumentsOf(task);
      return asJson(`${dish} is served, attempt ${task.attempt}`);
    },
    "conformance.echo": async (task) => task.payload,
    "conformance.sleep": async (task, signal) => {
      const { seconds, file } = argumentsOf(task);
      await appendFile(file, "begin\n");
      await sleep(1_000 * seconds, undefined, { signal });
      await appendFile(file, "end\n");
      return undefined;
    },
    "conformance.fail": async (task) => {
      const { error_type, message, retryable } = argumentsOf(task);
      throw new Failed(error_type, message, retryable);
    },
    "conformance.large": async (task) => ({ data: new Uint8Array(argumentsOf(task).bytes) }),
  },
  100,
);

function argumentsOf(task: AssignedTask) {
  return JSON.parse(new TextDecoder().decode(task.payload?.data));
}

function asJson(value: unknown) {
  return { data: new TextEncoder().encode(JSON.stringify(value)), contentType: "application/json" };
}

const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => stop.abort());
}
await processor.run(stop.signal);
process.exit(0); // its connections would keep it
