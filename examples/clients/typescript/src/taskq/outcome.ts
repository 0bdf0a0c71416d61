// What becomes of an attempt.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { TaskResultSchema, type AssignedTask, type TaskResult } from "../generated/taskq/v1/processor_service_pb.js";
import type { PayloadSchema } from "../generated/taskq/v1/task_pb.js";

const MAX_RESULT_BYTES = 256 * 1024;
// What is kept of a failure, in characters. Sent whole, a message of megabytes would be refused again and again.
const MAX_TYPE_LENGTH = 256;
const MAX_MESSAGE_LENGTH = 4_096;

// Runs one attempt. It must end soon after the signal is aborted; what it returns then is not reported.
export type Handler = (
  task: AssignedTask,
  signal: AbortSignal,
) => Promise<MessageInitShape<typeof PayloadSchema> | undefined>;

// An error that says how it is to be reported. Any other is of the type of its class, and may be retried.
export class Failed extends Error {
  constructor(
    readonly type: string,
    message: string,
    readonly retryable = true,
  ) {
    super(message);
  }
}

export type Outcome = NonNullable<MessageInitShape<typeof TaskResultSchema>["outcome"]>;

// Runs one attempt and answers what came of it.
export async function outcomeOf(task: AssignedTask, handler: Handler, signal: AbortSignal): Promise<Outcome> {
  try {
    const result = await handler(task, signal);
    const size = result?.data?.length ?? 0;
    if (size > MAX_RESULT_BYTES) {
      throw new Failed("RESULT_TOO_LARGE", `the result is ${size} bytes`, false);
    }
    return { case: "succeeded", value: { result } };
  } catch (error) {
    return failed(error);
  }
}

export function failed(error: unknown): Outcome {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const { type, retryable } = error instanceof Failed ? error : { type: name, retryable: true };
  const errorType = cut(type, MAX_TYPE_LENGTH) || "Error";
  return { case: "failed", value: { errorType, message: cut(message, MAX_MESSAGE_LENGTH), retryable } };
}

// By way of UTF-8, as half a character cannot be sent.
function cut(text: string, most: number): string {
  return Buffer.from(text.slice(0, most)).toString();
}

export function resultOf({ taskId, attempt }: { taskId: string; attempt: number }, outcome: Outcome): TaskResult {
  return create(TaskResultSchema, { taskId, attempt, outcome });
}
