// What the client takes from outside: time, chance and sockets. Tests give it others.

/** As much of a WebSocket as the client uses; a browser's, Node's (from 22 on) and that of the package `ws` are such. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  onerror: (() => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

export interface Environment {
  /** Milliseconds since 1970. */
  now(): number;
  setTimeout(action: () => void, delayMs: number): unknown;
  clearTimeout(timer: unknown): void;
  /** From 0 up to 1. */
  random(): number;
  /** Fills with bytes that nobody can guess and that come once. */
  fillRandom(bytes: Uint8Array<ArrayBuffer>): void;
  WebSocket: new (url: string, protocol: string) => Socket;
}

/** This machine's. `WebSocket` is absent in Node before version 22: give that of the package `ws` there. */
export function environment(given: Partial<Environment> = {}): Environment {
  const WebSocket = given.WebSocket ?? (globalThis.WebSocket as unknown as Environment["WebSocket"] | undefined);
  if (WebSocket === undefined) throw new Error("there is no WebSocket here: give one, such as that of the package ws");
  return {
    now: () => Date.now(),
    setTimeout: (action, delayMs) => setTimeout(action, delayMs),
    clearTimeout: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
    random: () => Math.random(),
    fillRandom: (bytes) => void crypto.getRandomValues(bytes),
    ...given,
    WebSocket,
  };
}

/** Timers by name: one that runs already is left alone. */
export class Timers {
  readonly #environment: Environment;
  readonly #timers = new Map<string, unknown>();

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  later(name: string, delayMs: number, action: () => void): void {
    if (this.#timers.has(name)) return;
    const timer = this.#environment.setTimeout(() => {
      this.#timers.delete(name);
      action();
    }, delayMs);
    this.#timers.set(name, timer);
  }

  /** Instead of what was planned under that name. */
  anew(name: string, delayMs: number, action: () => void): void {
    this.clear(name);
    this.later(name, delayMs, action);
  }

  clear(name: string): void {
    const timer = this.#timers.get(name);
    if (timer !== undefined) this.#environment.clearTimeout(timer);
    this.#timers.delete(name);
  }

  clearAll(): void {
    for (const name of [...this.#timers.keys()]) this.clear(name);
  }
}
