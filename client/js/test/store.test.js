// Stores: whole writes, locks, seals.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { SealedStore } from "keypool-client";
import { FileStore } from "keypool-client/node";

import { afterwards, end, folderFor, within } from "./harness.js";

const changes = (object) => new Map(Object.entries(object));

async function openStore(t, folder) {
  const store = await FileStore.open(folder);
  afterwards(t, () => store.close());
  return store;
}

// Opens a store in another process. Its first line says how that went.
async function openElsewhere(t, folder) {
  const child = spawn(process.execPath, [new URL("hold-store.js", import.meta.url).pathname, folder]);
  afterwards(t, () => end(child));
  const [line] = await within(
    createInterface({ input: child.stdout })
      [Symbol.asyncIterator]()
      .next()
      .then(({ value }) => [value]),
    "a store is opened",
  );
  return { child, line };
}

test("what was written is there after the store was opened again", async (t) => {
  const folder = await folderFor(t);
  const store = await openStore(t, folder);
  await store.write(changes({ "group/a": "1", "group/b": "2", "peer/A.b@c:d+e-f_g": "ä\n" }));
  await store.write(changes({ "group/a": undefined, "group/c": "3" }));
  await store.close();
  await assert.rejects(store.write(changes({ late: "1" })), { code: "store_in_use" });
  const again = await openStore(t, folder);
  assert.deepEqual(await again.list("group/"), ["group/b", "group/c"]);
  assert.equal(await again.get("group/a"), undefined);
  assert.equal(await again.get("peer/A.b@c:d+e-f_g"), "ä\n");
});

test("a write that a crash has cut short is applied whole by the next opening", async (t) => {
  const folder = await folderFor(t);
  const store = await openStore(t, folder);
  await store.write(changes({ one: "old", two: "old" }));
  await store.close();
  // As a crash leaves it behind the journal and the first value, with the second one half written.
  await writeFile(join(folder, "values", "one"), "new");
  await writeFile(join(folder, "values", "two.partial"), "n");
  await writeFile(
    join(folder, "journal"),
    JSON.stringify([
      ["one", "new"],
      ["two", "new"],
      ["three", null],
    ]),
  );
  const again = await openStore(t, folder);
  assert.deepEqual([await again.get("one"), await again.get("two")], ["new", "new"]);
  assert.deepEqual(await again.list(""), ["one", "two"]);
  assert.ok(!(await readdir(folder)).includes("journal"));
});

test("a store that could not write is refused until it is opened again, which finishes the write", async (t) => {
  const folder = await folderFor(t);
  const store = await openStore(t, folder);
  await store.write(changes({ one: "old", two: "old" }));
  // Something in the way of the second value.
  const obstacle = join(folder, "values", "two.partial");
  await mkdir(obstacle);
  const refused = { code: "store_damaged", message: /could not be written/ };
  await assert.rejects(store.write(changes({ one: "new", two: "new" })), refused);
  await assert.rejects(store.get("one"), refused);
  await assert.rejects(store.write(changes({ three: "later" })), refused);
  await store.close();
  await rmdir(obstacle);
  const again = await openStore(t, folder);
  assert.deepEqual(
    [await again.get("one"), await again.get("two"), await again.get("three")],
    ["new", "new", undefined],
  );
});

test("a second process is refused until the first has closed the store or was killed", async (t) => {
  const folder = await folderFor(t);
  const first = await openElsewhere(t, folder);
  assert.equal(first.line, "open");
  await assert.rejects(FileStore.open(folder), {
    code: "store_in_use",
    message: new RegExp(`process ${first.child.pid}`),
  });
  await end(first.child, "SIGKILL");
  const store = await openStore(t, folder);
  assert.equal((await openElsewhere(t, folder)).line, "store_in_use");
  await store.close();
  assert.equal((await openElsewhere(t, folder)).line, "open");
});

test("of many that find a dead lock one takes it", async (t) => {
  const folder = await folderFor(t);
  const dead = await openElsewhere(t, folder);
  await end(dead.child, "SIGKILL");
  const all = await Promise.all(Array.from({ length: 8 }, () => openElsewhere(t, folder)));
  assert.deepEqual(all.map(({ line }) => line).sort(), ["open", ...Array(7).fill("store_in_use")]);
});

test("works under one lock take turns, and others do not wait for them", async (t) => {
  const store = await openStore(t, await folderFor(t));
  const order = [];
  let free;
  const long = store.exclusive("state", () => new Promise((resolve) => (free = resolve)));
  const next = store.exclusive("state", async () => order.push("next"));
  const impatient = store.exclusive("state", async () => order.push("never"), AbortSignal.abort());
  await store.exclusive("sync", async () => order.push("other"));
  order.push("free");
  free();
  await Promise.all([long, next, assert.rejects(impatient)]);
  assert.deepEqual(order, ["other", "free", "next"]);
});

test("sealed values are unreadable on the disk, and bound to their name and key", async (t) => {
  const folder = await folderFor(t);
  const store = await openStore(t, folder);
  const sealed = await SealedStore.over(store, new Uint8Array(32).fill(7));
  await sealed.write(changes({ device: "a secret", other: "another" }));
  assert.equal(await sealed.get("device"), "a secret");
  const onDisk = await readFile(join(folder, "values", "device"), "utf8");
  assert.ok(!onDisk.includes("secret") && !atob(onDisk).includes("secret"));
  await store.write(changes({ other: onDisk }));
  await assert.rejects(sealed.get("other"), { code: "store_damaged" });
  const stranger = await SealedStore.over(store, new Uint8Array(32).fill(8));
  await assert.rejects(stranger.get("device"), { code: "store_damaged" });
});
