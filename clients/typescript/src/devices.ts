// The user's devices: which there are, how they are called, and logging them out. Each call waits a moment for the connection, and fails
// with a RequestError.
//
// All devices hear of a new name and of a logging out, as a change of the account's key `DEVICES_KEY`. Whether a device is connected is
// told by `list` alone.

import { LIMITS } from "./codes.js";
import type { Device } from "./frames.js";
import type { Asks } from "./groups.js";

/** The key of the account that changes with the names of devices, and when some are logged out. */
export const DEVICES_KEY = "antiphon.devices";

export class Devices {
  readonly #asks: Pick<Asks, "ask">;

  constructor(asks: Pick<Asks, "ask">) {
    this.#asks = asks;
  }

  /** Those that are connected, and those that have a name, in order of their ids. */
  async list(): Promise<Device[]> {
    return (await this.#asks.ask("devices", { list: {} })).devices ?? [];
  }

  /** Calls this device so, in at most 64 bytes; without a name it has none any more, and is listed only while it is connected. */
  async name(name = ""): Promise<void> {
    await this.#asks.ask("devices", { name });
  }

  /** Logs devices out: their connections end, and the tokens that they had are refused from now on. */
  async revoke(devices: string[]): Promise<void> {
    for (let from = 0; from < devices.length; from += LIMITS.DEVICES_MAX) {
      await this.#asks.ask("devices", { revoke: devices.slice(from, from + LIMITS.DEVICES_MAX) });
    }
  }

  /** Logs all devices out; `butThis`: all others. */
  async revokeAll({ butThis = false }: { butThis?: boolean } = {}): Promise<void> {
    await this.#asks.ask("devices", { revoke_all: butThis ? { but_this: true } : {} });
  }
}
