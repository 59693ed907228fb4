// One WebSocket after another: owns dialling, the `connect` handshake, requests and their answers, heartbeat and back-off.
//
// It knows nothing of conversations: frames that answer no request go to `onPush`. Timers, randomness and the WebSocket class
// come from `env`, so that tests drive it without a network. States:
//   idle → connecting → open → waiting → connecting …   and → stopped, from which only `start` leads out.

export const SUBPROTOCOL = "antiphon.v1.json";

/** Back-off: the delay is evenly spread over 0 … min(cap, base · 2^attempts) ("full jitter"). */
const BACKOFF_BASE_MS = 400;
const BACKOFF_CAP_MS = 12_000;
/** A connection that lived so long counts as a success; the back-off starts anew. */
const STABLE_AFTER_MS = 5_000;
/** Dialling and `connect` together may take so long. */
const CONNECT_TIMEOUT_MS = 10_000;
/** An answer that takes longer means that the connection is dead, whatever TCP believes. */
const ANSWER_TIMEOUT_MS = 20_000;
/** The same, right after the tab woke up or the network changed: then doubt is cheap and waiting is not. */
const PROBE_TIMEOUT_MS = 4_000;
/** What a server says, answers and pushes; keys of later versions stand beside them and are ignored. */
const KINDS = new Set([
  ...["connect", "ping", "create", "members", "conversations", "title", "send", "history", "read", "delivered"],
  ...["roles", "settings", "bans", "error"],
  ...["message", "receipt", "left", "too_far", "caught_up", "goodbye", "happened"],
  ...["refresh", "expiring"],
]);

/** Close codes from here on mean "do not come back"; 4000–4499 and everything outside 4000–4999 mean "do". */
const CLOSE_PERMANENT_FROM = 4500;
const CLOSE_UNAUTHENTICATED = 4500;
const CLOSE_TOKEN_EXPIRED = 4501;
const CLOSE_REPLACED = 4502;
const CLOSE_PROTOCOL_ERROR = 4503;

/** A request that failed: the server's `error` frame, or `disconnected` if the connection ended before the answer. */
export class RequestError extends Error {
  constructor({ code, text, temporary = false, retry_after_ms = null }) {
    super(text);
    this.code = code;
    this.temporary = temporary;
    this.retryAfterMs = retry_after_ms;
  }
}

const disconnected = () =>
  new RequestError({ code: "disconnected", text: "the connection ended", temporary: true });

export class Connection {
  /**
   * @param {object} options
   * @param {string} options.url
   * @param {(renewToken: boolean) => Promise<object>} options.hello   the body of `connect`
   * @param {(welcome: object) => void} options.onWelcome
   * @param {(kind: string, body: object) => void} options.onPush
   * @param {() => void} options.onState
   * @param {object} options.env   now, setTimeout, clearTimeout, random, WebSocket
   */
  constructor({ url, hello, onWelcome, onPush, onState, env }) {
    Object.assign(this, { url, hello, onWelcome, onPush, onState, env });
    this.state = "idle";
    /** When stopped: `{code, reason, text}`. */
    this.stopped = null;
    this.socket = null;
    this.requests = new Map();
    this.nextId = 1;
    this.attempts = 0;
    this.openedMs = 0;
    this.sentMs = 0;
    this.heartbeatMs = 30_000;
    /** Before this time only a person may reconnect: the server's hint. */
    this.notBeforeMs = 0;
    this.goodbye = null;
    this.tokenRefused = false;
    this.renewToken = false;
    /** Counts sockets, so that a late event of an old one is recognised. */
    this.generation = 0;
    this.timers = {};
  }

  start() {
    this.stopped = null;
    this.attempts = 0;
    this.notBeforeMs = 0;
    this.tokenRefused = false;
    if (this.state === "open" || this.state === "connecting") return;
    this.#dial();
  }

  /** Ends the connection for good (signing out). */
  stop() {
    this.#abandon(1000);
    this.#setState("idle");
  }

  /** The network came back, the tab became visible, or a person pressed "try now" (`insist`, hint or not). */
  wake(insist = false) {
    if (this.state === "waiting") {
      if (insist || this.env.now() >= this.notBeforeMs) this.#dial();
    } else if (this.state === "open") {
      this.request("ping", {}, PROBE_TIMEOUT_MS).catch(() => {});
    }
  }

  /** Sends a request. Resolves with the answer's body, rejects with a RequestError. */
  request(kind, body, timeoutMs = ANSWER_TIMEOUT_MS) {
    if (this.state !== "open") return Promise.reject(disconnected());
    return this.#ask(kind, body, timeoutMs);
  }

  /** Sends what is for the moment: nothing is answered, and it is lost where the connection is. */
  tell(kind, body) {
    if (this.state !== "open") return;
    this.sentMs = this.env.now();
    this.socket.send(JSON.stringify({ [kind]: body }));
  }

  #ask(kind, body, timeoutMs) {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const timer = this.env.setTimeout(() => this.#lost(), timeoutMs);
      this.requests.set(id, { kind, resolve, reject, timer });
      this.sentMs = this.env.now();
      this.socket.send(JSON.stringify({ id, [kind]: body }));
    });
  }

  async #dial() {
    this.#abandon();
    this.#setState("connecting");
    const generation = ++this.generation;
    const current = () => generation === this.generation;
    this.goodbye = null;
    this.#timer("connect", CONNECT_TIMEOUT_MS, () => this.#lost());
    let hello;
    try {
      hello = await this.hello(this.renewToken);
    } catch (error) {
      // No token: the node that signs them is away too, or says no for good.
      if (!current()) return;
      return error.permanent ? this.#halt(CLOSE_UNAUTHENTICATED, "unauthenticated", error.message) : this.#lost();
    }
    if (!current()) return;
    this.renewToken = false;
    let socket;
    try {
      socket = new this.env.WebSocket(this.url, SUBPROTOCOL);
    } catch {
      return this.#lost();
    }
    this.socket = socket;
    socket.onopen = async () => {
      if (!current()) return;
      try {
        const welcome = await this.#ask("connect", hello, CONNECT_TIMEOUT_MS);
        if (current()) this.#opened(welcome);
      } catch (error) {
        // Not current: the connection was lost, and somebody has seen to it.
        if (current()) this.#refused(error);
      }
    };
    socket.onmessage = (event) => current() && this.#received(event.data);
    socket.onclose = (event) => current() && this.#closed(event.code);
    socket.onerror = () => {};
  }

  /** `connect` was answered with an error; the close code that follows would say the same. */
  #refused(error) {
    if (error.temporary) {
      this.goodbye = { reconnect_after_ms: error.retryAfterMs ?? undefined };
      return this.#lost();
    }
    const code = { unauthenticated: CLOSE_UNAUTHENTICATED, token_expired: CLOSE_TOKEN_EXPIRED }[error.code];
    if (code) this.#closed(code);
    else this.#halt(CLOSE_PROTOCOL_ERROR, error.code, error.message);
  }

  #opened(welcome) {
    this.#clear("connect");
    this.openedMs = this.env.now();
    this.notBeforeMs = 0;
    this.tokenRefused = false;
    this.heartbeatMs = welcome.heartbeat_interval_ms ?? 30_000;
    this.#setState("open", () => this.onWelcome(welcome));
    this.#heartbeat();
  }

  #heartbeat() {
    const dueMs = Math.max(0, this.sentMs + this.heartbeatMs - this.env.now());
    this.#timer("heartbeat", dueMs, () => {
      if (this.env.now() - this.sentMs >= this.heartbeatMs) {
        this.request("ping", {}).catch(() => {});
      }
      this.#heartbeat();
    });
  }

  #received(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this.#lost();
    }
    const { id } = frame;
    const kind = Object.keys(frame).find((key) => KINDS.has(key));
    if (kind === undefined) return;
    const body = frame[kind];
    // A pong's position holds for everything before it: whoever asked, the session must see it in order with the pushes.
    if (kind === "ping") this.onPush("position", { position: body.position });
    if (kind === "goodbye") this.goodbye = body;
    const request = this.requests.get(id);
    if (request === undefined) {
      if (id === undefined) this.onPush(kind, body);
      return;
    }
    this.requests.delete(id);
    this.env.clearTimeout(request.timer);
    if (kind === "error") request.reject(new RequestError(body));
    else request.resolve(body);
  }

  #closed(socketCode) {
    const code = this.goodbye?.code ?? socketCode;
    const reason = this.goodbye?.reason ?? "";
    if (code === CLOSE_UNAUTHENTICATED || code === CLOSE_TOKEN_EXPIRED) {
      // The token may be of another start of the node, or old. One new token is worth a try; two are not.
      if (!this.tokenRefused) {
        this.tokenRefused = true;
        this.renewToken = true;
        return this.#lost();
      }
    }
    if (code >= CLOSE_PERMANENT_FROM && code < 5000) return this.#halt(code, reason);
    return this.#lost();
  }

  /** The connection is gone or given up; come back after a while. */
  #lost() {
    const hintMs = this.goodbye?.reconnect_after_ms ?? null;
    const lived = this.state === "open" && this.env.now() - this.openedMs >= STABLE_AFTER_MS;
    if (lived) this.attempts = 0;
    this.#abandon();
    const ceilingMs = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.attempts);
    this.attempts += 1;
    // The server's hint is spread over its clients already; it replaces the first guess and is never undercut.
    const delayMs = hintMs ?? this.env.random() * ceilingMs;
    if (hintMs !== null) this.notBeforeMs = this.env.now() + hintMs;
    this.#setState("waiting");
    this.#timer("retry", delayMs, () => this.#dial());
  }

  #halt(code, reason, text = "") {
    this.#abandon();
    this.stopped = { code, reason, text, replaced: code === CLOSE_REPLACED };
    this.#setState("stopped");
  }

  /** Lets go of the socket, its timers and its unanswered requests. */
  #abandon(code) {
    this.generation += 1;
    for (const name of Object.keys(this.timers)) this.#clear(name);
    const { socket, requests } = this;
    this.socket = null;
    this.requests = new Map();
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try {
        socket.close(code);
      } catch {
        // It was not open yet, or is closed already.
      }
    }
    for (const request of requests.values()) {
      this.env.clearTimeout(request.timer);
      request.reject(disconnected());
    }
  }

  #setState(state, between = () => {}) {
    this.state = state;
    between();
    this.onState();
  }

  #timer(name, delayMs, action) {
    this.#clear(name);
    this.timers[name] = this.env.setTimeout(() => {
      delete this.timers[name];
      action();
    }, delayMs);
  }

  #clear(name) {
    if (name in this.timers) this.env.clearTimeout(this.timers[name]);
    delete this.timers[name];
  }
}
