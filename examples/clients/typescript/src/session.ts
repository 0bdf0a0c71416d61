// One registration: its stream, its heartbeats and its reports, until the server or a drain ends it.
import { toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  StreamState,
  TaskResultSchema,
  type AssignedTask,
  type AttemptRef,
  type HeartbeatResponse,
  type RegisterResponse,
  type ReportAnswer,
  type StreamTasksResponse,
  type TaskResult,
} from "./generated/taskq/v1/processor_service_pb.js";
import { Bell, Pauses } from "./connection.js";
import { failed, resultOf, type Processor, type Stop } from "./processor.js";

const REPORT_MS = 10_000;
const UNREGISTER_MS = 3_000;
const MAX_REQUEST_BYTES = 1 << 20;
const MAX_RESULTS = 1_000;
// A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
const SETTLING_MS = 1_000;

type Ref = Pick<AttemptRef, "taskId" | "attempt">;
const keyOf = (ref: Ref) => `${ref.taskId} ${ref.attempt}`;

export class Session {
  private readonly id: string;
  private readonly intervalMs: number;
  private readonly pingMs: number;
  // From its arrival until its report is answered.
  private readonly held = new Map<string, { ref: Ref; stop: AbortController }>();
  private readonly results: TaskResult[] = [];
  private readonly ending = new AbortController();
  private readonly over = this.ending.signal;
  private readonly hurry = new Bell();
  private readonly reopen = new Bell();
  private readonly reported = new Bell();
  private readonly settled = new Bell();
  private isDraining = false;
  private isResting = false;
  private stream: { opened: number; giveUp: () => void } | undefined;

  constructor(
    private readonly processor: Processor,
    registered: RegisterResponse,
  ) {
    this.id = registered.sessionId;
    this.intervalMs = durationMs(registered.heartbeatInterval!);
    this.pingMs = durationMs(registered.pingInterval!);
  }

  // Returns when the server has ended the session, or when `stop` is given and everything is reported.
  async live(stop: AbortSignal): Promise<void> {
    const parts = [this.keepStreams(), this.beat(), this.report()];
    await new Bell().wait(Infinity, AbortSignal.any([stop, this.over]));
    if (!this.over.aborted) {
      await this.drain();
    }
    this.end();
    await Promise.all(parts);
  }

  private end(): void {
    this.ending.abort();
    for (const { stop } of this.held.values()) {
      stop.abort("lost" satisfies Stop);
    }
    this.held.clear();
  }

  // Keeps a task stream open: whatever ends it, another is opened.
  private async keepStreams(): Promise<void> {
    const again = new Pauses(500, 30_000);
    while (!this.over.aborted) {
      const end = await this.readStream(again);
      this.stream = undefined;
      if (end === "gone") {
        console.warn(`session ${this.id} has ended`);
        this.end();
      } else if (end === "superseded") {
        // Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
        // more, a heartbeat's answer says so.
        await this.reopen.wait(Infinity, this.over);
      }
      await again.wait(this.over, this.reopen);
    }
  }

  private async readStream(again: Pauses): Promise<"broken" | "superseded" | "gone"> {
    const reading = new AbortController();
    const silence = setTimeout(() => reading.abort(), 3 * this.pingMs);
    this.stream = { opened: Date.now(), giveUp: () => reading.abort() };
    let isSuperseded = false;
    try {
      const signal = AbortSignal.any([reading.signal, this.over]);
      for await (const { event } of this.processor.client.streamTasks({ sessionId: this.id }, { signal })) {
        silence.refresh();
        again.reset();
        isSuperseded ||= event.case === "superseded";
        this.hear(event);
      }
    } catch (error) {
      if (ConnectError.from(error).code === Code.NotFound) {
        return "gone";
      }
    } finally {
      clearTimeout(silence);
    }
    return isSuperseded ? "superseded" : "broken";
  }

  private hear(event: StreamTasksResponse["event"]): void {
    switch (event.case) {
      case "tasks":
        this.take(event.value.tasks);
        break;
      case "cancel":
        this.stopAttempts(event.value.attempts, "cancelled");
        break;
      case "drain":
        // The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
        console.warn(`drain: ${event.value.reason}`);
        break;
    }
  }

  // Begins what has come, unless it is held already: a new stream may bring again what the one before has brought.
  private take(tasks: AssignedTask[]): void {
    for (const task of tasks) {
      if (this.held.has(keyOf(task))) {
        continue;
      }
      const stop = new AbortController();
      this.held.set(keyOf(task), { ref: task, stop });
      if (this.isDraining) {
        this.say(resultOf(task, { case: "released", value: {} }));
      } else {
        void this.processor.attempt(task, stop.signal).then((result) => result && this.say(result));
      }
    }
    if (this.isResting) {
      this.hurry.ring();
    }
  }

  private stopAttempts(refs: Ref[], why: Stop): void {
    for (const ref of refs) {
      this.held.get(keyOf(ref))?.stop.abort(why);
      if (why === "lost") {
        this.held.delete(keyOf(ref));
        this.settled.ring();
      }
    }
  }

  // Tells the server that this processor lives, and what it holds.
  private async beat(): Promise<void> {
    const again = new Pauses(100, Math.min(1_000, this.intervalMs));
    let pause = this.intervalMs;
    while (true) {
      await this.hurry.wait(pause, this.over);
      if (this.over.aborted) {
        return;
      }
      const sent = Date.now();
      const inFlight = [...this.held.values()].map(({ ref }) => ({ taskId: ref.taskId, attempt: ref.attempt }));
      const request = { sessionId: this.id, inFlight, draining: this.isDraining };
      try {
        const answer = await this.processor.heart.heartbeat(request, { timeoutMs: this.intervalMs, signal: this.over });
        again.reset();
        this.obey(answer, sent);
        this.isResting = answer.rest !== undefined && this.held.size === 0;
        pause = this.isResting ? durationMs(answer.rest!) : this.intervalMs;
      } catch (error) {
        if (!this.over.aborted) {
          console.warn(`heartbeat failed: ${error}`);
        }
        await again.wait(this.over);
        pause = 0;
      }
    }
  }

  private obey(answer: HeartbeatResponse, sent: number): void {
    this.stopAttempts(answer.lost, "lost");
    this.stopAttempts(answer.cancelled, "cancelled");
    if (answer.stream === StreamState.REREGISTER) {
      console.warn(`session ${this.id} has ended`);
      this.end();
    } else if (answer.stream === StreamState.REOPEN) {
      if (this.stream === undefined) {
        this.reopen.ring();
      } else if (this.stream.opened + SETTLING_MS < sent) {
        this.stream.giveUp();
      }
    }
  }

  private say(result: TaskResult): void {
    this.results.push(result);
    this.reported.ring();
  }

  // Sends results until they are answered: many in one request, one request at a time.
  private async report(): Promise<void> {
    while (!this.over.aborted) {
      await this.reported.wait(Infinity, this.over);
      while (this.results.length > 0 && !this.over.aborted) {
        await this.deliver(this.nextBatch());
      }
    }
  }

  private nextBatch(): TaskResult[] {
    let count = 0;
    let size = 0;
    for (const result of this.results.slice(0, MAX_RESULTS)) {
      size += toBinary(TaskResultSchema, result).length;
      if (count > 0 && size > MAX_REQUEST_BYTES) {
        break;
      }
      count += 1;
    }
    return this.results.splice(0, count);
  }

  private async deliver(results: TaskResult[]): Promise<void> {
    const again = new Pauses(100, 5_000);
    const options = { timeoutMs: REPORT_MS, signal: this.over };
    while (!this.over.aborted) {
      try {
        const { answers } = await this.processor.client.reportResult({ sessionId: this.id, results }, options);
        this.letGo(answers);
        return;
      } catch (error) {
        if (ConnectError.from(error).code === Code.InvalidArgument) {
          await this.deliverOneByOne(results, String(error));
          return;
        }
        console.warn(`${results.length} reports are not answered: ${error}`);
        await again.wait(this.over);
      }
    }
  }

  // Finds the report that is refused; what cannot be reported as it is, is reported as failed.
  private async deliverOneByOne(results: TaskResult[], refusal: string): Promise<void> {
    for (const result of results) {
      if (results.length > 1) {
        await this.deliver([result]);
      } else if (result.outcome.case === "failed" && result.outcome.value.errorType === "REPORT_REFUSED") {
        this.stopAttempts([result], "lost");
      } else {
        await this.deliver([resultOf(result, failed("REPORT_REFUSED", refusal, false))]);
      }
    }
  }

  // Whatever the answer was: LEASE_LOST is as final as ACCEPTED.
  private letGo(answers: ReportAnswer[]): void {
    for (const answer of answers) {
      this.held.delete(keyOf(answer));
    }
    this.settled.ring();
  }

  // Takes nothing more, waits until everything that is held is reported, and unregisters.
  private async drain(): Promise<void> {
    this.isDraining = true;
    this.hurry.ring();
    if (!(await this.isEmptyWithin(this.processor.drainMs))) {
      for (const { stop } of this.held.values()) {
        stop.abort("drained" satisfies Stop);
      }
      await this.isEmptyWithin(5_000);
    }
    try {
      await this.processor.client.unregister({ sessionId: this.id }, { timeoutMs: UNREGISTER_MS });
    } catch (error) {
      console.warn(`unregister failed: ${error}`); // the server ends the session by itself, after a lease
    }
  }

  private async isEmptyWithin(milliseconds: number): Promise<boolean> {
    const until = Date.now() + milliseconds;
    while (this.held.size > 0 && Date.now() < until && !this.over.aborted) {
      await this.settled.wait(until - Date.now(), this.over);
    }
    return this.held.size === 0;
  }
}
