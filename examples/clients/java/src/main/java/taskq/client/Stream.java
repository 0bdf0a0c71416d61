package taskq.client;

import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import taskq.v1.StreamTasksRequest;
import taskq.v1.StreamTasksResponse;

/** Brings attempts; whatever ends it, another is opened. */
final class Stream {
  // A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
  private static final long SETTLING_NANOS = TimeUnit.SECONDS.toNanos(1);

  private enum End { BROKEN, SUPERSEDED, NOT_FOUND }

  private record Open(long sinceNanos, BlockingClientCall<?, StreamTasksResponse> call) {
    void giveUp() {
      call.cancel("another is opened", null);
    }
  }

  private final Session session;
  private final Semaphore bell = new Semaphore(0); // rung when another is to be opened at once
  private volatile Open open;

  Stream(Session session) {
    this.session = session;
  }

  void keepOpen() throws InterruptedException {
    Pauses again = new Pauses(session.processor.channel, 500, 30_000);
    while (!session.over.isDone()) {
      End end = read(again);
      open = null;
      switch (end) {
        case NOT_FOUND -> session.end();
        // Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
        // more, a heartbeat's answer says so.
        case SUPERSEDED -> bell.acquire();
        case BROKEN -> bell.tryAcquire(again.nextMillis(), TimeUnit.MILLISECONDS);
      }
    }
  }

  private End read(Pauses again) throws InterruptedException {
    StreamTasksRequest request = StreamTasksRequest.newBuilder().setSessionId(session.id).build();
    Open reading = new Open(System.nanoTime(), session.processor.stub.streamTasks(request));
    open = reading;
    End end = End.BROKEN;
    try {
      StreamTasksResponse event;
      while ((event = reading.call().read(3 * session.pingMillis, TimeUnit.MILLISECONDS)) != null) {
        again.reset();
        end = event.hasSuperseded() ? End.SUPERSEDED : end;
        hear(event);
      }
    } catch (TimeoutException silence) {
      System.err.println("the stream is silent");
    } catch (StatusException error) {
      if (error.getStatus().getCode() == Status.Code.NOT_FOUND) {
        end = End.NOT_FOUND;
      } else if (!session.over.isDone()) {
        System.err.println("the stream has ended: " + error.getMessage());
      }
    } finally {
      reading.giveUp();
    }
    return end;
  }

  private void hear(StreamTasksResponse event) {
    switch (event.getEventCase()) {
      case TASKS -> event.getTasks().getTasksList().forEach(session::take);
      case CANCEL -> session.stop(event.getCancel().getAttemptsList());
      // The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
      case DRAIN -> System.err.println("drain: " + event.getDrain().getReason());
      default -> { } // a ping, or a kind that only a newer server knows
    }
  }

  /** Opens another stream, unless a heartbeat that was sent then could not know of the one that is open. */
  void reopen(long sentNanos) {
    Open now = open;
    if (now == null) {
      bell.release();
    } else if (now.sinceNanos() + SETTLING_NANOS < sentNanos) {
      now.giveUp();
    }
  }
}
