// docs/asyncapi.yaml is valid, and says of the protocol's JSON form neither more nor less than the golden vectors and docs/protocol.md.
//
// Schemas allow fields that they do not name, as the protocol does. Here they are made strict, so that a field which a schema forgot fails.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import specs from "@asyncapi/specs";
import Ajv from "ajv";
import addFormats from "ajv-formats";
import { parse } from "yaml";

const root = new URL("../../../", import.meta.url);
const read = (path) => readFileSync(new URL(path, root), "utf8");

const api = parse(read("docs/asyncapi.yaml"));
const protocol = read("docs/protocol.md");
const { messages, schemas } = api.components;
const WRAPPERS = { Requests: "Request", Answers: "Answer", Pushes: "Push" };

/** Fields that no vector and no example has, each with the reason. */
const UNSEEN_FIELDS = {};

// What there is to be judged.

/** A frame and the names of what it is to fit. */
function judged(name, frame, of) {
  const kinds = Object.keys(frame).filter((key) => key !== "id");
  assert.equal(kinds.length, 1, name);
  const [kind] = kinds;
  const wrapper = of === "request" ? "Requests" : kind in schemas.Answers.properties ? "Answers" : "Pushes";
  return { name, frame, kind, wrapper, message: bodyName(wrapper, kind) };
}

const GOLDEN = "wire/tests/golden/v1/";
const vectors = readdirSync(new URL(GOLDEN, root))
  .filter((name) => name.endsWith(".json"))
  .map((name) => judged(name, JSON.parse(read(GOLDEN + name)), name.split("-")[0]));

const examples = [...protocol.matchAll(/^```json (request|server)\n([^]*?)\n```$/gm)].map(([, of, text]) => judged(text, JSON.parse(text), of));

const documented = Object.entries(messages).flatMap(([name, message]) => {
  assert.ok(message.examples.length > 0, `${name} has no example`);
  return message.examples.map(({ payload }) => ({ name: `the example of ${name}`, frame: payload, message: name }));
});

/** The name of a body by the rule that all names follow. */
function bodyName(wrapper, kind) {
  const pascal = kind.replace(/(?:^|_)([a-z])/g, (_, letter) => letter.toUpperCase());
  return kind === "error" ? "ErrorFrame" : pascal + WRAPPERS[wrapper];
}

// Schemas.

function nameOf($ref) {
  const [, name] = $ref.match(/^#\/components\/schemas\/(\w+)$/);
  assert.ok(Object.hasOwn(schemas, name), $ref);
  return name;
}

/** The schema and those that it is made of, each with the name of where its fields are written down. */
function parts(schema, name) {
  if (schema.$ref) return parts(schemas[nameOf(schema.$ref)], nameOf(schema.$ref));
  return [{ name, schema }, ...(schema.allOf ?? []).flatMap((part) => parts(part, name))];
}

/** The fields of a schema and of those that it is made of, with the names of these. */
function fieldsOf(schema, name) {
  const all = parts(schema, name).flatMap(({ name, schema }) => Object.entries(schema.properties ?? {}).map(([key, of]) => [key, { name, of }]));
  const fields = new Map(all);
  assert.equal(fields.size, all.length, `${name} has a field twice`);
  return fields;
}

/** A schema to which only fields that it names are allowed. */
function strict(schema, name) {
  if (Array.isArray(schema)) return schema.map((one) => strict(one, name));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.type !== "object") {
    const inner = ["items", "oneOf", "allOf"].filter((key) => key in schema);
    return { ...schema, ...Object.fromEntries(inner.map((key) => [key, strict(schema[key], name)])) };
  }
  const all = parts(schema, name).map((part) => part.schema);
  const conditions = all.map(({ oneOf, anyOf, not, dependencies }) => omitUndefined({ oneOf, anyOf, not, dependencies }));
  const fields = [...fieldsOf(schema, name)].map(([key, { of }]) => [key, strict(of, `${name}.${key}`)]);
  return {
    type: "object",
    required: all.flatMap(({ required }) => required ?? []),
    properties: Object.fromEntries(fields),
    additionalProperties: false,
    allOf: conditions,
  };
}

function omitUndefined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

function omit(object, key) {
  return Object.fromEntries(Object.entries(object).filter(([other]) => other !== key));
}

/** What judges frames by the document's own schemas, or by strict ones. */
function judge(change) {
  const ajv = new Ajv({ allErrors: true, strict: true, strictRequired: false, strictTypes: false });
  addFormats(ajv);
  ajv.addVocabulary(["components"]);
  const components = {
    schemas: Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, change(schema, name)])),
    messages: Object.fromEntries(Object.entries(messages).map(([name, { payload }]) => [name, change(payload, name)])),
  };
  ajv.addSchema({ $id: "antiphon:api", components });
  const validate = (kind, name, value) => {
    const check = ajv.getSchema(`antiphon:api#/components/${kind}/${name}`);
    return check(value) ? "" : ajv.errorsText(check.errors);
  };
  return {
    /** What is wrong with a frame: nothing if it is empty. */
    frame: ({ message, frame }) => validate("messages", message, frame),
    /** What is wrong with a value of a schema. */
    value: (name, value) => validate("schemas", name, value),
  };
}

const asItIs = judge((schema) => schema);
const strictly = judge(strict);

// The document.

test("the document is valid AsyncAPI", () => {
  const ajv = new Ajv({ allErrors: true, strict: false });
  addFormats(ajv);
  const check = ajv.compile(specs.schemasWithoutId["3.0.0"]);
  assert.ok(check(api), ajv.errorsText(check.errors));
  assert.ok(!check({ ...api, channels: { socket: { adress: "/ws" } } }), "it is checked");
});

test("every reference leads somewhere, and every schema is used", () => {
  const used = new Set(Object.keys(WRAPPERS));
  const follow = (value) => {
    if (value === null || typeof value !== "object") return;
    if (typeof value.$ref === "string") {
      const found = value.$ref.replace("#/", "").split("/").reduce((at, key) => at?.[key], api);
      assert.ok(found, value.$ref);
      if (value.$ref.startsWith("#/components/schemas/")) used.add(nameOf(value.$ref));
    }
    Object.values(value).forEach(follow);
  };
  follow(api);
  assert.deepEqual([...used].sort(), Object.keys(schemas).sort());
});

test("there is one channel, and each kind has its operation and its messages", () => {
  const refs = (list) => list.map(({ $ref }) => $ref);
  const channel = { $ref: "#/channels/socket" };
  const message = (name) => ({ $ref: `#/channels/socket/messages/${name}` });
  assert.deepEqual(Object.keys(api.channels), ["socket"]);
  assert.equal(api.channels.socket.address, "/ws");
  const asks = Object.keys(schemas.Requests.properties);
  assert.deepEqual(Object.keys(schemas.Answers.properties), asks);
  const pushes = Object.keys(schemas.Pushes.properties);
  assert.deepEqual(Object.keys(api.operations), [...asks, ...pushes]);
  for (const kind of asks) {
    const { action, reply, ...operation } = api.operations[kind];
    assert.deepEqual([action, operation.channel, reply.channel], ["receive", channel, channel]);
    assert.deepEqual(operation.messages, [message(bodyName("Requests", kind))]);
    assert.deepEqual(refs(reply.messages), refs([message(bodyName("Answers", kind)), message("ErrorFrame")]));
  }
  for (const kind of pushes) {
    const { action, channel: where, messages: what } = api.operations[kind];
    assert.deepEqual([action, where, what], ["send", channel, [message(bodyName("Pushes", kind))]]);
  }
  const names = Object.keys(WRAPPERS).flatMap((wrapper) => Object.keys(schemas[wrapper].properties).map((kind) => bodyName(wrapper, kind)));
  assert.deepEqual(Object.keys(messages), names);
  assert.deepEqual(Object.keys(api.channels.socket.messages), names);
});

test("each message is a frame of its kind, and each wrapper has all bodies", () => {
  for (const wrapper of Object.keys(WRAPPERS)) {
    const { properties, required } = schemas[wrapper];
    assert.deepEqual(required, Object.keys(properties));
    for (const [kind, { allOf }] of Object.entries(properties)) {
      const body = { $ref: `#/components/schemas/${bodyName(wrapper, kind)}` };
      const { payload } = messages[bodyName(wrapper, kind)];
      const id = wrapper === "Pushes" && kind !== "error" ? {} : { id: { $ref: "#/components/schemas/RequestId" } };
      assert.deepEqual(allOf, [body]);
      assert.deepEqual(payload.properties, { ...id, [kind]: body });
      assert.deepEqual(payload.required, wrapper === "Answers" ? ["id", kind] : [kind]);
    }
  }
});

test("everything is described", () => {
  const check = (schema, path) => {
    assert.ok(schema.$ref || schema.description?.length > 3, `${path} has no description`);
    for (const [key, of] of Object.entries(schema.properties ?? {})) check(of, `${path}.${key}`);
  };
  Object.entries(schemas).forEach(([name, schema]) => check(schema, name));
  for (const [name, { summary }] of Object.entries(messages)) assert.match(summary, /\.$/, name);
});

/** The rows of a table of docs/protocol.md, each a list of cells. */
function rows(section) {
  const [, after] = protocol.split(`\n## ${section}\n`);
  const table = after.split("\n## ")[0].split("\n").filter((line) => line.startsWith("| "));
  return table.slice(1).map((line) => line.replaceAll(/^\||\|$/g, "").split("|").map((cell) => cell.trim()));
}

test("codes are described as in docs/protocol.md", () => {
  const errors = rows("Error codes");
  assert.deepEqual(schemas.ErrorCode.enum, errors.map(([, code]) => code.replaceAll("`", "")));
  const listed = (text) => text.split("\n").filter((line) => line.startsWith("- "));
  assert.deepEqual(listed(schemas.ErrorCode.description), errors.map(([, code, what]) => `- ${code}: ${what}`));
  // A link of one document leads nowhere in the other.
  const plain = (text) => text.replaceAll(/\[([^\]]+)\]\([^)]+\)/g, "$1");
  const closes = rows("Close codes").map(([number, reason, what]) => `- ${number} ${reason}: ${plain(what)}`);
  assert.deepEqual(listed(schemas.GoodbyePush.properties.code.description), closes);
});

test("limits are those of docs/protocol.md", () => {
  const limits = Object.fromEntries(rows("Limits").map(([name, value]) => [name.replaceAll("`", ""), Number(value)]));
  const at = (path) => path.split("/").reduce((schema, key) => schema[key], schemas);
  for (const [path, limit] of [
    ["UserId/maxLength", limits.NAME_BYTES_MAX],
    ["DeviceId/maxLength", limits.NAME_BYTES_MAX],
    ["Token/maxLength", limits.TOKEN_BYTES_MAX],
    ["EventName/maxLength", limits.EVENT_NAME_BYTES_MAX],
    ["Content/properties/content_type/maxLength", limits.CONTENT_TYPE_BYTES_MAX],
    ["Content/properties/data/maxLength", Math.ceil(limits.DATA_BYTES_MAX / 3) * 4],
    ["Content/properties/mentions/maxItems", limits.MENTIONS_PER_MESSAGE_MAX],
    ["Resume/properties/known/maxItems", limits.RESUME_KNOWN_MAX],
    ["NewGroup/properties/members/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["MembersRequest/properties/add/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["MembersRequest/properties/remove/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["RolesRequest/properties/set/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["BansRequest/properties/add/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["BansRequest/properties/remove/maxItems", limits.MEMBERS_PER_REQUEST_MAX],
    ["InvitesRequest/properties/revoke/maxItems", limits.INVITES_PER_GROUP_MAX],
    ["InviteChange/properties/revoked/maxItems", limits.INVITES_PER_GROUP_MAX],
    ["DevicesRequest/properties/revoke/maxItems", limits.DEVICES_MAX],
    ["NewInvite/properties/expires_in_s/maximum", limits.INVITE_EXPIRES_IN_S_MAX],
  ]) {
    assert.equal(at(path), limit, path);
  }
  for (const [path, limit] of [
    ["Content/properties/text", limits.TEXT_BYTES_MAX],
    ["Content/properties/json", limits.DATA_BYTES_MAX],
    ["Content/properties/data", limits.DATA_BYTES_MAX],
    ["Reaction", limits.REACTION_BYTES_MAX],
    ["ReactRequest", limits.REACTIONS_PER_MESSAGE_MAX],
    ["PinRequest", limits.PINS_PER_CONVERSATION_MAX],
    ["EventRequest/properties/data", limits.EVENT_DATA_BYTES_MAX],
    ["Title", limits.TITLE_BYTES_MAX],
    ["Description", limits.DESCRIPTION_BYTES_MAX],
    ["Picture", limits.PICTURE_BYTES_MAX],
    ["DeviceName", limits.DEVICE_NAME_BYTES_MAX],
    ["DevicesRequest/properties/revoke", limits.DEVICES_REVOKED_MAX],
    ["ClientInfo/properties/name", limits.CLIENT_NAME_BYTES_MAX],
    ["PageLimit", limits.PAGE_ITEMS_MAX],
    ["PageLimit", limits.PAGE_ITEMS_DEFAULT],
  ]) {
    assert.match(at(path).description, new RegExp(`\\b${limit}\\b`), path);
  }
});

// Frames.

test("every golden vector is what its schema says", () => {
  assert.ok(vectors.length >= 100, `${vectors.length} vectors were found`);
  for (const vector of vectors) assert.equal(strictly.frame(vector), "", vector.name);
});

test("every example is what its schema says", () => {
  assert.ok(examples.length >= 60, `${examples.length} examples were found`);
  for (const example of [...examples, ...documented]) assert.equal(strictly.frame(example), "", example.name);
});

test("every field is in a vector or an example", () => {
  const seen = new Set();
  const walk = (schema, name, value) => {
    if (schema.$ref) return walk(schemas[nameOf(schema.$ref)], nameOf(schema.$ref), value);
    const choices = parts(schema, name).flatMap(({ schema }) => schema.oneOf ?? []);
    const choice = choices.find(({ $ref }) => $ref && !strictly.value(nameOf($ref), value));
    if (choice) return walk(choice, name, value);
    if (Array.isArray(value)) {
      for (const item of value) if (schema.items) walk(schema.items, `${name}[]`, item);
      return;
    }
    if (value === null || typeof value !== "object") return;
    const fields = fieldsOf(schema, name);
    for (const [key, inner] of Object.entries(value)) {
      const field = fields.get(key);
      if (!field) continue; // Inside a value that is the application's own.
      seen.add(`${field.name}.${key}`);
      walk(field.of, `${field.name}.${key}`, inner);
    }
  };
  for (const { frame, kind, wrapper, message } of [...vectors, ...examples]) {
    walk(messages[message].payload, message, frame);
    seen.add(`${wrapper}.${kind}`);
  }
  const all = Object.entries(schemas).flatMap(([name, { properties = {} }]) => Object.keys(properties).map((key) => `${name}.${key}`));
  const unseen = all.filter((field) => !seen.has(field));
  assert.deepEqual(unseen.sort(), Object.keys(UNSEEN_FIELDS).sort());
});

// Negative controls.

/** Every object and every other value inside a frame, but for values that are the application's own. */
function* places(value, path = []) {
  yield { value, path };
  if (value === null || typeof value !== "object" || isOwn(path)) return;
  for (const [key, inner] of Object.entries(value)) yield* places(inner, [...path, key]);
}

/** The frame with another value at a place; with `undefined` the field is not there. */
function changed(frame, [key, ...path], value) {
  if (key === undefined) return value;
  const inner = changed(frame[key], path, value);
  if (inner === undefined) return omit(frame, key);
  return Array.isArray(frame) ? frame.with(key, inner) : { ...frame, [key]: inner };
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isOwn = (path) => ["json", "data", "value"].includes(path.at(-1));

test("a field that is not known fails in the strict form alone", () => {
  let count = 0;
  for (const vector of vectors) {
    for (const { value, path } of places(vector.frame)) {
      if (!isObject(value) || isOwn(path)) continue;
      const more = { ...vector, frame: changed(vector.frame, path, { ...value, later: 1 }) };
      assert.notEqual(strictly.frame(more), "", `${vector.name} at ${path}`);
      assert.equal(asItIs.frame(more), "", `${vector.name} at ${path}`);
      count += 1;
    }
  }
  assert.ok(count > vectors.length, `${count} places`);
});

test("a value of another type fails", () => {
  for (const vector of vectors) {
    for (const { value, path } of places(vector.frame)) {
      // Base64 is text, JSON anything.
      const isText = typeof value === "string" && path.at(-1) !== "value";
      if (path.length === 0 || (isOwn(path) && !isText)) continue;
      const wrong = isObject(value) ? [1] : { wrong: 1 };
      const frame = { ...vector, frame: changed(vector.frame, path, wrong) };
      assert.notEqual(asItIs.frame(frame), "", `${vector.name} at ${path}`);
    }
  }
});

test("a required field that is missing fails", () => {
  let count = 0;
  for (const vector of vectors) {
    const { kind, message } = vector;
    const required = parts(schemas[message], message).flatMap(({ schema }) => schema.required ?? []);
    for (const key of required) {
      const frame = { ...vector, frame: changed(vector.frame, [kind, key], undefined) };
      assert.notEqual(asItIs.frame(frame), "", `${vector.name} without ${key}`);
      count += 1;
    }
    const without = { ...vector, frame: omit(vector.frame, kind) };
    assert.notEqual(asItIs.frame(without), "", `${vector.name} without ${kind}`);
  }
  assert.ok(count > vectors.length, `${count} fields`);
});

test("fields that exclude each other fail together", () => {
  const conversation = "62b9f96c-c27c-897b-9241-8e0c10f381d5";
  const message = { conversation, client_message_id: conversation };
  const data = { data: "AA==", content_type: "image/webp" };
  const entry = { conversation, epoch: 1, sequence: 1, ordinal: 0, time_ms: 1, sender: "alice" };
  const check = (name, value, isGood) => assert.equal(asItIs.value(name, value) === "", isGood, `${name} ${JSON.stringify(value)}`);
  for (const [name, base, good, bad] of [
    ["CreateRequest", {}, [{ direct: "bob" }], [{}, { direct: "bob", group: { key: conversation } }]],
    ["MembersRequest", { conversation }, [{ add: ["bob"] }, { list: {} }], [
      {},
      { add: [] },
      { add: ["bob"], remove: ["bob"] },
      { add: ["bob"], list: {} },
    ]],
    ["RolesRequest", { conversation }, [{ list: {} }], [{}, { set: [] }, { set: [{ user: "bob", role: "admin" }], list: {} }]],
    ["BansRequest", { conversation }, [{ list: {} }], [{}, { add: ["bob"], list: {} }]],
    ["InvitesRequest", { conversation }, [{ make: {} }], [{}, { make: {}, list: {} }, { revoke: [0] }, { make: { uses: 0 } }]],
    ["HistoryRequest", { conversation }, [{}, { before: 1 }, { after: 0 }], [
      { before: 1, after: 1 },
      { after: 1, around: 1 },
      { before: 1, around: 1 },
    ]],
    ["SendRequest", message, [{ text: "a" }, { json: 1 }, { text: "a", ...data }, { forwarded: { conversation, sequence: 1 } }], [
      {},
      { text: "" },
      { reply_to: 1 },
      { data: "AA==" },
      { ...data, data: "A" },
      { ...data, json: 1 },
      { text: "a", content_type: "image/webp" },
      { json: 1, content_type: "webp" },
    ]],
    ["EditRequest", { ...message, target: 1 }, [{ text: "a" }, data], [{}, { mentions: ["bob"] }, { text: "a", target: 0 }]],
    ["InviteChange", {}, [{ revoked: [1] }], [{}, { revoked: [1], made: { hash: "2qSqjmsNeR8U3AFRN-2JFd2YaeE1EISXY4DQCnRYyvg" } }]],
    ["BansEntry", { ...entry, kind: "bans" }, [{ banned: ["bob"], removed: [] }, { unbanned: ["bob"] }], [
      {},
      { banned: ["bob"] },
      { unbanned: ["bob"], removed: [] },
      { banned: ["bob"], removed: [], unbanned: ["bob"] },
    ]],
    ["Entry", entry, [{ kind: "title", title: "" }], [{}, { kind: "dance" }, { kind: "title" }]],
    ["MembersAnswer", {}, [{ sequence: 1 }, { members: [] }], [{}, { sequence: 1, members: [] }]],
    ["DevicesRequest", {}, [{ list: {} }, { name: "" }, { revoke_all: {} }], [{}, { revoke: [] }, { list: {}, name: "Phone" }]],
    ["DevicesAnswer", {}, [{ sequence: 0 }, { devices: [] }], [{}, { sequence: 1, devices: [] }]],
  ]) {
    for (const one of good) check(name, { ...base, ...one }, true);
    for (const one of bad) check(name, { ...base, ...one }, false);
  }
});

test("ids have the alphabet of docs/protocol.md, and numbers are exact", () => {
  for (const name of ["UserId", "DeviceId"]) {
    for (let code = 0; code < 256; code += 1) {
      const letter = String.fromCharCode(code);
      const isGood = code > 32 && code < 127 && !"\"'\\/,<>".includes(letter);
      assert.equal(asItIs.value(name, letter) === "", isGood, `${name} ${JSON.stringify(letter)}`);
    }
    for (const [length, isGood] of [[0, false], [64, true], [65, false]]) {
      assert.equal(asItIs.value(name, "a".repeat(length)) === "", isGood, `${name} of ${length}`);
    }
  }
  for (const [name, value, isGood] of [
    ["Sequence", Number.MAX_SAFE_INTEGER, true],
    ["Sequence", Number.MAX_SAFE_INTEGER + 1, false],
    ["Sequence", 0, false],
    ["Sequence", 1.5, false],
    ["SequenceOrZero", 0, true],
    ["RequestId", 0, false],
    ["RequestId", 4294967295, true],
    ["RequestId", 4294967296, false],
    ["ConversationId", "62b9f96cc27c897b92418e0c10f381d5", false],
    ["InviteCode", "x".repeat(42), false],
  ]) {
    assert.equal(asItIs.value(name, value) === "", isGood, `${name} ${value}`);
  }
});

test("src/frames.ts is what the document says", () => {
  execFileSync(process.execPath, [fileURLToPath(new URL("../tools/frames.mjs", import.meta.url)), "--check"], { stdio: "inherit" });
});
