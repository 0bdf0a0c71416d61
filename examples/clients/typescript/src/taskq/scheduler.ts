// A scheduler: enqueues tasks and waits for them.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import {
  SchedulerService,
  type EnqueueResult,
  type NewTaskSchema,
} from "../generated/taskq/v1/scheduler_service_pb.js";
import { TaskState, type Task } from "../generated/taskq/v1/task_pb.js";
import { connect } from "./connection.js";
import { Pauses } from "./pauses.js";

const ENQUEUE_MS = 10_000;
// What the same call may overcome later.
const PASSING = [
  Code.Unavailable,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
  Code.Aborted,
  Code.Internal,
  Code.Unknown,
];
const FINISHED = [TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED];

type NewTask = MessageInitShape<typeof NewTaskSchema> & { taskId: string };

export class Scheduler {
  private readonly client: Client<typeof SchedulerService> = createClient(SchedulerService, connect());

  // Stores 1 to 1,000 tasks, all of them or none; once it returns they are safe. Their ids, which the caller has made,
  // make a repeated call the same tasks.
  async enqueue(tasks: NewTask[], stop: AbortSignal): Promise<EnqueueResult[]> {
    const again = new Pauses(100, 5_000);
    while (true) {
      try {
        return (await this.client.enqueue({ tasks }, { timeoutMs: ENQUEUE_MS, signal: stop })).results;
      } catch (error) {
        mustBePassing(error, stop);
        console.warn(`not enqueued yet: ${error}`);
        await again.wait(stop);
      }
    }
  }

  // Waits until the task is finished, over as many streams as that takes.
  async result(taskId: string, stop: AbortSignal): Promise<Task> {
    const again = new Pauses(100, 5_000);
    while (true) {
      try {
        for await (const { task } of this.client.watchTask({ taskId }, { signal: stop })) {
          again.reset();
          if (task && FINISHED.includes(task.state)) {
            return task;
          }
        }
      } catch (error) {
        mustBePassing(error, stop);
        console.warn(`not watched any more: ${error}`);
      }
      await again.wait(stop);
    }
  }
}

function mustBePassing(error: unknown, stop: AbortSignal): void {
  if (stop.aborted || !PASSING.includes(ConnectError.from(error).code)) {
    throw error;
  }
}
