// A processor: what it runs, and its life from start to stop.
import { hostname } from "node:os";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import {
  ProcessorService,
  TaskResultSchema,
  type AssignedTask,
  type RegisterResponse,
  type TaskResult,
} from "./generated/taskq/v1/processor_service_pb.js";
import type { PayloadSchema } from "./generated/taskq/v1/task_pb.js";
import { connect, Pauses } from "./connection.js";
import { Session } from "./session.js";

const REGISTER_MS = 5_000;
const MAX_RESULT_BYTES = 256 * 1024;
// What is kept of a failure, in characters. Sent whole, a message of megabytes would be refused again and again.
const MAX_TYPE_LENGTH = 256;
const MAX_MESSAGE_LENGTH = 4_096;
// No waiting mends these.
const HOPELESS = [Code.InvalidArgument, Code.PermissionDenied, Code.Unauthenticated, Code.Unimplemented];

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

export type Stop = "lost" | "cancelled" | "drained";

export class Processor {
  readonly client: Client<typeof ProcessorService>;
  // Heartbeats have a connection of their own: they never wait behind tasks and results.
  readonly heart: Client<typeof ProcessorService>;

  constructor(
    private readonly handlers: Record<string, Handler>,
    private readonly limit: number,
    readonly drainMs = 30_000,
  ) {
    this.client = createClient(ProcessorService, connect());
    this.heart = createClient(ProcessorService, connect());
  }

  // Runs tasks until told to stop; then it takes nothing more, lets what runs end, reports it and unregisters.
  async run(stop: AbortSignal): Promise<void> {
    for (let isFirst = true; !stop.aborted; isFirst = false) {
      const registered = await this.register(stop, isFirst);
      if (registered) {
        await new Session(this, registered).live(stop);
      }
    }
  }

  private async register(stop: AbortSignal, isFirst: boolean): Promise<RegisterResponse | undefined> {
    const request = {
      processorName: `${hostname().replace(/[^A-Za-z0-9._/-]/g, "-").slice(0, 100)}-${process.pid}`,
      capabilities: Object.keys(this.handlers).map((name) => ({ name })),
      maxInFlight: this.limit,
      client: "taskq-typescript-example/1",
    };
    const again = new Pauses(500, 30_000);
    while (!stop.aborted) {
      try {
        return await this.client.register(request, { timeoutMs: REGISTER_MS, signal: stop });
      } catch (error) {
        if (isFirst && HOPELESS.includes(ConnectError.from(error).code)) {
          throw error;
        }
        console.warn(`not registered: ${error}`);
        await again.wait(stop);
      }
    }
    return undefined;
  }

  // One attempt, and what to report of it; nothing when it was lost.
  async attempt(task: AssignedTask, signal: AbortSignal): Promise<TaskResult | undefined> {
    const outcome = await this.outcome(task, signal);
    switch (signal.aborted ? (signal.reason as Stop) : undefined) {
      case "lost":
        return undefined;
      case "cancelled":
        return resultOf(task, { case: "cancelled", value: {} });
      case "drained":
        return resultOf(task, { case: "released", value: {} });
      default:
        return resultOf(task, outcome);
    }
  }

  private async outcome(task: AssignedTask, signal: AbortSignal): Promise<Outcome> {
    try {
      const handler = this.handlers[task.name];
      if (!handler) {
        return failed("UNKNOWN_NAME", `nobody here runs ${task.name}`);
      }
      const result = await handler(task, signal);
      const size = result?.data?.length ?? 0;
      if (size > MAX_RESULT_BYTES) {
        return failed("RESULT_TOO_LARGE", `the result is ${size} bytes; must be at most ${MAX_RESULT_BYTES}`, false);
      }
      return { case: "succeeded", value: { result } };
    } catch (error) {
      if (error instanceof Failed) {
        return failed(error.type, error.message, error.retryable);
      }
      return error instanceof Error ? failed(error.name, error.message) : failed("Error", String(error));
    }
  }
}

type Outcome = NonNullable<MessageInitShape<typeof TaskResultSchema>["outcome"]>;

export function failed(errorType: string, message: string, retryable = true): Outcome {
  const type = cut(errorType, MAX_TYPE_LENGTH) || "Error";
  return { case: "failed", value: { errorType: type, message: cut(message, MAX_MESSAGE_LENGTH), retryable } };
}

// By way of UTF-8, as half a character cannot be sent.
function cut(text: string, most: number): string {
  return Buffer.from(text.slice(0, most)).toString();
}

export function resultOf(task: { taskId: string; attempt: number }, outcome: Outcome): TaskResult {
  return create(TaskResultSchema, { taskId: task.taskId, attempt: task.attempt, outcome });
}
