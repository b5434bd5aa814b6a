// Crashes and lost answers: real kills, and a line that breaks. Each request takes effect once.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp } from "node:fs/promises";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { FileStore } from "keypool-client/node";

import {
  afterwards,
  end,
  eventsOf,
  folderFor,
  nextEvent,
  openDevice,
  readyDevice,
  startProxy,
  startServer,
  within,
} from "./harness.js";

// Has a device do some steps in a process of its own, and kills it where it halts.
async function killedAt(t, server, { folder, user, ...play }) {
  const script = new URL("actor.js", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, JSON.stringify({ folder, user, address: server.address, ...play })]);
  child.stderr.pipe(process.stderr);
  afterwards(t, () => end(child));
  const said = [];
  await within(
    (async () => {
      for await (const line of createInterface({ input: child.stdout })) {
        said.push(line);
        if (line === "halted") {
          return;
        }
      }
      throw new Error(`it ended: ${said}`);
    })(),
    `${user} halts at ${play.haltAt}`,
  );
  await end(child, "SIGKILL");
  return said;
}

async function storedNames(folder, prefix) {
  const store = await FileStore.open(folder);
  const names = await store.list(prefix);
  await store.close();
  return names;
}

for (const haltBehind of [false, true]) {
  const where = haltBehind ? "behind" : "before";
  test(`a device that is killed ${where} an upload has the keys of what it uploads, and doubles nothing`, async (t) => {
    const server = await startServer(t);
    const folder = await folderFor(t);
    const steps = [["register"], ["refresh"]];
    await killedAt(t, server, { folder, user: "bob", steps, haltAt: "/keypackages/upload", haltBehind });
    const stored = (await storedNames(folder, "package/")).map((name) => name.replace("package/", ""));
    assert.equal(stored.length, 33);
    const bob = await openDevice(t, server, "bob", { folder });
    const { uploaded, withdrawn } = await bob.refresh();
    assert.deepEqual([uploaded.sort(), withdrawn], [haltBehind ? [] : stored, []]);
    const { available, privateKeys, lastResort } = await bob.status();
    assert.deepEqual({ available, privateKeys, lastResort }, { available: 32, privateKeys: 33, lastResort: 1 });
  });
}

test("a device that is killed between a Welcome and its acknowledgement joins once", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  await bob.close();
  const { id } = await alice.createGroup("friday");
  const { invited } = await alice.invite(id, ["bob"]);
  await alice.send(id, "hello");
  const play = { folder: bob.folder, user: "bob", steps: [["sync"]], haltAt: "/mailbox/acknowledge" };
  await killedAt(t, server, play);
  // The group is there, and the private keys are gone, in the same write.
  const used = `package/${invited[0].reference}`;
  assert.deepEqual(
    [(await storedNames(bob.folder, "group/")).length, (await storedNames(bob.folder, used)).length],
    [1, 0],
  );
  const again = await openDevice(t, server, "bob", { folder: bob.folder });
  assert.deepEqual(
    (await eventsOf(again)).map(({ kind }) => kind),
    ["joined", "message"],
  );
  assert.deepEqual(await eventsOf(again), []);
  assert.equal((await nextEvent(alice, "answer")).outcome, "joined");
  await again.send(id, "hi");
  assert.equal((await nextEvent(alice, "message")).text, "hi");
});

test("an event comes again, with the same id, until its handler has returned", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  const seen = [];
  const failing = bob.sync((event) => {
    seen.push(event.id);
    throw new Error("the app cannot show it");
  });
  await assert.rejects(failing, /cannot show/);
  const [again] = await eventsOf(bob);
  assert.deepEqual([again.id, again.kind], [seen[0], "joined"]);
});

for (const [haltAt, haltBehind] of [
  ["/reserve-many", true],
  ["/commits", false],
  ["/commits", true],
]) {
  const where = haltBehind ? "behind" : "before";
  test(`an invitation that is killed ${where} ${haltAt} is finished later, by one package`, async (t) => {
    const server = await startServer(t);
    const alice = await readyDevice(t, server, "alice");
    const bob = await readyDevice(t, server, "bob");
    const { id } = await alice.createGroup("friday");
    await alice.close();
    const steps = [["invite", id, ["bob"]]];
    await killedAt(t, server, { folder: alice.folder, user: "alice", steps, haltAt, haltBehind });
    const again = await openDevice(t, server, "alice", { folder: alice.folder });
    const { invited } = await nextEvent(again, "invited");
    assert.deepEqual(
      invited.map(({ device }) => device),
      ["bob/main"],
    );
    await again.send(id, "hello");
    assert.equal((await nextEvent(bob, "joined")).reference, invited[0].reference);
    assert.equal((await nextEvent(bob, "message")).text, "hello");
    const { available, reserved, spent } = await bob.status();
    assert.deepEqual({ available, reserved, spent }, { available: 31, reserved: 0, spent: 1 });
  });
}

test("an invitation whose reservation has lapsed since the crash reserves anew", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.close();
  const play = { folder: alice.folder, user: "alice", steps: [["invite", id, ["bob"]]] };
  await killedAt(t, server, { ...play, haltAt: "/reserve-many", haltBehind: true });
  await server.advance("10min");
  const again = await openDevice(t, server, "alice", { folder: alice.folder });
  const { invited, missing } = await nextEvent(again, "invited");
  assert.deepEqual([invited.length, missing], [1, []]);
  assert.equal((await nextEvent(bob, "joined")).reference, invited[0].reference);
});

for (const haltBehind of [false, true]) {
  const where = haltBehind ? "behind" : "before";
  test(`a device that is killed ${where} the request for its next key has one key later, and its groups go on`, async (t) => {
    const server = await startServer(t);
    const alice = await readyDevice(t, server, "alice");
    const bob = await readyDevice(t, server, "bob");
    const { id } = await alice.createGroup("friday");
    await alice.invite(id, ["bob"]);
    await nextEvent(bob, "joined");
    await bob.close();
    const play = { folder: bob.folder, user: "bob", steps: [["rotateKey"]], haltAt: "/keypackages/rotate", haltBehind };
    await killedAt(t, server, play);
    const again = await openDevice(t, server, "bob", { folder: bob.folder });
    const { uploaded } = await again.refresh();
    assert.notEqual(again.key, bob.key);
    const { devices } = await alice.peer("bob");
    assert.deepEqual(
      devices.map(({ key, trusted }) => [key, trusted]),
      [[again.key, true]],
    );
    // The packages of the next key came with it, but for the last resort.
    assert.equal(uploaded.length, 1);
    assert.equal((await again.status()).available, 32);
    await eventsOf(again);
    await again.send(id, "still me");
    assert.equal((await nextEvent(alice, "message")).text, "still me");
  });
}

for (const haltBehind of [false, true]) {
  test(`a message whose sender is killed ${haltBehind ? "behind" : "before"} the post arrives once`, async (t) => {
    const server = await startServer(t);
    const alice = await readyDevice(t, server, "alice");
    const bob = await readyDevice(t, server, "bob");
    const { id } = await alice.createGroup("friday");
    await alice.invite(id, ["bob"]);
    await alice.close();
    const play = { folder: alice.folder, user: "alice", steps: [["send", id, "one"]], haltAt: "/messages", haltBehind };
    await killedAt(t, server, play);
    const again = await openDevice(t, server, "alice", { folder: alice.folder });
    await again.send(id, "two");
    const events = await eventsOf(bob);
    // A second copy of the same message could not be opened, and would show as such.
    assert.deepEqual(
      events.map(({ kind, text }) => text ?? kind),
      ["joined", "one", "two"],
    );
  });
}

test("when the first answer to every request is lost, the same request comes again and nothing is doubled", async (t) => {
  const requests = new Map();
  const server = await startProxy(t, ({ key, path, body }) => {
    if (key === undefined) {
      return undefined;
    }
    const before = requests.get(key) ?? [];
    requests.set(key, [...before, JSON.stringify([path, body])]);
    return before.length === 0 ? null : undefined;
  });
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  assert.equal((await alice.invite(id, ["bob"])).invited.length, 1);
  await alice.send(id, "hello");
  const kinds = (await eventsOf(bob)).map(({ kind }) => kind);
  assert.deepEqual(kinds, ["joined", "message"]);
  await bob.send(id, "hi");
  assert.equal((await nextEvent(alice, "message")).text, "hi");
  const { available, reserved, spent, lastResort } = await bob.status();
  assert.deepEqual({ available, reserved, spent, lastResort }, { available: 31, reserved: 0, spent: 1, lastResort: 1 });
  const all = [...requests.values()];
  assert.ok(all.length > 10 && all.every((same) => same.length === 2 && same[0] === same[1]));
});

test("a message that is sent while the server is away waits, and is sent in order later", async (t) => {
  let isAway = false;
  const server = await startProxy(t, () => (isAway ? null : undefined));
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  isAway = true;
  assert.deepEqual(await alice.send(id, "one"), { queued: true, notKept: [] });
  assert.deepEqual(await alice.send(id, "two"), { queued: true, notKept: [] });
  isAway = false;
  await alice.send(id, "three");
  assert.equal((await alice.status()).queued, 0);
  const texts = (await eventsOf(bob)).filter(({ kind }) => kind === "message").map(({ text }) => text);
  assert.deepEqual(texts, ["one", "two", "three"]);
});

test("a store that is an older copy of itself seals nothing more in its groups", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  await alice.close();
  const copy = await folderFor(t);
  await cp(alice.folder, copy, { recursive: true });
  const later = await openDevice(t, server, "alice", { folder: alice.folder });
  await later.send(id, "sealed with the next key");
  await later.close();
  const older = await openDevice(t, server, "alice", { folder: copy });
  await assert.rejects(older.send(id, "sealed with the same key"), { code: "store_set_back" });
  assert.deepEqual(
    (await eventsOf(older)).map(({ kind }) => kind),
    ["setBack"],
  );
  const texts = (await eventsOf(bob)).filter(({ kind }) => kind === "message").map(({ text }) => text);
  assert.deepEqual(texts, ["sealed with the next key"]);
});
