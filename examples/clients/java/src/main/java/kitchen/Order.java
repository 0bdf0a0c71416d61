package kitchen;

import com.google.protobuf.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import taskq.client.Payloads;
import taskq.client.Scheduler;
import taskq.v1.EnqueueOutcome;
import taskq.v1.NewTask;
import taskq.v1.Task;
import taskq.v1.TaskState;

/** Enqueues a task, due in a second, and waits for its result: java … kitchen.Order stew */
final class Order {
  private static final long PATIENCE_SECONDS = 60;

  private Order() {}

  public static void main(String[] arguments) throws Exception {
    Map<String, String> order = Map.of("dish", arguments.length > 0 ? arguments[0] : "stew");
    NewTask wanted = NewTask.newBuilder()
        .setTaskId(UUID.randomUUID().toString())
        .setName("kitchen.cook")
        .setPayload(Payloads.toJson(order))
        .setDelay(Duration.newBuilder().setSeconds(1)) // without it: now
        .build();
    try (Scheduler scheduler = new Scheduler()) {
      EnqueueOutcome outcome = scheduler.enqueue(List.of(wanted), PATIENCE_SECONDS).get(0).getOutcome();
      switch (outcome) {
        case ENQUEUE_OUTCOME_CONFLICT, ENQUEUE_OUTCOME_REJECTED -> throw new IllegalStateException("not enqueued: " + outcome);
        default -> { } // it is stored, now or before
      }
      Task task = scheduler.result(wanted.getTaskId(), PATIENCE_SECONDS);
      if (task.getState() != TaskState.TASK_STATE_SUCCEEDED) {
        throw new IllegalStateException(task.getState() + ": " + task.getLastFailure().getMessage());
      }
      System.out.println(task.getResult().getData().toStringUtf8());
    }
  }
}
