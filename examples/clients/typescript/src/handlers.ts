// What this program runs. Yours go here.
import { conformance } from "./conformance.js";
import type { Handler } from "./taskq/outcome.js";
import { fromJSON, toJSON } from "./taskq/payload.js";

const cook: Handler = async (task) => {
  const { dish } = fromJSON<{ dish: string }>(task.payload);
  return toJSON(`${dish} is served, attempt ${task.attempt}`);
};

export const handlers: Record<string, Handler> = {
  "kitchen.cook": cook,
  ...conformance, // leave them out of your own
};
