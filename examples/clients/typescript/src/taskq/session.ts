// One registration. Its stream brings attempts, its heartbeats keep them and its reports end them, until the server ends
// the session or the processor is told to stop.
import { setTimeout as sleep } from "node:timers/promises";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { AssignedTask, AttemptRef, RegisterResponse, ReportAnswer } from "../generated/taskq/v1/processor_service_pb.js";
import { Heartbeats } from "./heartbeats.js";
import { outcomeOf, resultOf } from "./outcome.js";
import { Bell } from "./pauses.js";
import type { Processor } from "./processor.js";
import { Reports } from "./reports.js";
import { Stream } from "./stream.js";

const UNREGISTER_MS = 3_000;

interface Held {
  taskId: string;
  attempt: number;
  stop: AbortController;
}

const keyOf = ({ taskId, attempt }: { taskId: string; attempt: number }) => `${taskId} ${attempt}`;

export class Session {
  readonly id: string;
  readonly intervalMs: number;
  readonly pingMs: number;
  private readonly life = new AbortController();
  readonly over = this.life.signal; // aborted once the session has ended
  readonly stream = new Stream(this);
  readonly heartbeats = new Heartbeats(this);
  readonly reports = new Reports(this);
  isDraining = false;
  // Each attempt, from its arrival until its report is answered.
  private readonly held = new Map<string, Held>();

  constructor(
    readonly processor: Processor,
    registered: RegisterResponse,
  ) {
    this.id = registered.sessionId;
    this.intervalMs = durationMs(registered.heartbeatInterval!);
    this.pingMs = durationMs(registered.pingInterval!);
  }

  // Returns when the server has ended the session, or when told to stop and everything is reported.
  async live(stop: AbortSignal): Promise<void> {
    const bell = new Bell(this.over);
    const ring = () => bell.ring();
    stop.addEventListener("abort", ring);
    const loops = [this.stream.keepOpen(), this.heartbeats.keepSending(), this.reports.keepSending()];
    if (!stop.aborted) {
      await bell.wait();
    }
    stop.removeEventListener("abort", ring);
    if (this.over.aborted) {
      console.warn(`session ${this.id} has ended`);
    } else {
      await this.drain();
    }
    this.end();
    await Promise.all(loops);
  }

  // Ends it, and with it whatever runs.
  end(): void {
    this.life.abort();
    this.stop([...this.held.values()]);
  }

  // Begins an attempt, unless it is held already: a new stream may bring again what the one before has brought.
  async take(task: AssignedTask): Promise<void> {
    const { taskId, attempt } = task;
    if (this.held.has(keyOf(task))) {
      return;
    }
    const stop = new AbortController();
    this.held.set(keyOf(task), { taskId, attempt, stop });
    if (this.isDraining) {
      this.reports.add(resultOf(task, { case: "released", value: {} }));
      return;
    }
    const outcome = await outcomeOf(task, this.processor.settings.handlers[task.name]!, stop.signal);
    if (!stop.signal.aborted) {
      this.reports.add(resultOf(task, outcome));
    }
  }

  // Ends attempts that were cancelled, or that another may run: nothing that is reported of them counts any more.
  stop(attempts: Pick<AttemptRef, "taskId" | "attempt">[]): void {
    for (const each of attempts) {
      this.held.get(keyOf(each))?.stop.abort();
      this.held.delete(keyOf(each));
    }
  }

  // Ends attempts, whatever the answer was: LEASE_LOST is as final as ACCEPTED.
  letGo(answers: ReportAnswer[]): void {
    for (const answer of answers) {
      this.held.delete(keyOf(answer));
    }
  }

  inFlight() {
    return [...this.held.values()].map(({ taskId, attempt }) => ({ taskId, attempt }));
  }

  // Takes nothing more, waits until everything that is held is reported, and unregisters. What is still held then the
  // server gives to another.
  private async drain(): Promise<void> {
    this.isDraining = true;
    this.heartbeats.bell.ring();
    const until = Date.now() + this.processor.settings.drainMs;
    while (this.held.size > 0 && Date.now() < until && !this.over.aborted) {
      await sleep(20);
    }
    try {
      await this.processor.client.unregister({ sessionId: this.id }, { timeoutMs: UNREGISTER_MS });
    } catch (error) {
      console.warn(`unregister failed: ${error}`); // the server ends the session by itself, after a lease
    }
  }
}
