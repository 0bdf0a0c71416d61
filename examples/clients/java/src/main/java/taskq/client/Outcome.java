package taskq.client;

import taskq.v1.AssignedTask;
import taskq.v1.Payload;
import taskq.v1.Succeeded;
import taskq.v1.TaskResult;

/** What becomes of an attempt. */
final class Outcome {
  private static final int MAX_RESULT_BYTES = 256 * 1024;
  // What is kept of a failure, in characters. Sent whole, a message of megabytes would be refused again and again.
  private static final int MAX_TYPE_LENGTH = 256;
  private static final int MAX_MESSAGE_LENGTH = 4_096;

  private Outcome() {}

  /** Runs one attempt and answers what came of it. */
  static TaskResult of(AssignedTask task, Handler handler) {
    TaskResult.Builder result = resultOf(task.getTaskId(), task.getAttempt());
    try {
      Payload payload = handler.run(task);
      if (payload == null) {
        return result.setSucceeded(Succeeded.getDefaultInstance()).build();
      }
      if (payload.getData().size() > MAX_RESULT_BYTES) {
        throw new Failed("RESULT_TOO_LARGE", "the result is " + payload.getData().size() + " bytes", false);
      }
      return result.setSucceeded(Succeeded.newBuilder().setResult(payload)).build();
    } catch (Throwable error) { // whatever it is: it must not cost the task
      return result.setFailed(failed(error)).build();
    }
  }

  static TaskResult.Builder resultOf(String taskId, int attempt) {
    return TaskResult.newBuilder().setTaskId(taskId).setAttempt(attempt);
  }

  static taskq.v1.Failed failed(Throwable error) {
    String type = error instanceof Failed own ? own.type : error.getClass().getSimpleName();
    return taskq.v1.Failed.newBuilder()
        .setErrorType(type.isEmpty() ? "Error" : cut(type, MAX_TYPE_LENGTH)) // an anonymous class has no name
        .setMessage(cut(String.valueOf(error.getMessage()), MAX_MESSAGE_LENGTH))
        .setRetryable(!(error instanceof Failed own) || own.retryable)
        .build();
  }

  private static String cut(String text, int most) {
    return text.codePointCount(0, text.length()) <= most ? text : text.substring(0, text.offsetByCodePoints(0, most));
  }
}
