package clients;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import taskq.v1.AssignedTask;
import taskq.v1.Payload;

/** Cooks, and runs the tasks of `taskq conformance`, until SIGTERM: java … clients.Cook */
final class Cook {
  private static final Gson JSON = new Gson();

  private Cook() {}

  public static void main(String[] arguments) throws Exception {
    Processor processor = new Processor(
        Map.of(
            "kitchen.cook", Cook::cook,
            "conformance.echo", AssignedTask::getPayload,
            "conformance.sleep", Cook::sleep,
            "conformance.fail", Cook::fail,
            "conformance.large", Cook::large),
        100);
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      processor.stop();
      try {
        ended.await();
      } catch (InterruptedException impossible) {
        Thread.currentThread().interrupt();
      }
      Runtime.getRuntime().halt(0); // SIGTERM that was obeyed is no fault
    }));
    try {
      processor.run();
    } catch (Exception error) {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
    ended.countDown();
  }

  private static Payload cook(AssignedTask task) {
    String served = argumentsOf(task).get("dish").getAsString() + " is served, attempt " + task.getAttempt();
    return Payload.newBuilder()
        .setData(ByteString.copyFromUtf8(JSON.toJson(served)))
        .setContentType("application/json")
        .build();
  }

  private static Payload sleep(AssignedTask task) throws IOException, InterruptedException {
    JsonObject arguments = argumentsOf(task);
    note(arguments, "begin");
    Thread.sleep((long) (1000 * arguments.get("seconds").getAsDouble()));
    note(arguments, "end");
    return null;
  }

  private static Payload fail(AssignedTask task) throws Processor.Failed {
    JsonObject arguments = argumentsOf(task);
    throw new Processor.Failed(
        arguments.get("error_type").getAsString(),
        arguments.get("message").getAsString(),
        arguments.get("retryable").getAsBoolean());
  }

  private static Payload large(AssignedTask task) {
    return Payload.newBuilder()
        .setData(ByteString.copyFrom(new byte[argumentsOf(task).get("bytes").getAsInt()]))
        .build();
  }

  private static JsonObject argumentsOf(AssignedTask task) {
    return JSON.fromJson(task.getPayload().getData().toStringUtf8(), JsonObject.class);
  }

  private static void note(JsonObject arguments, String word) throws IOException {
    Path file = Path.of(arguments.get("file").getAsString());
    Files.writeString(file, word + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
  }
}
