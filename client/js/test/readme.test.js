// The program of the README runs as an app runs it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { DEADLINE_MS, folderFor, startServer } from "./harness.js";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

test("the README's program has 40 lines at most, and two devices talk in it", async (t) => {
  const server = await startServer(t);
  const [, program] = /```js\n([^]*?)```/.exec(await readFile(join(PACKAGE, "README.md"), "utf8"));
  assert.ok(
    program
      .trim()
      .split("\n")
      .filter((line) => line.trim() !== "").length <= 40,
  );
  const folder = await folderFor(t);
  await mkdir(join(folder, "node_modules"));
  await symlink(PACKAGE, join(folder, "node_modules/keypool-client"));
  await writeFile(join(folder, "program.mjs"), program);
  const options = { cwd: folder, timeout: DEADLINE_MS, env: { ...process.env, TMPDIR: folder } };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ["program.mjs", server.address], options);
  assert.equal(stderr, "");
  assert.match(stdout, /alice\/main: 33 packages/);
  assert.match(stdout, /missing \[ \{ name: 'zoe', code: 'unknown_user' \} \]/);
  assert.match(stdout, /alice\/main has brought Bob in\nalice\/main \(known\): pizza\?/);
  assert.match(stdout, /answer joined/);
  assert.match(stdout, /message at eight/);
  assert.match(stdout, /in person: (\d{5} ){11}\d{5}/);
  const again = await promisify(execFile)(process.execPath, ["program.mjs", server.address], options);
  assert.equal(again.stderr, "");
  assert.match(again.stdout, /alice\/main has brought Bob in\nalice\/main \(known\): pizza\?/);
  assert.match(again.stdout, /message at eight/);
});
