// What the page takes of the package.
export * from "../dist/index.js";
export * from "../dist/browser.js";
