// The stream brings attempts; whatever ends it, another is opened.
import { Code, ConnectError } from "@connectrpc/connect";
import type { StreamTasksResponse } from "../generated/taskq/v1/processor_service_pb.js";
import { Bell, Pauses } from "./pauses.js";
import type { Session } from "./session.js";

// A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
const SETTLING_MS = 1_000;

export class Stream {
  private readonly bell: Bell; // rung when another is to be opened at once
  private open: { since: number; giveUp: AbortController } | undefined;

  constructor(private readonly session: Session) {
    this.bell = new Bell(session.over);
    session.over.addEventListener("abort", () => this.open?.giveUp.abort());
  }

  async keepOpen(): Promise<void> {
    const again = new Pauses(500, 30_000);
    while (!this.session.over.aborted) {
      const end = await this.read(again);
      this.open = undefined;
      if (end === "not found") {
        this.session.end();
      } else if (end === "superseded") {
        // Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
        // more, a heartbeat's answer says so.
        await this.bell.wait();
      } else {
        await this.bell.wait(again.next());
      }
    }
  }

  private async read(again: Pauses): Promise<"broken" | "superseded" | "not found"> {
    const { processor, id, pingMs } = this.session;
    const giveUp = new AbortController();
    this.open = { since: Date.now(), giveUp };
    const silence = setTimeout(() => giveUp.abort(), 3 * pingMs);
    let isSuperseded = false;
    try {
      for await (const { event } of processor.client.streamTasks({ sessionId: id }, { signal: giveUp.signal })) {
        silence.refresh();
        again.reset();
        isSuperseded ||= event.case === "superseded";
        this.hear(event);
      }
    } catch (error) {
      if (ConnectError.from(error).code === Code.NotFound) {
        return "not found";
      }
      if (!this.session.over.aborted) {
        console.warn(`the stream has ended: ${error}`);
      }
    } finally {
      clearTimeout(silence);
    }
    return isSuperseded ? "superseded" : "broken";
  }

  private hear(event: StreamTasksResponse["event"]): void {
    switch (event.case) {
      case "tasks":
        event.value.tasks.forEach((task) => void this.session.take(task));
        break;
      case "cancel":
        this.session.stop(event.value.attempts);
        break;
      case "drain":
        // The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
        console.warn(`drain: ${event.value.reason}`);
        break;
    }
  }

  // Opens another stream, unless a heartbeat that was sent then could not know of the one that is open.
  reopen(sent: number): void {
    if (!this.open) {
      this.bell.ring();
    } else if (this.open.since + SETTLING_MS < sent) {
      this.open.giveUp.abort();
    }
  }
}
