// Runs tasks until SIGTERM: node dist/cook.js
import { handlers } from "./handlers.js";
import { Processor } from "./taskq/processor.js";

const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => stop.abort());
}
await new Processor({ handlers, limit: 100, drainMs: 30_000 }).run(stop.signal);
process.exit(0); // its connections would keep it
