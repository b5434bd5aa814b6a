// Another key for a device: its packages, its groups, and the users who know the key before.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Device, SealedStore } from "keypool-client";
import { FileStore } from "keypool-client/node";

import { ownLeafNode, stateOf } from "../dist/mls.js";
import { afterwards, eventsOf, folderFor, nextEvent, readyDevice, startServer } from "./harness.js";

// A group of Alice and Bob, who has joined and replaced the keys of his package.
async function talking(t, server, options) {
  const alice = await readyDevice(t, server, "alice", options);
  const bob = await readyDevice(t, server, "bob", options);
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  await nextEvent(bob, "joined");
  await eventsOf(alice);
  return { alice, bob, id };
}

// The signature key of a device's own leaf in its only group.
async function leafKeyOf(device) {
  const [name] = await device.store.list("group/");
  const { state } = JSON.parse(await device.store.get(name));
  return Buffer.from(ownLeafNode(stateOf(state)).signaturePublicKey).toString("base64url");
}

for (const ciphersuites of [[1], [2]]) {
  test(`a device of ciphersuite ${ciphersuites} takes another key, and its groups know it by that one alone`, async (t) => {
    const server = await startServer(t);
    const { alice, bob, id } = await talking(t, server, { ciphersuites });
    const [before, leafBefore] = [bob.key, await leafKeyOf(bob)];
    const key = await bob.rotateKey();
    assert.notEqual(key, before);
    assert.equal(bob.key, key);
    assert.equal(await leafKeyOf(bob), leafBefore, "the group has not heard of it");
    await bob.sync(() => {});
    assert.notEqual(await leafKeyOf(bob), leafBefore);
    if (ciphersuites[0] === 1) {
      assert.equal(await leafKeyOf(bob), key);
    }
    await bob.send(id, "still me");
    const seen = [];
    const { text, sender } = await nextEvent(alice, "message", seen);
    assert.deepEqual([text, sender], ["still me", { name: "bob/main", trust: "known" }]);
    assert.deepEqual(seen.find(({ kind }) => kind === "changed").by, { name: "bob/main", trust: "known" });
    await alice.send(id, "hello again");
    assert.equal((await nextEvent(bob, "message")).text, "hello again");
    // The next Commit is signed by the new key alone.
    await bob.updateKeys(id);
    assert.equal((await nextEvent(alice, "changed")).by.trust, "known");
    assert.equal(await alice.safetyNumber("bob"), await bob.safetyNumber("alice"));
  });
}

test("packages of the next key take the place of all others, and others are invited by them at once", async (t) => {
  const server = await startServer(t);
  const bob = await readyDevice(t, server, "bob");
  const before = new Set(await bob.store.list("package/"));
  await bob.rotateKey();
  const { available, lastResort } = await bob.status();
  assert.deepEqual([available, lastResort], [32, 0]);
  const alice = await readyDevice(t, server, "alice");
  const { id } = await alice.createGroup("friday");
  const { invited } = await alice.invite(id, ["bob"]);
  assert.equal(before.has(`package/${invited[0].reference}`), false);
  assert.equal((await nextEvent(bob, "joined")).reference, invited[0].reference);
  const { created, withdrawn } = await bob.refresh();
  assert.deepEqual([created, withdrawn, (await bob.status()).lastResort], [0, [], 1]);
});

test("a Welcome for a package of the key before is opened after the rotation", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  await bob.rotateKey();
  assert.equal((await nextEvent(bob, "joined")).group, id);
  await bob.send(id, "hello");
  assert.deepEqual((await nextEvent(alice, "message")).sender, { name: "bob/main", trust: "known" });
  assert.equal(await leafKeyOf(bob), bob.key);
});

test("a key that the server never lets follow is dropped, and the device goes on with its own", async (t) => {
  const server = await startServer(t);
  let isAway = true;
  const halting = (url, init) =>
    isAway && url.endsWith("/keypackages/rotate") ? Promise.reject(new TypeError("no line")) : fetch(url, init);
  const bob = await readyDevice(t, server, "bob", { fetch: halting });
  const names = await bob.store.list("");
  await assert.rejects(bob.rotateKey(), { code: "unanswered" });
  // Somebody else has the next key by now.
  const { secret } = JSON.parse(await bob.store.get("rotation"));
  const store = await FileStore.open(await folderFor(t));
  afterwards(t, () => store.close());
  const carol = { user: "carol", device: "main", server: server.address };
  await store.write(new Map([["device", JSON.stringify({ ...carol, secret })]]));
  await (await Device.open({ store, ...carol })).register();
  isAway = false;
  await assert.rejects(bob.refresh(), { code: "identity_bound" });
  assert.deepEqual(await bob.store.list(""), names);
  assert.equal((await bob.refresh()).available, 32);
});

test("a device that takes another key in one tab speaks with it in the others", async (t) => {
  const server = await startServer(t);
  const store = await FileStore.open(await folderFor(t));
  afterwards(t, () => store.close());
  const shared = await SealedStore.over(store, new Uint8Array(32));
  const open = () => Device.open({ store: shared, server: server.address, user: "bob" });
  const [one, other] = [await open(), await open()];
  await one.register();
  await one.rotateKey();
  assert.equal((await other.refresh()).otherCopy, false);
  assert.equal(other.key, one.key);
});
