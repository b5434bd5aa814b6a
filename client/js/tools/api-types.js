// The types of src/api.ts, from the API document of a running server: `node tools/api-types.js ADDRESS` writes them.

import { writeFile } from "node:fs/promises";

import openapiTS, { astToString } from "openapi-typescript";

export const FILE = new URL("../src/api.ts", import.meta.url);
const HEAD = "// Generated from the server's API document by `npm run types`. Not to be edited.\n\n";
const METHODS = ["get", "post", "put", "delete"];

// The text of the file for a document.
export async function typesOf(document) {
  for (const path of Object.values(document.paths)) {
    for (const method of METHODS) {
      // The names of operations are not used, and need not be unique then.
      delete path[method]?.operationId;
    }
  }
  return HEAD + astToString(await openapiTS(document));
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const document = await fetch(`${process.argv[2]}/openapi.json`);
  await writeFile(FILE, await typesOf(await document.json()));
}
