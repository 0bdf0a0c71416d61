// Reports are sent until they are answered: many in one request, one request at a time.
import { toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { TaskResultSchema, type TaskResult } from "../generated/taskq/v1/processor_service_pb.js";
import { Failed, failed, resultOf } from "./outcome.js";
import { Bell, Pauses } from "./pauses.js";
import type { Session } from "./session.js";

const REPORT_MS = 10_000;
// A request that has so much takes no more; with the largest result it stays below 1 MiB.
const FULL_BYTES = 512 * 1024;

export class Reports {
  private readonly results: TaskResult[] = [];
  private readonly bell: Bell; // rung when there is a result

  constructor(private readonly session: Session) {
    this.bell = new Bell(session.over);
  }

  add(result: TaskResult): void {
    this.results.push(result);
    this.bell.ring();
  }

  async keepSending(): Promise<void> {
    while (!this.session.over.aborted) {
      if (this.results.length > 0) {
        await this.send(this.batch());
      } else {
        await this.bell.wait();
      }
    }
  }

  private batch(): TaskResult[] {
    let count = 0;
    for (let size = 0; count < this.results.length && size < FULL_BYTES; count += 1) {
      size += toBinary(TaskResultSchema, this.results[count]!).length;
    }
    return this.results.splice(0, count);
  }

  private async send(results: TaskResult[]): Promise<void> {
    const { processor, id, over } = this.session;
    for (const again = new Pauses(100, 5_000); !over.aborted; await again.wait(over)) {
      try {
        const answer = await processor.client.reportResult(
          { sessionId: id, results },
          { timeoutMs: REPORT_MS, signal: over },
        );
        this.session.letGo(answer.answers);
        return;
      } catch (error) {
        console.warn(`${results.length} reports are not answered: ${error}`);
        if (ConnectError.from(error).code !== Code.InvalidArgument) {
          continue;
        }
        // One of them is refused for good: find it, and report it as failed.
        if (results.length > 1) {
          for (const result of results) {
            await this.send([result]);
          }
          return;
        }
        results = [resultOf(results[0]!, failed(new Failed("REPORT_REFUSED", String(error), false)))];
      }
    }
  }
}
