package kitchen;

import java.util.Map;
import taskq.client.Failed;
import taskq.client.Handler;
import taskq.client.Payloads;
import taskq.v1.AssignedTask;
import taskq.v1.Payload;

/** What this program runs. Yours go here. */
final class Handlers {
  static final Map<String, Handler> ALL = Map.of(
      "kitchen.cook", Handlers::cook,

      // For `taskq conformance`; leave them out of your own.
      "conformance.echo", Conformance::echo,
      "conformance.sleep", Conformance::sleep,
      "conformance.fail", Conformance::fail,
      "conformance.large", Conformance::large);

  private record Order(String dish) {}

  private Handlers() {}

  private static Payload cook(AssignedTask task) throws Failed {
    Order order = Payloads.fromJson(task.getPayload(), Order.class);
    return Payloads.toJson(order.dish() + " is served, attempt " + task.getAttempt());
  }
}
