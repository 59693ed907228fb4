// Builds the client into one file for the page that the node serves: `node tools/page.mjs` writes it, `--check` exits 1 if it differs.
// The node is built without Node, so the file is committed.

import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const path = new URL("../../../gateway/page/antiphon-client.js", import.meta.url);
const entry = new URL("page.entry.mjs", import.meta.url);

const { outputFiles } = await build({
  entryPoints: [entry.pathname],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  write: false,
  legalComments: "none",
  banner: { js: "// Built of clients/typescript by `npm run build` there; change it there." },
});
const [{ text }] = outputFiles;

if (!process.argv.includes("--check")) {
  writeFileSync(path, text);
} else if (readFileSync(path, "utf8") !== text) {
  console.error("gateway/page/antiphon-client.js is not what clients/typescript builds into; run `npm run build` there");
  process.exit(1);
}
