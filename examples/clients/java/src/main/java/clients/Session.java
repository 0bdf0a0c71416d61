package clients;

import com.google.protobuf.Duration;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import taskq.v1.AssignedTask;
import taskq.v1.AttemptRef;
import taskq.v1.HeartbeatRequest;
import taskq.v1.HeartbeatResponse;
import taskq.v1.InFlight;
import taskq.v1.RegisterResponse;
import taskq.v1.ReportAnswer;
import taskq.v1.ReportResultRequest;
import taskq.v1.StreamState;
import taskq.v1.StreamTasksRequest;
import taskq.v1.StreamTasksResponse;
import taskq.v1.TaskResult;
import taskq.v1.UnregisterRequest;

/** One registration: its stream, its heartbeats and its reports, until the server or a drain ends it. */
final class Session {
  private static final long REPORT_SECONDS = 10;
  private static final long UNREGISTER_SECONDS = 3;
  private static final long DRAIN_SECONDS = 30;
  private static final int MAX_REQUEST_BYTES = 1 << 20;
  private static final int MAX_RESULTS = 1000;
  // A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
  private static final long SETTLING_NANOS = TimeUnit.SECONDS.toNanos(1);

  private record Key(String taskId, int attempt) {}

  private record OpenStream(long openedNanos, Context.CancellableContext call) {}

  private enum End { BROKEN, SUPERSEDED, GONE }

  private final Processor processor;
  private final String id;
  private final long intervalMillis;
  private final long pingMillis;
  // From its arrival until its report is answered.
  private final Map<Key, Attempt> held = new ConcurrentHashMap<>();
  private final LinkedBlockingQueue<TaskResult> results = new LinkedBlockingQueue<>();
  private final ExecutorService threads = Executors.newCachedThreadPool();
  private final ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
  private final CountDownLatch over = new CountDownLatch(1);
  private final Semaphore hurry = new Semaphore(0);
  private final Semaphore reopen = new Semaphore(0);
  private volatile OpenStream stream;
  private volatile boolean isDraining;
  private volatile boolean isResting;
  private volatile long heardNanos;

  Session(Processor processor, RegisterResponse registered) {
    this.processor = processor;
    this.id = registered.getSessionId();
    this.intervalMillis = millis(registered.getHeartbeatInterval());
    this.pingMillis = millis(registered.getPingInterval());
  }

  /** Returns when the server has ended the session, or when it is told to stop and everything is reported. */
  void live() throws InterruptedException {
    threads.execute(() -> untilInterrupted(this::keepStreams));
    threads.execute(() -> untilInterrupted(this::beat));
    threads.execute(() -> untilInterrupted(this::report));
    while (!isOver() && !processor.stopping.await(50, TimeUnit.MILLISECONDS)) {
      // both are looked at
    }
    if (!isOver()) {
      drain();
    }
    end();
    threads.shutdownNow();
    timer.shutdownNow();
  }

  private interface Loop {
    void run() throws InterruptedException;
  }

  private void untilInterrupted(Loop loop) {
    try {
      loop.run();
    } catch (InterruptedException ended) {
      Thread.currentThread().interrupt();
    }
  }

  private boolean isOver() {
    return over.getCount() == 0;
  }

  private void end() {
    over.countDown();
    held.values().forEach(attempt -> attempt.stop(Processor.Stop.LOST));
    held.clear();
  }

  /** Keeps a task stream open: whatever ends it, another is opened. */
  private void keepStreams() throws InterruptedException {
    Pauses again = new Pauses(processor.channel, 500, 30_000);
    while (!isOver()) {
      End end = readStream(again);
      stream = null;
      if (end == End.GONE) {
        System.err.println("session " + id + " has ended");
        end();
      } else if (end == End.SUPERSEDED) {
        // Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
        // more, a heartbeat's answer says so.
        reopen.acquire();
      }
      again.await(reopen);
    }
  }

  private End readStream(Pauses again) throws InterruptedException {
    Context.CancellableContext call = Context.current().withCancellation();
    heardNanos = System.nanoTime();
    stream = new OpenStream(heardNanos, call);
    Future<?> watchdog = timer.scheduleWithFixedDelay(
        () -> {
          if (System.nanoTime() - heardNanos > TimeUnit.MILLISECONDS.toNanos(3 * pingMillis)) {
            call.cancel(null);
          }
        },
        pingMillis, Math.max(1, pingMillis / 4), TimeUnit.MILLISECONDS);
    End end = End.BROKEN;
    Context before = call.attach();
    try {
      Iterator<StreamTasksResponse> events =
          processor.stub().streamTasks(StreamTasksRequest.newBuilder().setSessionId(id).build());
      while (events.hasNext()) {
        StreamTasksResponse event = events.next();
        heardNanos = System.nanoTime();
        again.reset();
        if (event.hasSuperseded()) {
          end = End.SUPERSEDED;
        }
        hear(event);
      }
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() == Status.Code.NOT_FOUND) {
        end = End.GONE;
      }
    } finally {
      call.detach(before);
      call.cancel(null);
      watchdog.cancel(false);
    }
    if (Thread.interrupted()) {
      throw new InterruptedException();
    }
    return end;
  }

  private void hear(StreamTasksResponse event) {
    switch (event.getEventCase()) {
      case TASKS -> event.getTasks().getTasksList().forEach(this::take);
      case CANCEL -> stop(event.getCancel().getAttemptsList(), Processor.Stop.CANCELLED);
      // The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
      case DRAIN -> System.err.println("drain: " + event.getDrain().getReason());
      default -> { } // a ping, or a kind that only a newer server knows
    }
  }

  /** Begins it, unless it is held already: a new stream may bring again what the one before has brought. */
  private void take(AssignedTask task) {
    Attempt attempt = new Attempt(task);
    if (held.putIfAbsent(new Key(task.getTaskId(), task.getAttempt()), attempt) != null) {
      return;
    }
    if (isDraining) {
      results.add(Processor.stopped(task, Processor.Stop.DRAINED));
    } else {
      threads.execute(attempt);
    }
    if (isResting) {
      hurry.release();
    }
  }

  private void stop(List<AttemptRef> refs, Processor.Stop why) {
    for (AttemptRef ref : refs) {
      Key key = new Key(ref.getTaskId(), ref.getAttempt());
      Attempt attempt = held.get(key);
      if (attempt != null) {
        attempt.stop(why);
        if (why == Processor.Stop.LOST) {
          held.remove(key);
        }
      }
    }
  }

  /** One attempt in a thread, which is interrupted when it is to stop. */
  private final class Attempt implements Runnable {
    private final AssignedTask task;
    private Thread thread;
    private Processor.Stop why;

    Attempt(AssignedTask task) {
      this.task = task;
    }

    @Override
    public void run() {
      TaskResult result = begin() ? processor.run(task) : null;
      Processor.Stop stopped = finish();
      result = stopped == null ? result : Processor.stopped(task, stopped);
      if (result != null) {
        results.add(result);
      }
    }

    synchronized void stop(Processor.Stop why) {
      this.why = this.why == null ? why : this.why;
      if (thread != null) {
        thread.interrupt();
      }
    }

    private synchronized boolean begin() {
      thread = Thread.currentThread();
      return why == null;
    }

    private synchronized Processor.Stop finish() {
      thread = null;
      Thread.interrupted();
      return why;
    }
  }

  /** Tells the server that this processor lives, and what it holds. */
  private void beat() throws InterruptedException {
    Pauses again = new Pauses(processor.heartChannel, 100, Math.min(1000, intervalMillis));
    long pauseMillis = intervalMillis;
    while (!isOver()) {
      hurry.tryAcquire(pauseMillis, TimeUnit.MILLISECONDS);
      hurry.drainPermits();
      long sentNanos = System.nanoTime();
      HeartbeatRequest.Builder request = HeartbeatRequest.newBuilder().setSessionId(id).setDraining(isDraining);
      held.keySet().forEach(key -> request.addInFlight(
          InFlight.newBuilder().setTaskId(key.taskId()).setAttempt(key.attempt())));
      try {
        HeartbeatResponse answer = processor.heart()
            .withDeadlineAfter(intervalMillis, TimeUnit.MILLISECONDS).heartbeat(request.build());
        again.reset();
        obey(answer, sentNanos);
        isResting = answer.hasRest() && held.isEmpty();
        pauseMillis = isResting ? millis(answer.getRest()) : intervalMillis;
        if (isResting && !held.isEmpty()) {
          hurry.release(); // something has come just now
        }
      } catch (StatusRuntimeException error) {
        System.err.println("heartbeat failed: " + error.getMessage());
        again.await(over);
        pauseMillis = 0;
      }
    }
  }

  private void obey(HeartbeatResponse answer, long sentNanos) {
    stop(answer.getLostList(), Processor.Stop.LOST);
    stop(answer.getCancelledList(), Processor.Stop.CANCELLED);
    OpenStream open = stream;
    if (answer.getStream() == StreamState.STREAM_STATE_REREGISTER) {
      System.err.println("session " + id + " has ended");
      end();
    } else if (answer.getStream() == StreamState.STREAM_STATE_REOPEN) {
      if (open == null) {
        reopen.release();
      } else if (open.openedNanos() + SETTLING_NANOS < sentNanos) {
        open.call().cancel(null);
      }
    }
  }

  /** Sends results until they are answered: many in one request, one request at a time. */
  private void report() throws InterruptedException {
    while (!isOver()) {
      List<TaskResult> batch = new ArrayList<>(List.of(results.take()));
      int size = batch.get(0).getSerializedSize();
      for (TaskResult next = results.peek(); next != null && batch.size() < MAX_RESULTS; next = results.peek()) {
        size += next.getSerializedSize();
        if (size > MAX_REQUEST_BYTES) {
          break;
        }
        batch.add(results.remove());
      }
      deliver(batch);
    }
  }

  private void deliver(List<TaskResult> batch) throws InterruptedException {
    Pauses again = new Pauses(processor.channel, 100, 5_000);
    ReportResultRequest request = ReportResultRequest.newBuilder().setSessionId(id).addAllResults(batch).build();
    while (!isOver()) {
      try {
        letGo(processor.stub().withDeadlineAfter(REPORT_SECONDS, TimeUnit.SECONDS).reportResult(request).getAnswersList());
        return;
      } catch (StatusRuntimeException error) {
        System.err.println(batch.size() + " reports are not answered: " + error.getMessage());
        if (error.getStatus().getCode() == Status.Code.INVALID_ARGUMENT) {
          deliverOneByOne(batch, error.getMessage());
          return;
        }
        again.await(over);
      }
    }
  }

  /** Finds the report that is refused; what cannot be reported as it is, is reported as failed. */
  private void deliverOneByOne(List<TaskResult> batch, String refusal) throws InterruptedException {
    for (TaskResult result : batch) {
      if (batch.size() > 1) {
        deliver(List.of(result));
      } else if (result.getFailed().getErrorType().equals("REPORT_REFUSED")) {
        held.remove(new Key(result.getTaskId(), result.getAttempt()));
      } else {
        deliver(List.of(Processor.resultOf(result.getTaskId(), result.getAttempt())
            .setFailed(Processor.failed("REPORT_REFUSED", refusal, false)).build()));
      }
    }
  }

  /** Whatever the answer was: LEASE_LOST is as final as ACCEPTED. */
  private void letGo(List<ReportAnswer> answers) {
    answers.forEach(answer -> held.remove(new Key(answer.getTaskId(), answer.getAttempt())));
  }

  /** Takes nothing more, waits until everything that is held is reported, and unregisters. */
  private void drain() throws InterruptedException {
    isDraining = true;
    hurry.release();
    if (!isEmptyWithin(DRAIN_SECONDS)) {
      held.values().forEach(attempt -> attempt.stop(Processor.Stop.DRAINED));
      isEmptyWithin(5);
    }
    try {
      processor.stub().withDeadlineAfter(UNREGISTER_SECONDS, TimeUnit.SECONDS)
          .unregister(UnregisterRequest.newBuilder().setSessionId(id).build());
    } catch (StatusRuntimeException error) {
      System.err.println("unregister failed: " + error.getMessage()); // the session ends by itself, after a lease
    }
  }

  private boolean isEmptyWithin(long seconds) throws InterruptedException {
    long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
    while (!held.isEmpty() && System.nanoTime() < until && !isOver()) {
      over.await(20, TimeUnit.MILLISECONDS);
    }
    return held.isEmpty();
  }

  private static long millis(Duration span) {
    return span.getSeconds() * 1000 + span.getNanos() / 1_000_000;
  }
}
