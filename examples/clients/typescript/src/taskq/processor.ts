// A processor: what it runs, and its life from start to stop.
import { hostname } from "node:os";
import { Code, ConnectError, createClient, type Client } from "@connectrpc/connect";
import { ProcessorService, type RegisterResponse } from "../generated/taskq/v1/processor_service_pb.js";
import { connect } from "./connection.js";
import type { Handler } from "./outcome.js";
import { Pauses } from "./pauses.js";
import { Session } from "./session.js";

const REGISTER_MS = 5_000;
// No waiting mends these. Who has worked before goes on nevertheless: somebody may be mending the server.
const HOPELESS = [Code.InvalidArgument, Code.PermissionDenied, Code.Unauthenticated, Code.Unimplemented];

export interface Settings {
  handlers: Record<string, Handler>;
  limit: number; // the most tasks at a time
  drainMs: number; // how long running tasks may take to end once it is told to stop
}

export class Processor {
  readonly client: Client<typeof ProcessorService> = createClient(ProcessorService, connect());
  // Heartbeats have a connection of their own: they never wait behind tasks and results.
  readonly heart: Client<typeof ProcessorService> = createClient(ProcessorService, connect());

  constructor(readonly settings: Settings) {}

  // Registers, and runs tasks until told to stop; then it takes nothing more, lets what runs end, reports it and
  // unregisters. A session that the server has ended is followed by another.
  async run(stop: AbortSignal): Promise<void> {
    for (let isFirst = true; !stop.aborted; isFirst = false) {
      const registered = await this.register(stop, isFirst);
      if (registered) {
        await new Session(this, registered).live(stop);
      }
    }
  }

  // Tries until it is heard; undefined when it is told to stop before.
  private async register(stop: AbortSignal, isFirst: boolean): Promise<RegisterResponse | undefined> {
    const request = {
      processorName: `${hostname().slice(0, 100)}-${process.pid}`,
      capabilities: Object.keys(this.settings.handlers).map((name) => ({ name })),
      maxInFlight: this.settings.limit,
      client: "taskq-typescript-example/1",
    };
    for (const again = new Pauses(500, 30_000); !stop.aborted; await again.wait(stop)) {
      try {
        const registered = await this.client.register(request, { timeoutMs: REGISTER_MS, signal: stop });
        console.warn(`registered ${request.capabilities.length} names: session ${registered.sessionId}`);
        return registered;
      } catch (error) {
        if (isFirst && HOPELESS.includes(ConnectError.from(error).code)) {
          throw error;
        }
        console.warn(`not registered: ${error}`);
      }
    }
    return undefined;
  }
}
