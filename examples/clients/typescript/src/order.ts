// Enqueues a task, due in a second, and waits for its result: node dist/order.js stew
import { randomUUID } from "node:crypto";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { EnqueueOutcome } from "./generated/taskq/v1/scheduler_service_pb.js";
import { TaskState } from "./generated/taskq/v1/task_pb.js";
import { toJSON } from "./taskq/payload.js";
import { Scheduler } from "./taskq/scheduler.js";

const dish = process.argv[2] ?? "stew";
const stop = AbortSignal.timeout(60_000);
const scheduler = new Scheduler();
const taskId = randomUUID();
const order = {
  taskId,
  name: "kitchen.cook",
  input: { case: "payload", value: toJSON({ dish }) },
  when: { case: "delay", value: durationFromMs(1_000) }, // without it: now
} as const;
const [enqueued] = await scheduler.enqueue([order], stop);
if (enqueued?.outcome === EnqueueOutcome.CONFLICT || enqueued?.outcome === EnqueueOutcome.REJECTED) {
  throw new Error(`not enqueued: ${EnqueueOutcome[enqueued.outcome]}`);
}
const task = await scheduler.result(taskId, stop);
if (task.state !== TaskState.SUCCEEDED) {
  throw new Error(`${TaskState[task.state]}: ${task.lastFailure?.message}`);
}
console.log(new TextDecoder().decode(task.result?.data));
process.exit(0); // its connection would keep it
