// Orders a dish, for in a second, and waits until it is served: node dist/order.js stew
import { randomUUID } from "node:crypto";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { EnqueueOutcome } from "./generated/taskq/v1/scheduler_service_pb.js";
import { TaskState } from "./generated/taskq/v1/task_pb.js";
import { Scheduler } from "./scheduler.js";

const dish = process.argv[2] ?? "stew";
const stop = AbortSignal.timeout(60_000);
const scheduler = new Scheduler();
const taskId = randomUUID();
const [enqueued] = await scheduler.enqueue(
  [
    {
      taskId,
      name: "kitchen.cook",
      input: {
        case: "payload",
        value: { data: new TextEncoder().encode(JSON.stringify({ dish })), contentType: "application/json" },
      },
      when: { case: "delay", value: durationFromMs(1_000) },
    },
  ],
  stop,
);
if (enqueued?.outcome === EnqueueOutcome.CONFLICT || enqueued?.outcome === EnqueueOutcome.REJECTED) {
  throw new Error(`not enqueued: ${EnqueueOutcome[enqueued.outcome]}`);
}
const task = await scheduler.result(taskId, stop);
if (task.state !== TaskState.SUCCEEDED) {
  throw new Error(`${TaskState[task.state]}: ${task.lastFailure?.message}`);
}
console.log(new TextDecoder().decode(task.result?.data));
process.exit(0); // its connection would keep it
