// Payloads and results as JSON.
import type { Payload } from "../generated/taskq/v1/task_pb.js";
import { Failed } from "./outcome.js";

export function toJSON(value: unknown) {
  return { data: new TextEncoder().encode(JSON.stringify(value)), contentType: "application/json" };
}

// What a payload says; it is believed to be a T. One that cannot be read ends its task: it will not get better.
export function fromJSON<T>(payload: Payload | undefined): T {
  try {
    return JSON.parse(new TextDecoder().decode(payload?.data)) as T;
  } catch (error) {
    throw new Failed("PAYLOAD_UNDECODABLE", String(error), false);
  }
}
