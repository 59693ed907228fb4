// Messages that are written but not acknowledged: owns their order, their retries and their persistence.
//
// One message per conversation is under way at a time, so that a retry can never overtake or be overtaken. A message keeps
// its client_message_id through every retry, across reloads too: whether the server stored it before is the server's to know.

import { RequestError } from "./connection.js";

/** Wait before the retry of a temporary failure that came without a hint. */
const RETRY_MS = 1_000;

export class Outbox {
  /**
   * @param {object} options
   * @param {{load: () => object[], save: (items: object[]) => void}} options.storage
   * @param {(item: object) => Promise<object>} options.send   one request, to its acknowledgement
   * @param {(item: object, ack: object) => void} options.onAck
   * @param {() => void} options.onChange
   */
  constructor({ storage, send, onAck, onChange, env }) {
    Object.assign(this, { storage, send, onAck, onChange, env });
    /**
     * `{conversation, client_message_id, text, reply_to?, thread?, created_ms, failed?: {code, text}, acked?: sequence}` in the order
     * of writing.
     * An acknowledged one stays until its place in the conversation is reached, so that it never blinks; after a reload it is
     * simply sent again, and found to be stored.
     */
    this.items = storage.load().map(({ acked, ...item }) => item);
    this.busy = new Set();
    this.timers = new Set();
    this.open = false;
  }

  /** How many messages the server has not taken yet, and will be asked to. */
  get waiting() {
    return this.items.filter((item) => !item.failed && !item.acked).length;
  }

  of(conversation) {
    return this.items.filter((item) => item.conversation === conversation);
  }

  /** `references`: `{reply_to, thread}` of a reply. */
  add(conversation, text, references = {}) {
    const item = { conversation, client_message_id: this.env.uuid(), text, ...references, created_ms: this.env.now() };
    this.items.push(item);
    this.#changed();
    this.#pump(conversation);
    return item;
  }

  retry(clientMessageId) {
    const item = this.items.find((one) => one.client_message_id === clientMessageId);
    if (!item?.failed) return;
    // After a conflict the old id stands for another body for ever.
    if (item.failed.code === "conflict") item.client_message_id = this.env.uuid();
    delete item.failed;
    this.items = this.items.filter((one) => one !== item).concat(item);
    this.#changed();
    this.#pump(item.conversation);
  }

  discard(clientMessageId) {
    this.#remove(clientMessageId);
    this.#changed();
  }

  /** The server pushed the message before (or instead of) its acknowledgement: it is stored. */
  settle(clientMessageId) {
    if (this.#remove(clientMessageId)) this.#changed();
  }

  /** The conversation is in order up to `tail` (Infinity: it is gone): acknowledged messages up to there stand in it. */
  settleUpTo(conversation, tail) {
    const before = this.items.length;
    this.items = this.items.filter((item) => item.conversation !== conversation || !(item.acked <= tail));
    if (this.items.length < before) this.#changed();
  }

  /** The session can send. */
  opened() {
    this.open = true;
    for (const conversation of new Set(this.items.map((item) => item.conversation))) this.#pump(conversation);
  }

  closed() {
    this.open = false;
    for (const timer of this.timers) this.env.clearTimeout(timer);
    this.timers.clear();
    this.busy.clear();
  }

  async #pump(conversation) {
    if (!this.open || this.busy.has(conversation)) return;
    const item = this.items.find((one) => one.conversation === conversation && !one.failed && !one.acked);
    if (!item) return;
    this.busy.add(conversation);
    try {
      const ack = await this.send(item);
      item.acked = ack.sequence;
      this.onAck(item, ack);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      // The connection ended: `closed` has cleared `busy`, and `opened` starts again from the first one.
      if (error.code === "disconnected") return;
      if (error.temporary) return this.#later(conversation, error.retryAfterMs ?? RETRY_MS);
      item.failed = { code: error.code, text: error.message };
    }
    this.busy.delete(conversation);
    this.#changed();
    this.#pump(conversation);
  }

  #later(conversation, delayMs) {
    const timer = this.env.setTimeout(() => {
      this.timers.delete(timer);
      this.busy.delete(conversation);
      this.#pump(conversation);
    }, delayMs);
    this.timers.add(timer);
  }

  #remove(clientMessageId) {
    const before = this.items.length;
    this.items = this.items.filter((item) => item.client_message_id !== clientMessageId);
    return this.items.length < before;
  }

  #changed() {
    this.storage.save(this.items);
    this.onChange();
  }
}
