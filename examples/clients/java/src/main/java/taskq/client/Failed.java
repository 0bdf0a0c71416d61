package taskq.client;

/** Says how a failure is to be reported. Any other exception is of the type of its class, and may be retried. */
public final class Failed extends Exception {
  final String type;
  final boolean retryable;

  public Failed(String type, String message, boolean retryable) {
    super(message);
    this.type = type;
    this.retryable = retryable;
  }
}
