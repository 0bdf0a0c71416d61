package taskq.client;

import io.grpc.Status;
import io.grpc.StatusException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import taskq.v1.ReportResultRequest;
import taskq.v1.TaskResult;

/** Are sent until they are answered: many in one request, one request at a time. */
final class Reports {
  private static final long REPORT_SECONDS = 10;
  // A request that has so much takes no more; with the largest result it stays below 1 MiB.
  private static final int FULL_BYTES = 512 * 1024;

  private final Session session;
  private final LinkedBlockingQueue<TaskResult> results = new LinkedBlockingQueue<>();

  Reports(Session session) {
    this.session = session;
  }

  void add(TaskResult result) {
    results.add(result);
  }

  void keepSending() throws InterruptedException {
    while (!session.over.isDone()) {
      send(batch(results.take()));
    }
  }

  /** What else waits, too. */
  private List<TaskResult> batch(TaskResult first) {
    List<TaskResult> batch = new ArrayList<>();
    int size = 0;
    for (TaskResult next = first; next != null; next = size < FULL_BYTES ? results.poll() : null) {
      batch.add(next);
      size += next.getSerializedSize();
    }
    return batch;
  }

  private void send(List<TaskResult> batch) throws InterruptedException {
    for (Pauses again = new Pauses(session.processor.channel, 100, 5_000); !session.over.isDone(); again.await()) {
      try {
        session.letGo(session.processor.stub.withDeadlineAfter(REPORT_SECONDS, TimeUnit.SECONDS)
            .reportResult(ReportResultRequest.newBuilder().setSessionId(session.id).addAllResults(batch).build())
            .getAnswersList());
        return;
      } catch (StatusException error) {
        System.err.println(batch.size() + " reports are not answered: " + error.getMessage());
        if (error.getStatus().getCode() != Status.Code.INVALID_ARGUMENT) {
          continue;
        }
        // One of them is refused for good: find it, and report it as failed.
        if (batch.size() > 1) {
          for (TaskResult result : batch) {
            send(List.of(result));
          }
          return;
        }
        TaskResult refused = batch.get(0);
        batch = List.of(Outcome.resultOf(refused.getTaskId(), refused.getAttempt())
            .setFailed(Outcome.failed(new Failed("REPORT_REFUSED", error.getMessage(), false)))
            .build());
      }
    }
  }
}
