package taskq.client;

import io.grpc.StatusException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import taskq.v1.HeartbeatRequest;
import taskq.v1.HeartbeatResponse;

/** Tell the server that this processor lives, and what it holds. */
final class Heartbeats {
  private final Session session;
  final Semaphore bell = new Semaphore(0); // rung when the next is due at once

  Heartbeats(Session session) {
    this.session = session;
  }

  void keepSending() throws InterruptedException {
    Pauses again = new Pauses(session.processor.heartChannel, 100, Math.min(1000, session.intervalMillis));
    long pauseMillis = session.intervalMillis;
    while (!session.over.isDone()) {
      bell.tryAcquire(pauseMillis, TimeUnit.MILLISECONDS);
      try {
        send();
        again.reset();
        pauseMillis = session.intervalMillis;
      } catch (StatusException error) {
        if (!session.over.isDone()) {
          System.err.println("heartbeat failed: " + error.getMessage());
        }
        pauseMillis = again.nextMillis();
      }
    }
  }

  private void send() throws StatusException {
    long sentNanos = System.nanoTime();
    HeartbeatResponse answer = session.processor.heart
        .withDeadlineAfter(session.intervalMillis, TimeUnit.MILLISECONDS)
        .heartbeat(HeartbeatRequest.newBuilder()
            .setSessionId(session.id)
            .addAllInFlight(session.inFlight())
            .setDraining(session.isDraining)
            .build());
    session.stop(answer.getLostList());
    session.stop(answer.getCancelledList());
    switch (answer.getStream()) {
      case STREAM_STATE_REREGISTER -> session.end();
      case STREAM_STATE_REOPEN -> session.stream.reopen(sentNanos);
      default -> { } // it is open
    }
  }
}
