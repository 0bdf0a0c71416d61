package clients;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.net.InetAddress;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import taskq.v1.AssignedTask;
import taskq.v1.Cancelled;
import taskq.v1.Capability;
import taskq.v1.Payload;
import taskq.v1.ProcessorServiceGrpc;
import taskq.v1.ProcessorServiceGrpc.ProcessorServiceBlockingStub;
import taskq.v1.RegisterRequest;
import taskq.v1.RegisterResponse;
import taskq.v1.Released;
import taskq.v1.Succeeded;
import taskq.v1.TaskResult;

/** A processor: what it runs, and its life from start to stop. */
final class Processor {
  private static final int REGISTER_SECONDS = 5;
  private static final int MAX_RESULT_BYTES = 256 * 1024;
  // What is kept of a failure, in characters. Sent whole, a message of megabytes would be refused again and again.
  private static final int MAX_TYPE_LENGTH = 256;
  private static final int MAX_MESSAGE_LENGTH = 4_096;
  // No waiting mends these.
  private static final Set<Status.Code> HOPELESS = Set.of(
      Status.Code.INVALID_ARGUMENT, Status.Code.PERMISSION_DENIED, Status.Code.UNAUTHENTICATED, Status.Code.UNIMPLEMENTED);

  /** Runs one attempt. It must end soon after its thread is interrupted; what it returns then is not reported. */
  interface Handler {
    /** What it came to; null means nothing. */
    Payload run(AssignedTask task) throws Exception;
  }

  /** Says how a failure is to be reported. Any other exception is of the type of its class, and may be retried. */
  static final class Failed extends Exception {
    final String type;
    final boolean retryable;

    Failed(String type, String message, boolean retryable) {
      super(message);
      this.type = type;
      this.retryable = retryable;
    }
  }

  /** Why an attempt is stopped. */
  enum Stop { LOST, CANCELLED, DRAINED }

  final ManagedChannel channel = Connection.open();
  // Heartbeats have a connection of their own: they never wait behind tasks and results.
  final ManagedChannel heartChannel = Connection.open();
  final CountDownLatch stopping = new CountDownLatch(1);
  private final Map<String, Handler> handlers;
  private final int limit;

  Processor(Map<String, Handler> handlers, int limit) throws IOException {
    this.handlers = handlers;
    this.limit = limit;
  }

  ProcessorServiceBlockingStub stub() {
    return ProcessorServiceGrpc.newBlockingStub(channel).withCallCredentials(Connection.token());
  }

  ProcessorServiceBlockingStub heart() {
    return ProcessorServiceGrpc.newBlockingStub(heartChannel).withCallCredentials(Connection.token());
  }

  /** Runs tasks until told to stop; then it takes nothing more, lets what runs end, reports it and unregisters. */
  void run() throws IOException, InterruptedException {
    for (boolean isFirst = true; stopping.getCount() > 0; isFirst = false) {
      RegisterResponse registered = register(isFirst);
      if (registered != null) {
        new Session(this, registered).live();
      }
    }
  }

  /** Makes `run` return, after the drain. */
  void stop() {
    stopping.countDown();
  }

  private RegisterResponse register(boolean isFirst) throws IOException, InterruptedException {
    String host = InetAddress.getLocalHost().getHostName().replaceAll("[^A-Za-z0-9._/-]", "-");
    RegisterRequest.Builder request = RegisterRequest.newBuilder()
        .setProcessorName(host.substring(0, Math.min(100, host.length())) + "-" + ProcessHandle.current().pid())
        .setMaxInFlight(limit)
        .setClient("taskq-java-example/1");
    handlers.keySet().forEach(name -> request.addCapabilities(Capability.newBuilder().setName(name)));
    Pauses again = new Pauses(channel, 500, 30_000);
    while (stopping.getCount() > 0) {
      try {
        return stub().withDeadlineAfter(REGISTER_SECONDS, TimeUnit.SECONDS).register(request.build());
      } catch (StatusRuntimeException error) {
        if (isFirst && HOPELESS.contains(error.getStatus().getCode())) {
          throw error;
        }
        System.err.println("not registered: " + error.getMessage());
        again.await(stopping);
      }
    }
    return null;
  }

  /** What came of an attempt that was not stopped. */
  TaskResult run(AssignedTask task) {
    TaskResult.Builder result = resultOf(task.getTaskId(), task.getAttempt());
    try {
      Handler handler = handlers.get(task.getName());
      if (handler == null) {
        throw new Failed("UNKNOWN_NAME", "nobody here runs " + task.getName(), true);
      }
      Payload payload = handler.run(task);
      if (payload == null) {
        return result.setSucceeded(Succeeded.getDefaultInstance()).build();
      }
      if (payload.getData().size() > MAX_RESULT_BYTES) {
        throw new Failed("RESULT_TOO_LARGE", "the result is " + payload.getData().size() + " bytes", false);
      }
      return result.setSucceeded(Succeeded.newBuilder().setResult(payload)).build();
    } catch (Failed failed) {
      return result.setFailed(failed(failed.type, failed.getMessage(), failed.retryable)).build();
    } catch (Throwable error) { // whatever it is: it must not cost the task
      return result.setFailed(failed(typeOf(error), error.getMessage(), true)).build();
    }
  }

  /** What to report of an attempt that was stopped; null when there is nothing to say. */
  static TaskResult stopped(AssignedTask task, Stop why) {
    TaskResult.Builder result = resultOf(task.getTaskId(), task.getAttempt());
    return switch (why) {
      case LOST -> null;
      case CANCELLED -> result.setCancelled(Cancelled.getDefaultInstance()).build();
      case DRAINED -> result.setReleased(Released.getDefaultInstance()).build();
    };
  }

  static TaskResult.Builder resultOf(String taskId, int attempt) {
    return TaskResult.newBuilder().setTaskId(taskId).setAttempt(attempt);
  }

  static taskq.v1.Failed failed(String type, String message, boolean retryable) {
    return taskq.v1.Failed.newBuilder()
        .setErrorType(type == null || type.isEmpty() ? "Error" : cut(type, MAX_TYPE_LENGTH))
        .setMessage(cut(String.valueOf(message), MAX_MESSAGE_LENGTH))
        .setRetryable(retryable)
        .build();
  }

  /** An anonymous class has no simple name. */
  private static String typeOf(Throwable error) {
    String simple = error.getClass().getSimpleName();
    return simple.isEmpty() ? error.getClass().getName() : simple;
  }

  private static String cut(String text, int most) {
    return text.codePointCount(0, text.length()) <= most ? text : text.substring(0, text.offsetByCodePoints(0, most));
  }
}
