package taskq.client;

import com.google.protobuf.Duration;
import io.grpc.StatusException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import taskq.v1.AssignedTask;
import taskq.v1.AttemptRef;
import taskq.v1.InFlight;
import taskq.v1.RegisterResponse;
import taskq.v1.Released;
import taskq.v1.ReportAnswer;
import taskq.v1.UnregisterRequest;

/**
 * One registration. Its stream brings attempts, its heartbeats keep them and its reports end them, until the server ends
 * the session or the processor is told to stop.
 */
final class Session {
  private static final long UNREGISTER_SECONDS = 3;

  private record Key(String taskId, int attempt) {}

  private interface Loop {
    void run() throws InterruptedException;
  }

  final Processor processor;
  final String id;
  final long intervalMillis;
  final long pingMillis;
  final CompletableFuture<Void> over = new CompletableFuture<>(); // done once the session has ended
  final Stream stream = new Stream(this);
  final Heartbeats heartbeats = new Heartbeats(this);
  final Reports reports = new Reports(this);
  volatile boolean isDraining;
  // Each attempt, from its arrival until its report is answered.
  private final Map<Key, Future<?>> held = new ConcurrentHashMap<>();
  // Once the session has ended, nothing more begins.
  private final ExecutorService threads = new ThreadPoolExecutor(
      0, Integer.MAX_VALUE, 60, TimeUnit.SECONDS, new SynchronousQueue<>(), new ThreadPoolExecutor.DiscardPolicy());

  Session(Processor processor, RegisterResponse registered) {
    this.processor = processor;
    this.id = registered.getSessionId();
    this.intervalMillis = millis(registered.getHeartbeatInterval());
    this.pingMillis = millis(registered.getPingInterval());
  }

  /** Returns when the server has ended the session, or when it is told to stop and everything is reported. */
  void live() throws InterruptedException {
    begin(stream::keepOpen);
    begin(heartbeats::keepSending);
    begin(reports::keepSending);
    CompletableFuture.anyOf(over, processor.stopping).join();
    if (over.isDone()) {
      System.err.println("session " + id + " has ended");
    } else {
      drain();
    }
    end();
  }

  private void begin(Loop loop) {
    threads.execute(() -> {
      try {
        loop.run();
      } catch (InterruptedException ended) {
        Thread.currentThread().interrupt();
      }
    });
  }

  /** Ends it, and with it whatever runs. */
  void end() {
    over.complete(null);
    held.clear();
    threads.shutdownNow(); // interrupts them all
  }

  /** Begins an attempt, unless it is held already: a new stream may bring again what the one before has brought. */
  void take(AssignedTask task) {
    Key key = new Key(task.getTaskId(), task.getAttempt());
    FutureTask<?> attempt = new FutureTask<>(() -> run(key, task), null);
    if (held.putIfAbsent(key, attempt) == null) {
      threads.execute(attempt);
    }
  }

  private void run(Key key, AssignedTask task) {
    var result = isDraining
        ? Outcome.resultOf(key.taskId(), key.attempt()).setReleased(Released.getDefaultInstance()).build()
        : Outcome.of(task, processor.handlers.get(task.getName()));
    if (held.containsKey(key)) {
      reports.add(result);
    }
  }

  /** Ends attempts that were cancelled, or that another may run: nothing that is reported of them counts any more. */
  void stop(List<AttemptRef> attempts) {
    for (AttemptRef each : attempts) {
      Future<?> attempt = held.remove(new Key(each.getTaskId(), each.getAttempt()));
      if (attempt != null) {
        attempt.cancel(true);
      }
    }
  }

  /** Ends attempts, whatever the answer was: LEASE_LOST is as final as ACCEPTED. */
  void letGo(List<ReportAnswer> answers) {
    answers.forEach(answer -> held.remove(new Key(answer.getTaskId(), answer.getAttempt())));
  }

  List<InFlight> inFlight() {
    return held.keySet().stream()
        .map(key -> InFlight.newBuilder().setTaskId(key.taskId()).setAttempt(key.attempt()).build())
        .toList();
  }

  /**
   * Takes nothing more, waits until everything that is held is reported, and unregisters. What is still held then the
   * server gives to another.
   */
  private void drain() throws InterruptedException {
    isDraining = true;
    heartbeats.bell.release();
    long until = System.nanoTime() + processor.drainTimeout.toNanos();
    while (!held.isEmpty() && System.nanoTime() < until && !over.isDone()) {
      Thread.sleep(20);
    }
    try {
      processor.stub.withDeadlineAfter(UNREGISTER_SECONDS, TimeUnit.SECONDS)
          .unregister(UnregisterRequest.newBuilder().setSessionId(id).build());
    } catch (StatusException error) {
      System.err.println("unregister failed: " + error.getMessage()); // the session ends by itself, after a lease
    }
  }

  private static long millis(Duration span) {
    return span.getSeconds() * 1000 + span.getNanos() / 1_000_000;
  }
}
