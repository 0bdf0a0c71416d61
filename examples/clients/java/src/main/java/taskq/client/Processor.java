package taskq.client;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import java.io.IOException;
import java.net.InetAddress;
import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import taskq.v1.Capability;
import taskq.v1.ProcessorServiceGrpc;
import taskq.v1.ProcessorServiceGrpc.ProcessorServiceBlockingV2Stub;
import taskq.v1.RegisterRequest;
import taskq.v1.RegisterResponse;

/** Runs tasks: what it runs, and its life from start to stop. */
public final class Processor {
  private static final int REGISTER_SECONDS = 5;
  // No waiting mends these. Who has worked before goes on nevertheless: somebody may be mending the server.
  private static final Set<Status.Code> HOPELESS = Set.of(
      Status.Code.INVALID_ARGUMENT, Status.Code.PERMISSION_DENIED, Status.Code.UNAUTHENTICATED, Status.Code.UNIMPLEMENTED);

  final ManagedChannel channel = Connection.open();
  // Heartbeats have a connection of their own: they never wait behind tasks and results.
  final ManagedChannel heartChannel = Connection.open();
  final ProcessorServiceBlockingV2Stub stub = ProcessorServiceGrpc.newBlockingV2Stub(channel);
  final ProcessorServiceBlockingV2Stub heart = ProcessorServiceGrpc.newBlockingV2Stub(heartChannel);
  final Map<String, Handler> handlers;
  final Duration drainTimeout;
  final CompletableFuture<Void> stopping = new CompletableFuture<>();
  private final CompletableFuture<Void> ended = new CompletableFuture<>();
  private final int limit;

  /** At most so many tasks at a time; and so long they may take to end once it is told to stop. */
  public Processor(Map<String, Handler> handlers, int limit, Duration drainTimeout) throws IOException {
    this.handlers = handlers;
    this.limit = limit;
    this.drainTimeout = drainTimeout;
  }

  /**
   * Registers, and runs tasks until told to stop; then it takes nothing more, lets what runs end, reports it and
   * unregisters. A session that the server has ended is followed by another.
   */
  public void run() throws IOException, InterruptedException, StatusException {
    try {
      for (boolean isFirst = true; !stopping.isDone(); isFirst = false) {
        RegisterResponse registered = register(isFirst);
        if (registered != null) {
          new Session(this, registered).live();
        }
      }
    } finally {
      ended.complete(null);
    }
  }

  /** Makes `run` return, after the drain, and waits for that. */
  public void stop() {
    stopping.complete(null);
    ended.join();
  }

  /** Tries until it is heard; null when it is told to stop before. */
  private RegisterResponse register(boolean isFirst) throws IOException, InterruptedException, StatusException {
    RegisterRequest.Builder request = RegisterRequest.newBuilder()
        .setProcessorName("%.100s-%d".formatted(InetAddress.getLocalHost().getHostName(), ProcessHandle.current().pid()))
        .setMaxInFlight(limit)
        .setClient("taskq-java-example/1");
    handlers.keySet().forEach(name -> request.addCapabilities(Capability.newBuilder().setName(name)));
    for (Pauses again = new Pauses(channel, 500, 30_000); !stopping.isDone(); again.await()) {
      try {
        var registered = stub.withDeadlineAfter(REGISTER_SECONDS, TimeUnit.SECONDS).register(request.build());
        System.err.println("registered " + handlers.size() + " names: session " + registered.getSessionId());
        return registered;
      } catch (StatusException error) {
        if (isFirst && HOPELESS.contains(error.getStatus().getCode())) {
          throw error;
        }
        System.err.println("not registered: " + error.getMessage());
      }
    }
    return null;
  }
}
