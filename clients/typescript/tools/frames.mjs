// Makes src/frames.ts of docs/asyncapi.yaml: a type for each of its schemas, with every description as a comment.
//
//     node tools/frames.mjs          writes the file
//     node tools/frames.mjs --check  fails if the file is another
//
// Types say which fields there are, and leave limits of length and "exactly one of" to the descriptions. They have no index signatures:
// fields that a type does not name are ignored. A schema in a form that is not foreseen here is an error.

import { readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";
import { parse } from "yaml";

const SOURCE = new URL("../../../docs/asyncapi.yaml", import.meta.url);
const TARGET = new URL("../src/frames.ts", import.meta.url);
const HEADER = `// Made of docs/asyncapi.yaml by \`node tools/frames.mjs\`, which also has \`--check\`. Change the document, not this file.\n`;
const COMMENT_COLUMNS = 110;

/** Keywords that say no more than which values of a type are allowed. */
const NARROWING = ["minimum", "maximum", "minLength", "maxLength", "pattern", "format", "contentEncoding", "minItems", "maxItems"];
/** Keywords that say which fields may stand together. */
const COMBINING = ["anyOf", "oneOf", "not", "dependencies"];

const schemas = parse(readFileSync(SOURCE, "utf8")).components.schemas;

/** The schema's own keywords without those that a type does not say; what is left over is to be known. */
function pick(schema, known, path) {
  const own = Object.fromEntries(Object.entries(schema).filter(([key]) => !NARROWING.includes(key)));
  const odd = Object.keys(own).filter((key) => !known.includes(key));
  if (odd.length > 0) throw new Error(`${path}: no type is made of ${odd.join(", ")}`);
  return own;
}

function nameOf({ $ref }, path) {
  const name = $ref?.replace("#/components/schemas/", "");
  if (!Object.hasOwn(schemas, name ?? "")) throw new Error(`${path}: ${$ref} is no schema`);
  return name;
}

/** A description in lines that fit. */
function comment(schema, path) {
  if (!schema.description) throw new Error(`${path} has no description`);
  const wrap = (line) => {
    const indent = line.startsWith("- ") ? "  " : "";
    const words = line.split(" ");
    const lines = [words.shift()];
    for (const word of words) {
      const longer = `${lines.at(-1)} ${word}`;
      if (longer.length <= COMMENT_COLUMNS) lines[lines.length - 1] = longer;
      else lines.push(indent + word);
    }
    return lines.join("\n");
  };
  // What was broken to fit the document is one line of a paragraph.
  const paragraphs = schema.description.replace(/([^\n])\n(?!\n|- )/g, "$1 ");
  return paragraphs.split("\n").map(wrap).join("\n");
}

/** The value of a field or of a list: what has a name is called by it. */
function value(schema, path) {
  if (schema.$ref) return { tsType: nameOf(schema, path) };
  if (schema.allOf) {
    const { allOf } = pick(schema, ["description", "allOf"], path);
    if (allOf.length !== 1) throw new Error(`${path} is to be of one type`);
    return { tsType: nameOf(allOf[0], path) };
  }
  const { type, items, const: only, enum: some } = pick(schema, ["description", "type", "items", "const", "enum"], path);
  if (only !== undefined) return { const: only };
  if (some !== undefined) return { enum: some };
  if (type === "array") return { type, items: value(items, `${path}[]`) };
  if (["string", "integer", "boolean"].includes(type)) return { type };
  if (type === undefined) return { tsType: "unknown" };
  throw new Error(`${path}: give the ${type} a name of its own`);
}

function field([name, schema], path) {
  return [name, { description: comment(schema, `${path}.${name}`), ...value(schema, `${path}.${name}`) }];
}

/** A schema with a name. */
function named([name, schema]) {
  const description = comment(schema, name);
  const reference = (one) => ({ $ref: `#/definitions/${nameOf(one, name)}` });
  if (schema.type === "object") {
    const own = pick(schema, ["description", "type", "required", "properties", "allOf", ...COMBINING], name);
    const properties = Object.fromEntries(Object.entries(own.properties ?? {}).map((one) => field(one, name)));
    const fields = { type: "object", properties, required: own.required ?? [] };
    return [name, { description, ...fields, ...(own.allOf && { extends: own.allOf.map(reference) }) }];
  }
  if (schema.oneOf) return [name, { description, oneOf: pick(schema, ["description", "oneOf"], name).oneOf.map(reference) }];
  return [name, { description, ...value(schema, name) }];
}

/** What the library is given is a schema that has all others inside; of its own text nothing is kept. */
async function render() {
  const definitions = Object.fromEntries(Object.entries(schemas).map(named));
  const root = { type: "object", properties: {}, definitions };
  const text = await compile(root, "Root", {
    additionalProperties: false,
    bannerComment: "",
    format: true,
    style: { printWidth: 140 },
    unreachableDefinitions: true,
  });
  const types = text
    .replace("export interface Root {}\n", "")
    .replace(/\n \*\n \* This interface was referenced by `Root`'s JSON-Schema\n \* via the `definition` "\w+"\./g, "")
    // One line is enough for what fits in one.
    .replace(/\/\*\*\n +\* (.*)\n +\*\//g, "/** $1 */")
    .replace(/\n(?=\/\*\*)/g, "\n\n")
    .replace(/\n{3,}/g, "\n\n");
  return `${HEADER}\n${types.trim()}\n`;
}

const text = await render();
for (const odd of ["[k: string]", "`Root`"]) {
  if (text.includes(odd)) throw new Error(`the types have ${odd} in them`);
}
for (const name of Object.keys(schemas)) {
  if (!new RegExp(`^export (type|interface) ${name}\\b`, "m").test(text)) throw new Error(`${name} has no type`);
}
if (!process.argv.includes("--check")) {
  writeFileSync(TARGET, text);
} else if (readFileSync(TARGET, "utf8") !== text) {
  console.error("src/frames.ts is not what docs/asyncapi.yaml says; `node tools/frames.mjs` writes it");
  process.exit(1);
}
