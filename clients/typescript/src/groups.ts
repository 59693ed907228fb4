// What is done with groups and their members. Each waits a moment for the connection, and fails with a RequestError.

import type { RequestKind } from "./connection.js";
import type { Answers, Invite, Requests, Role, Settings } from "./frames.js";

/** What the calls need of the client. */
export interface Asks {
  /** A request, once there is a connection. */
  ask<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): Promise<Answers[Kind]>;
  /** An entry of this sequence is on its way. */
  expect(id: string, sequence: number): void;
  /** One has become a member. */
  joined(id: string, epoch: number, sequence: number): Promise<void>;
  readonly user: string;
}

export class Groups {
  readonly #asks: Asks;

  constructor(asks: Asks) {
    this.#asks = asks;
  }

  add(id: string, users: string[]): Promise<void> {
    return this.#change(id, "members", { conversation: id, add: users });
  }

  async remove(id: string, users: string[]): Promise<void> {
    const { sequence } = await this.#asks.ask("members", { conversation: id, remove: users });
    // Who leaves hears nothing more of it.
    if (!users.includes(this.#asks.user)) this.#asks.expect(id, sequence ?? 0);
  }

  leave(id: string): Promise<void> {
    return this.remove(id, [this.#asks.user]);
  }

  rename(id: string, title: string): Promise<void> {
    return this.#change(id, "title", { conversation: id, title });
  }

  setRoles(id: string, roles: { user: string; role: Role }[]): Promise<void> {
    return this.#change(id, "roles", { conversation: id, set: roles });
  }

  /** The group's settings as they are. */
  async settings(id: string): Promise<Settings> {
    return (await this.#asks.ask("settings", { conversation: id })).settings;
  }

  /** Changes those that are named. */
  changeSettings(id: string, settings: Partial<Settings>): Promise<void> {
    return this.#change(id, "settings", { conversation: id, set: settings });
  }

  /** Keeps users out, members among them are removed. */
  ban(id: string, users: string[]): Promise<void> {
    return this.#change(id, "bans", { conversation: id, add: users });
  }

  unban(id: string, users: string[]): Promise<void> {
    return this.#change(id, "bans", { conversation: id, remove: users });
  }

  /** A page of those who are kept out, in order of ids; `next` is the `after` of the one behind it. */
  async bans(id: string, page: { after?: string; limit?: number } = {}): Promise<{ users: string[]; next?: string }> {
    const { users = [], next } = await this.#asks.ask("bans", { conversation: id, list: page });
    return next === undefined ? { users } : { users, next };
  }

  /** Makes an invite. The code is told this once. */
  async invite(id: string, invite: { expires_in_s?: number; uses?: number } = {}): Promise<{ code: string; invite: number }> {
    const { code, sequence } = await this.#asks.ask("invites", { conversation: id, make: invite });
    if (code === undefined || sequence === undefined) throw new Error("the answer to `make` has a code");
    this.#asks.expect(id, sequence);
    return { code, invite: sequence };
  }

  /** The first page of the invites that are not over. */
  async invites(id: string, page: { after?: number; limit?: number } = {}): Promise<Invite[]> {
    return (await this.#asks.ask("invites", { conversation: id, list: page })).invites ?? [];
  }

  revoke(id: string, invites: number[]): Promise<void> {
    return this.#change(id, "invites", { conversation: id, revoke: invites });
  }

  /** What an invite is to. */
  look(code: string): Promise<Answers["join"]> {
    return this.#asks.ask("join", { code, look: true });
  }

  /** Becomes a member by an invite. Resolves with the conversation. */
  async join(code: string): Promise<string> {
    const { conversation, epoch, sequence = 0 } = await this.#asks.ask("join", { code });
    await this.#asks.joined(conversation, epoch, sequence);
    return conversation;
  }

  async #change<Kind extends "members" | "title" | "roles" | "settings" | "bans" | "invites">(
    id: string,
    kind: Kind,
    body: Requests[Kind],
  ): Promise<void> {
    const { sequence } = (await this.#asks.ask(kind, body)) as { sequence?: number };
    this.#asks.expect(id, sequence ?? 0);
  }
}
