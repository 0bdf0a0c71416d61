package kitchen;

import java.io.IOException;
import java.time.Duration;
import taskq.client.Processor;

/** Runs tasks until SIGTERM: java … kitchen.Cook */
final class Cook {
  private Cook() {}

  public static void main(String[] arguments) throws IOException {
    Processor processor = new Processor(Handlers.ALL, 100, Duration.ofSeconds(30));
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      processor.stop();
      Runtime.getRuntime().halt(0); // SIGTERM that was obeyed is no fault
    }));
    try {
      processor.run();
    } catch (Exception error) {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
  }
}
