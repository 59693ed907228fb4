// What goes wrong with a request, as one error.

import type { ErrorCode } from "./codes.js";

/** A request that failed: the server's `error` frame, or `disconnected` if the connection ended before the answer. */
export class RequestError extends Error {
  /** Stable; what a program decides by. A newer server may send codes that are not in the list. */
  readonly code: ErrorCode | "disconnected" | (string & {});
  /** Whether the same request may succeed later. */
  readonly temporary: boolean;
  /** When, if the server knows. */
  readonly retryAfterMs: number | null;

  constructor(failure: { code: string; text: string; temporary?: boolean; retry_after_ms?: number | null }) {
    super(failure.text);
    this.name = "RequestError";
    this.code = failure.code;
    this.temporary = failure.temporary ?? false;
    this.retryAfterMs = failure.retry_after_ms ?? null;
  }
}

export const disconnected = (): RequestError =>
  new RequestError({ code: "disconnected", text: "the connection ended", temporary: true });
