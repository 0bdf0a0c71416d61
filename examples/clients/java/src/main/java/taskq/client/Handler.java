package taskq.client;

import taskq.v1.AssignedTask;
import taskq.v1.Payload;

/** Runs one attempt. It must end soon after its thread is interrupted; what it returns then is not reported. */
public interface Handler {
  /** What it came to; null means nothing. */
  Payload run(AssignedTask task) throws Exception;
}
