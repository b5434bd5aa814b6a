// The pool's upkeep, and the clock it is dated by.

import assert from "node:assert/strict";
import { cp } from "node:fs/promises";
import { test } from "node:test";

import { folderFor, nextEvent, openDevice, readyDevice, startServer } from "./harness.js";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const names = (store, prefix) => store.list(prefix);

test("a pool is filled when the server has few packages left, and not before", async (t) => {
  const server = await startServer(t);
  const pool = { target: 12, lowWatermark: 10, lastResort: false };
  const bob = await readyDevice(t, server, "bob", { pool });
  const alice = await readyDevice(t, server, "alice");
  assert.deepEqual((await bob.refresh()).uploaded, []);
  for (const name of ["one", "two"]) {
    assert.deepEqual((await bob.refresh()).uploaded, [], "above the low watermark");
    const { id } = await alice.createGroup(name);
    await alice.invite(id, ["bob"]);
  }
  const { uploaded, available } = await bob.refresh();
  assert.deepEqual([uploaded.length, available], [2, 12]);
  await assert.rejects(openDevice(t, server, "zoe", { pool: { target: 5 } }), { code: "invalid_argument" });
});

test("an absent device is invited by its last resort, which is replaced once it was used", async (t) => {
  const server = await startServer(t);
  const bob = await readyDevice(t, server, "bob", { pool: { target: 1, lowWatermark: 0 } });
  const inviters = await Promise.all(["ann", "ben", "cyd"].map((name) => readyDevice(t, server, name)));
  const ids = [];
  for (const inviter of inviters) {
    const { id } = await inviter.createGroup(inviter.name.slice(0, 3));
    const { invited } = await inviter.invite(id, ["bob"]);
    ids.push(id);
    // The last single-use packages are kept for contacts.
    assert.equal(invited[0].lastResort, true);
  }
  const joined = [await nextEvent(bob, "joined"), await nextEvent(bob, "joined"), await nextEvent(bob, "joined")];
  assert.deepEqual(joined.map(({ group }) => group).sort(), ids.sort());
  const { uploaded, withdrawn } = await bob.refresh();
  assert.deepEqual(withdrawn, [joined[0].reference]);
  assert.equal(uploaded.length, 1);
  // The keys of the used one stay for a day, for Welcomes on their way.
  const { available, lastResort, privateKeys } = await bob.status();
  assert.deepEqual({ available, lastResort, privateKeys }, { available: 1, lastResort: 1, privateKeys: 3 });
  await server.advance("25h");
  assert.equal((await bob.refresh()).deleted, 1);
});

test("packages whose private keys are lost are withdrawn before anybody is given them", async (t) => {
  const server = await startServer(t);
  const bob = await readyDevice(t, server, "bob");
  const lost = (await names(bob.store, "package/")).slice(0, 5);
  await bob.store.write(new Map(lost.map((name) => [name, undefined])));
  const early = await bob.refresh();
  assert.deepEqual([early.withdrawn, early.otherCopy], [[], true], "another copy may be running");
  await server.advance("61min");
  const { withdrawn, otherCopy } = await bob.refresh();
  assert.equal(otherCopy, false);
  assert.deepEqual(
    withdrawn.sort(),
    lost.map((name) => name.replace("package/", "")),
  );
  // One of them may have been the last resort, which is replaced.
  const { available, privateKeys } = await bob.status();
  assert.equal(available, privateKeys - 1);
});

test("two copies of a store that both run leave each other's packages alone, and say so", async (t) => {
  const server = await startServer(t);
  const one = await readyDevice(t, server, "bob", { pool: { target: 4, lowWatermark: 3 } });
  await one.close();
  const copy = await folderFor(t);
  await cp(one.folder, copy, { recursive: true });
  const two = await openDevice(t, server, "bob", { folder: copy, pool: { target: 8, lowWatermark: 7 } });
  assert.equal((await two.refresh()).uploaded.length, 4);
  await two.close();
  const again = await openDevice(t, server, "bob", { folder: one.folder });
  const { withdrawn, otherCopy } = await again.refresh();
  assert.deepEqual([withdrawn, otherCopy], [[], true]);
});

test("expired packages are deleted with their keys, and others take their place", async (t) => {
  const server = await startServer(t);
  const bob = await readyDevice(t, server, "bob");
  await server.advance("15days");
  // More than a day: the ledger's key has to sign it before any key is deleted by it.
  const { clock, deleted, uploaded } = await bob.refresh();
  assert.deepEqual([Math.round(clock.deviceAheadSeconds / 86400), clock.corrected], [-15, true]);
  assert.deepEqual([deleted, uploaded.length], [32, 32]);
  const { available, privateKeys } = await bob.status();
  assert.deepEqual([available, privateKeys], [32, 33]);
});

test("packages that the server refuses are named with the check, and deleted", async (t) => {
  const server = await startServer(t, "--lifetime-max", "1day");
  const bob = await openDevice(t, server, "bob", { pool: { target: 3, lowWatermark: 0, lastResort: false } });
  await bob.register();
  const { rejected, uploaded, available } = await bob.refresh();
  assert.deepEqual([uploaded, available], [[], 0]);
  assert.deepEqual(
    rejected.map(({ check }) => check),
    ["lifetime", "lifetime", "lifetime"],
  );
  assert.match(rejected[0].detail, /lifetime/);
  assert.deepEqual(await names(bob.store, "package/"), []);
});

for (const offMs of [-2 * HOUR_MS, 2 * HOUR_MS, -3 * DAY_MS, 400 * DAY_MS]) {
  test(`a device whose clock is off by ${offMs / HOUR_MS} hours goes by the server's time and says so once`, async (t) => {
    const server = await startServer(t);
    const bob = await openDevice(t, server, "bob", { now: () => Date.now() + offMs });
    await bob.register();
    const { clock } = await bob.refresh();
    assert.ok(Math.abs(clock.deviceAheadSeconds * 1000 - offMs) < 60_000 && clock.corrected);
    const second = await bob.refresh();
    assert.equal(second.clock, undefined);
    const alice = await readyDevice(t, server, "alice");
    const { id } = await alice.createGroup("friday");
    assert.equal((await alice.invite(id, ["bob"])).invited.length, 1);
    assert.equal((await nextEvent(bob, "joined")).group, id);
    // The store keeps the difference: the next start goes by it before the first request.
    await bob.close();
    const { folder } = bob;
    const again = await openDevice(t, server, "bob", { folder, now: () => Date.now() + offMs });
    assert.equal((await again.refresh()).clock, undefined);
  });
}
