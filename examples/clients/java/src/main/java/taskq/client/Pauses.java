package taskq.client;

import io.grpc.ManagedChannel;
import java.util.concurrent.ThreadLocalRandom;

/** Pauses between tries: they grow from the first to the longest, spread so that many clients do not return at once. */
final class Pauses {
  private final ManagedChannel channel;
  private final long firstMillis;
  private final long mostMillis;
  private long lastMillis;

  Pauses(ManagedChannel channel, long firstMillis, long mostMillis) {
    this.channel = channel;
    this.firstMillis = firstMillis;
    this.mostMillis = mostMillis;
  }

  long nextMillis() {
    channel.resetConnectBackoff(); // gRPC's own pauses between connections become two minutes long
    lastMillis = Math.min(Math.max(2 * lastMillis, firstMillis), mostMillis);
    return lastMillis / 2 + ThreadLocalRandom.current().nextLong(lastMillis / 2 + 1);
  }

  void reset() {
    lastMillis = 0;
  }

  void await() throws InterruptedException {
    Thread.sleep(nextMillis());
  }
}
