// Heartbeats tell the server that this processor lives, and what it holds.
import { StreamState } from "../generated/taskq/v1/processor_service_pb.js";
import { Bell, Pauses } from "./pauses.js";
import type { Session } from "./session.js";

export class Heartbeats {
  readonly bell: Bell; // rung when the next is due at once

  constructor(private readonly session: Session) {
    this.bell = new Bell(session.over);
  }

  async keepSending(): Promise<void> {
    const { intervalMs, over } = this.session;
    const again = new Pauses(100, Math.min(1_000, intervalMs));
    for (let pause = intervalMs; ; ) {
      await this.bell.wait(pause);
      if (over.aborted) {
        return;
      }
      try {
        await this.send();
        again.reset();
        pause = intervalMs;
      } catch (error) {
        if (!over.aborted) {
          console.warn(`heartbeat failed: ${error}`);
        }
        pause = again.next();
      }
    }
  }

  private async send(): Promise<void> {
    const { session } = this;
    const sent = Date.now();
    const answer = await session.processor.heart.heartbeat(
      { sessionId: session.id, inFlight: session.inFlight(), draining: session.isDraining },
      { timeoutMs: session.intervalMs, signal: session.over },
    );
    session.stop(answer.lost);
    session.stop(answer.cancelled);
    if (answer.stream === StreamState.REREGISTER) {
      session.end();
    } else if (answer.stream === StreamState.REOPEN) {
      session.stream.reopen(sent);
    }
  }
}
