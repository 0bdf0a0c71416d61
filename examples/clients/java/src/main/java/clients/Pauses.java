package clients;

import io.grpc.ManagedChannel;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** Pauses that grow from the first to the longest, spread so that many clients do not return at the same instant. */
final class Pauses {
  private final ManagedChannel channel;
  private final long firstMillis;
  private final long mostMillis;
  private long nextMillis;

  Pauses(ManagedChannel channel, long firstMillis, long mostMillis) {
    this.channel = channel;
    this.firstMillis = firstMillis;
    this.mostMillis = mostMillis;
  }

  void reset() {
    nextMillis = 0;
  }

  /** Ends early when there is a permit. */
  void await(Semaphore early) throws InterruptedException {
    if (early.tryAcquire(nextMillis(), TimeUnit.MILLISECONDS)) {
      early.drainPermits();
    }
  }

  /** Ends early when it is all over. */
  void await(CountDownLatch over) throws InterruptedException {
    over.await(nextMillis(), TimeUnit.MILLISECONDS);
  }

  private long nextMillis() {
    channel.resetConnectBackoff(); // gRPC's own pauses between connections become two minutes long
    nextMillis = Math.min(Math.max(2 * nextMillis, firstMillis), mostMillis);
    return nextMillis / 2 + ThreadLocalRandom.current().nextLong(nextMillis / 2 + 1);
  }
}
