// One WebSocket after another: owns dialling, the `connect` handshake, requests and their answers, heartbeat and back-off.
//
// It knows nothing of conversations: frames that answer no request go to `onPush`. States:
//   idle → connecting → open → waiting → connecting …   and → stopped, from which only `start` leads out.

import { CLOSE_CODES, KINDS, SUBPROTOCOL } from "./codes.js";
import { Timers, type Environment, type Socket } from "./environment.js";
import { disconnected, RequestError } from "./failure.js";
import type { Answers, Pushes, Requests } from "./frames.js";

/** Back-off: the delay is evenly spread over 0 … min(cap, base · 2^attempts) ("full jitter"), as docs/protocol.md has it. */
const BACKOFF_BASE_MS = 500;
const BACKOFF_CAP_MS = 30_000;
/** A connection that lived so long counts as a success; the back-off starts anew. */
const STABLE_AFTER_MS = 30_000;
/** Dialling and `connect` together may take so long. */
const CONNECT_TIMEOUT_MS = 10_000;
/** An answer that takes longer means that the connection is dead, whatever TCP believes. */
const ANSWER_TIMEOUT_MS = 20_000;
/** The same, right after the page woke up or the network changed: then doubt is cheap and waiting is not. */
const PROBE_TIMEOUT_MS = 4_000;
/** Close codes from here on mean "do not come back"; 4000–4499 and everything outside 4000–4999 mean "do". */
const CLOSE_PERMANENT_FROM = 4_500;
const CLOSE_PERMANENT_TO = 5_000;
const CLOSE_NORMAL = 1_000;

const KNOWN_KINDS: ReadonlySet<string> = new Set(KINDS);

export type RequestKind = Exclude<keyof Requests, "connect">;
/** What arrives by itself; `position` is what an answer to `ping` says of everything before it. */
export type Push =
  | { [Kind in keyof Pushes]: { kind: Kind; body: Pushes[Kind] } }[keyof Pushes]
  | { kind: "position"; body: { position?: string } };

/** Why the client stays away until it is told to come back. */
export interface Stopped {
  code: number;
  reason: string;
  text: string;
  /** Another connection of the same device lives. */
  replaced: boolean;
  /** The token is not accepted, or is over, and another one did not help. */
  unauthenticated: boolean;
  /** The device was logged out. Whoever comes back needs another token, which is asked for. */
  revoked: boolean;
  /** As many devices of the user are connected as may be. */
  tooManyDevices: boolean;
}

interface Waiting {
  resolve(body: never): void;
  reject(error: RequestError): void;
  timer: unknown;
}

export interface ConnectionOptions {
  url: string;
  environment: Environment;
  /** The body of `connect`; `renew`: the last token was refused. An error with `permanent: true` stops the connection. */
  hello(renew: boolean): Promise<Requests["connect"]>;
  onWelcome(welcome: Answers["connect"]): void;
  onPush(push: Push): void;
  onState(): void;
}

export class Connection {
  state: "idle" | "connecting" | "open" | "waiting" | "stopped" = "idle";
  stopped: Stopped | null = null;
  readonly #options: ConnectionOptions;
  readonly #environment: Environment;
  readonly #timers: Timers;
  #socket: Socket | null = null;
  #requests = new Map<number, Waiting>();
  #nextId = 1;
  #attempts = 0;
  #openedMs = 0;
  #sentMs = 0;
  #heartbeatMs = 30_000;
  /** Before this time only a person may reconnect: the server's hint. */
  #notBeforeMs = 0;
  #goodbye: Partial<Pushes["goodbye"]> | null = null;
  #tokenRefused = false;
  #renewToken = false;
  /** Counts sockets, so that a late event of an old one is recognised. */
  #generation = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#environment = options.environment;
    this.#timers = new Timers(options.environment);
  }

  start(): void {
    this.stopped = null;
    this.#attempts = 0;
    this.#notBeforeMs = 0;
    this.#tokenRefused = false;
    if (this.state === "open" || this.state === "connecting") return;
    void this.#dial();
  }

  /** Ends the connection for good (signing out). */
  stop(): void {
    this.#abandon(CLOSE_NORMAL);
    this.#setState("idle");
  }

  /** The network came back, the page became visible, or a person pressed "try now" (`insist`, hint or not). */
  wake(insist = false): void {
    if (this.state === "waiting") {
      if (insist || this.#environment.now() >= this.#notBeforeMs) void this.#dial();
    } else if (this.state === "open") {
      this.request("ping", {}, PROBE_TIMEOUT_MS).catch(() => {});
    }
  }

  /** Sends a request. Resolves with the answer's body, rejects with a RequestError. */
  request<Kind extends RequestKind>(kind: Kind, body: Requests[Kind], timeoutMs = ANSWER_TIMEOUT_MS): Promise<Answers[Kind]> {
    if (this.state !== "open") return Promise.reject(disconnected());
    return new Promise((resolve, reject) => this.#ask(kind, body, timeoutMs, resolve, reject));
  }

  /** Sends what is for the moment: nothing is answered, and it is lost where the connection is. */
  tell<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): void {
    if (this.state !== "open") return;
    this.#send({ [kind]: body });
  }

  #send(frame: object): void {
    this.#sentMs = this.#environment.now();
    this.#socket?.send(JSON.stringify(frame));
  }

  #ask<Kind extends keyof Requests>(
    kind: Kind,
    body: Requests[Kind],
    timeoutMs: number,
    resolve: (answer: Answers[Kind]) => void,
    reject: (error: RequestError) => void,
  ): void {
    const id = this.#nextId;
    this.#nextId += 1;
    const timer = this.#environment.setTimeout(() => this.#lost(), timeoutMs);
    this.#requests.set(id, { resolve, reject, timer });
    this.#send({ id, [kind]: body });
  }

  async #dial(): Promise<void> {
    this.#abandon();
    this.#setState("connecting");
    this.#generation += 1;
    const generation = this.#generation;
    const current = () => generation === this.#generation;
    this.#goodbye = null;
    this.#timers.anew("connect", CONNECT_TIMEOUT_MS, () => this.#lost());
    let hello: Requests["connect"];
    try {
      hello = await this.#options.hello(this.#renewToken);
    } catch (error) {
      // No token: whoever gives them is away too, or says no for good.
      if (!current()) return;
      const { permanent = false, message = "" } = error as { permanent?: boolean; message?: string };
      return permanent ? this.#halt(CLOSE_CODES.unauthenticated.code, "unauthenticated", message) : this.#lost();
    }
    if (!current()) return;
    this.#renewToken = false;
    let socket: Socket;
    try {
      socket = new this.#environment.WebSocket(this.#options.url, SUBPROTOCOL);
    } catch {
      return this.#lost();
    }
    this.#socket = socket;
    socket.onopen = () => {
      if (!current()) return;
      // No promise: what follows the answer may be here already, and must find the connection open.
      this.#ask(
        "connect",
        hello,
        CONNECT_TIMEOUT_MS,
        (welcome) => this.#opened(welcome),
        // Not current: the connection was lost, and somebody has seen to it.
        (error) => current() && this.#refused(error),
      );
    };
    socket.onmessage = ({ data }) => current() && this.#received(String(data));
    socket.onclose = ({ code }) => current() && this.#closed(code);
    socket.onerror = () => {};
  }

  /** `connect` was answered with an error; the close code that follows would say the same. */
  #refused(error: RequestError): void {
    if (error.temporary) {
      this.#goodbye = error.retryAfterMs === null ? {} : { reconnect_after_ms: error.retryAfterMs };
      return this.#lost();
    }
    const reason = REFUSALS[error.code];
    if (reason === undefined) return this.#halt(CLOSE_CODES.protocol_error.code, error.code, error.message);
    const { code } = CLOSE_CODES[reason];
    this.#goodbye = { code, reason };
    this.#closed(code);
  }

  #opened(welcome: Answers["connect"]): void {
    this.#timers.clear("connect");
    this.#openedMs = this.#environment.now();
    this.#notBeforeMs = 0;
    this.#tokenRefused = false;
    this.#heartbeatMs = welcome.heartbeat_interval_ms;
    this.state = "open";
    this.#options.onWelcome(welcome);
    this.#options.onState();
    this.#heartbeat();
  }

  #heartbeat(): void {
    const dueMs = Math.max(0, this.#sentMs + this.#heartbeatMs - this.#environment.now());
    this.#timers.anew("heartbeat", dueMs, () => {
      if (this.#environment.now() - this.#sentMs >= this.#heartbeatMs) this.request("ping", {}).catch(() => {});
      this.#heartbeat();
    });
  }

  #received(text: string): void {
    let frame: Record<string, unknown>;
    try {
      frame = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return this.#lost();
    }
    const kind = Object.keys(frame).find((key) => KNOWN_KINDS.has(key));
    // A kind of a later version is nobody's.
    if (kind === undefined) return;
    const { id, [kind]: body } = frame;
    // What the position of an answer says holds for everything before it: whoever asked, it has to be seen in order with the pushes.
    if (kind === "ping") this.#options.onPush({ kind: "position", body: body as Answers["ping"] });
    if (kind === "goodbye") this.#goodbye = body as Pushes["goodbye"];
    if (id === undefined) {
      this.#options.onPush({ kind, body } as Push);
      return;
    }
    const request = this.#requests.get(id as number);
    if (request === undefined) return;
    this.#requests.delete(id as number);
    this.#environment.clearTimeout(request.timer);
    if (kind === "error") request.reject(new RequestError(body as Pushes["error"]));
    else request.resolve(body as never);
  }

  #closed(socketCode: number): void {
    const code = this.#goodbye?.code ?? socketCode;
    const reason = this.#goodbye?.reason ?? "";
    // The token may be of another start of the node, or old. One new token is worth a try; two are not.
    if (isAboutToken(code) && !this.#tokenRefused) {
      this.#tokenRefused = true;
      this.#renewToken = true;
      return this.#lost();
    }
    if (code >= CLOSE_PERMANENT_FROM && code < CLOSE_PERMANENT_TO) return this.#halt(code, reason);
    this.#lost();
  }

  /** The connection is gone or given up; come back after a while. */
  #lost(): void {
    const hintMs = this.#goodbye?.reconnect_after_ms ?? null;
    const nowMs = this.#environment.now();
    if (this.state === "open" && nowMs - this.#openedMs >= STABLE_AFTER_MS) this.#attempts = 0;
    this.#abandon();
    const ceilingMs = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    // The server's hint is spread over its clients already; it replaces the first guess and is never undercut.
    const delayMs = hintMs ?? this.#environment.random() * ceilingMs;
    if (hintMs !== null) this.#notBeforeMs = nowMs + hintMs;
    this.#setState("waiting");
    this.#timers.anew("retry", delayMs, () => void this.#dial());
  }

  #halt(code: number, reason: string, text = ""): void {
    this.#abandon();
    const is = (name: keyof typeof CLOSE_CODES) => code === CLOSE_CODES[name].code;
    const why = { replaced: is("replaced"), revoked: is("revoked"), tooManyDevices: is("too_many_devices") };
    this.stopped = { code, reason, text, unauthenticated: isAboutToken(code), ...why };
    // The token that it had is of no use any more.
    if (why.revoked) this.#renewToken = true;
    this.#setState("stopped");
  }

  /** Lets go of the socket, its timers and its unanswered requests. */
  #abandon(code?: number): void {
    this.#generation += 1;
    this.#timers.clearAll();
    const socket = this.#socket;
    const requests = this.#requests;
    this.#socket = null;
    this.#requests = new Map();
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try {
        socket.close(code);
      } catch {
        // It was not open yet, or is closed already.
      }
    }
    for (const request of requests.values()) {
      this.#environment.clearTimeout(request.timer);
      request.reject(disconnected());
    }
  }

  #setState(state: Connection["state"]): void {
    this.state = state;
    this.#options.onState();
  }
}

/** Errors that `connect` may be answered with, and the closes that they mean. */
const REFUSALS: Record<string, "unauthenticated" | "token_expired" | "revoked" | "too_many_devices" | undefined> = {
  unauthenticated: "unauthenticated",
  token_expired: "token_expired",
  revoked: "revoked",
  limit_reached: "too_many_devices",
};

const isAboutToken = (code: number): boolean =>
  code === CLOSE_CODES.unauthenticated.code || code === CLOSE_CODES.token_expired.code;
