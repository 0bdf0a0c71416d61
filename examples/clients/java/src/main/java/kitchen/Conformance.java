package kitchen;

import com.google.gson.annotations.SerializedName;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import taskq.client.Failed;
import taskq.client.Payloads;
import taskq.v1.AssignedTask;
import taskq.v1.Payload;

/** The tasks of `taskq conformance`. */
final class Conformance {
  private record Sleep(double seconds, String file) {}

  private record Failure(@SerializedName("error_type") String type, String message, boolean retryable) {}

  private record Large(int bytes) {}

  private Conformance() {}

  static Payload echo(AssignedTask task) {
    return task.getPayload();
  }

  static Payload sleep(AssignedTask task) throws Failed, IOException, InterruptedException {
    Sleep arguments = Payloads.fromJson(task.getPayload(), Sleep.class);
    note(arguments.file(), "begin");
    Thread.sleep((long) (1000 * arguments.seconds()));
    note(arguments.file(), "end");
    return null;
  }

  static Payload fail(AssignedTask task) throws Failed {
    Failure failure = Payloads.fromJson(task.getPayload(), Failure.class);
    throw new Failed(failure.type(), failure.message(), failure.retryable());
  }

  static Payload large(AssignedTask task) throws Failed {
    Large arguments = Payloads.fromJson(task.getPayload(), Large.class);
    return Payload.newBuilder().setData(ByteString.copyFrom(new byte[arguments.bytes()])).build();
  }

  private static void note(String file, String word) throws IOException {
    Files.writeString(Path.of(file), word + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
  }
}
