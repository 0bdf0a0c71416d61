package taskq.client;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import taskq.v1.EnqueueRequest;
import taskq.v1.EnqueueResult;
import taskq.v1.NewTask;
import taskq.v1.SchedulerServiceGrpc;
import taskq.v1.SchedulerServiceGrpc.SchedulerServiceBlockingStub;
import taskq.v1.Task;
import taskq.v1.TaskState;
import taskq.v1.WatchTaskRequest;
import taskq.v1.WatchTaskResponse;

/** A scheduler: enqueues tasks and waits for them. */
public final class Scheduler implements AutoCloseable {
  private static final int ENQUEUE_SECONDS = 10;
  // What the same call may overcome later.
  private static final Set<Status.Code> PASSING = Set.of(
      Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.RESOURCE_EXHAUSTED,
      Status.Code.ABORTED, Status.Code.INTERNAL, Status.Code.UNKNOWN);
  private static final Set<TaskState> FINISHED =
      Set.of(TaskState.TASK_STATE_SUCCEEDED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_CANCELLED);

  private final ManagedChannel channel = Connection.open();
  private final SchedulerServiceBlockingStub stub = SchedulerServiceGrpc.newBlockingStub(channel);

  public Scheduler() throws IOException {}

  /**
   * Stores 1 to 1,000 tasks, all of them or none; once it returns they are safe. Each must have a task id of the
   * caller's own: it makes a repeated call the same tasks.
   */
  public List<EnqueueResult> enqueue(List<NewTask> tasks, long patienceSeconds) throws InterruptedException {
    EnqueueRequest request = EnqueueRequest.newBuilder().addAllTasks(tasks).build();
    long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(patienceSeconds);
    Pauses again = new Pauses(channel, 100, 5_000);
    while (true) {
      try {
        return stub.withDeadlineAfter(ENQUEUE_SECONDS, TimeUnit.SECONDS).enqueue(request).getResultsList();
      } catch (StatusRuntimeException error) {
        mustBePassing(error, until);
        System.err.println("not enqueued yet: " + error.getMessage());
        again.await();
      }
    }
  }

  /** Waits until the task is finished, over as many streams as that takes. */
  public Task result(String taskId, long patienceSeconds) throws InterruptedException {
    WatchTaskRequest request = WatchTaskRequest.newBuilder().setTaskId(taskId).build();
    long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(patienceSeconds);
    Pauses again = new Pauses(channel, 100, 5_000);
    while (true) {
      try {
        Iterator<WatchTaskResponse> changes =
            stub.withDeadlineAfter(until - System.nanoTime(), TimeUnit.NANOSECONDS).watchTask(request);
        while (changes.hasNext()) {
          Task task = changes.next().getTask();
          again.reset();
          if (FINISHED.contains(task.getState())) {
            return task;
          }
        }
      } catch (StatusRuntimeException error) {
        mustBePassing(error, until);
        System.err.println("not watched any more: " + error.getMessage());
      }
      again.await();
    }
  }

  private static void mustBePassing(StatusRuntimeException error, long until) {
    if (!PASSING.contains(error.getStatus().getCode()) || System.nanoTime() > until) {
      throw error;
    }
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }
}
