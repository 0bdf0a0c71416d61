// Waiting: between tries, and for one another.
import { setTimeout as sleep } from "node:timers/promises";

// Pauses between tries, in milliseconds: they grow from the first to the longest, spread so that many clients do not
// return at the same instant.
export class Pauses {
  private last = 0;

  constructor(
    private readonly first: number,
    private readonly most: number,
  ) {}

  next(): number {
    this.last = Math.min(Math.max(2 * this.last, this.first), this.most);
    return (this.last * (1 + Math.random())) / 2;
  }

  reset(): void {
    this.last = 0;
  }

  async wait(over: AbortSignal): Promise<void> {
    await sleep(this.next(), undefined, { signal: over }).catch(() => {}); // it is over
  }
}

const FOREVER_MS = 2 ** 31 - 1; // the most that a timer takes

// Rung by one, waited for by another; what is over has rung.
export class Bell {
  private rung = new AbortController();

  constructor(over: AbortSignal) {
    over.addEventListener("abort", () => this.ring());
  }

  ring(): void {
    this.rung.abort();
  }

  async wait(milliseconds = FOREVER_MS): Promise<void> {
    await sleep(milliseconds, undefined, { signal: this.rung.signal }).catch(() => {}); // it has rung
    this.rung = new AbortController();
  }
}
