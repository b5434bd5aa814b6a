// Other ciphersuites than the first, and what a group requires of its members.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventsOf, nextEvent, openDevice, readyDevice, startServer } from "./harness.js";

const APP_EXTENSION = 0xf0a1;
const APP_PROPOSAL = 0xf0a2;

for (const ciphersuite of [2, 3]) {
  test(`two devices of ciphersuite ${ciphersuite} alone are in one group and talk, also after a restart`, async (t) => {
    const server = await startServer(t);
    const options = { ciphersuites: [ciphersuite] };
    const alice = await readyDevice(t, server, "alice", options);
    const bob = await readyDevice(t, server, "bob", options);
    const { id } = await alice.createGroup("friday");
    assert.equal((await alice.invite(id, ["bob"])).invited.length, 1);
    await alice.send(id, "hello");
    await bob.close();
    const again = await openDevice(t, server, "bob", { folder: bob.folder, ...options });
    const seen = [];
    assert.equal((await nextEvent(again, "message", seen)).sender.trust, "known");
    assert.equal(seen[0].inviter.trust, "known");
    await again.send(id, "hi");
    assert.deepEqual((await nextEvent(alice, "message")).sender, { name: "bob/main", trust: "known" });
    const { available, ciphersuites } = await again.status();
    assert.deepEqual([available, ciphersuites], [31, [{ ciphersuite, available: 31 }]]);
  });
}

test("a device keeps packages of several ciphersuites, and is in groups of each", async (t) => {
  const server = await startServer(t);
  const options = { ciphersuites: [1, 2, 3] };
  const alice = await readyDevice(t, server, "alice", options);
  const bob = await openDevice(t, server, "bob", options);
  await bob.register();
  const { uploaded, created, available } = await bob.refresh();
  // As many of each as fit into 64, and one of last resort.
  assert.deepEqual([uploaded.length, created, available], [66, 63, 63]);
  for (const ciphersuite of [1, 2, 3]) {
    const { id } = await alice.createGroup("friday", { ciphersuite });
    await alice.invite(id, ["bob"]);
    assert.equal((await nextEvent(bob, "joined")).group, id);
    await bob.send(id, `in ${ciphersuite}`);
    assert.equal((await nextEvent(alice, "message")).text, `in ${ciphersuite}`);
  }
  assert.deepEqual((await bob.refresh()).uploaded, [], "above each low watermark");
  await assert.rejects(alice.createGroup("friday", { ciphersuite: 4 }), { code: "invalid_argument" });
});

test("a device without packages of the group's ciphersuite is named, and not added", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice", { ciphersuites: [3] });
  await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  const missing = [{ name: "bob/main", code: "nothing_compatible" }];
  assert.deepEqual(await alice.invite(id, ["bob"]), { group: id, invited: [], missing });
});

test("ciphersuites that no device can use are refused when it is opened", async (t) => {
  const server = await startServer(t);
  for (const ciphersuites of [[], [4], [78], [1, 1], ["1", 1]]) {
    await assert.rejects(openDevice(t, server, "bob", { ciphersuites }), { code: "invalid_argument" });
  }
  const tooMany = { ciphersuites: [1, 2, 3], pool: { target: 32 } };
  await assert.rejects(openDevice(t, server, "bob", tooMany), { code: "invalid_argument" });
});

test("a device that lacks what the group requires is not handed out, and one that has it joins", async (t) => {
  const server = await startServer(t);
  const capabilities = { extensions: [APP_EXTENSION], proposals: [APP_PROPOSAL] };
  const alice = await readyDevice(t, server, "alice", { capabilities });
  const bob = await readyDevice(t, server, "bob");
  const carol = await readyDevice(t, server, "carol", { capabilities });
  const dave = await readyDevice(t, server, "dave", { capabilities: { extensions: [APP_EXTENSION] } });
  const { id } = await alice.createGroup("friday", { required: capabilities });
  const { invited, missing } = await alice.invite(id, ["bob", "carol", "dave"]);
  assert.deepEqual(
    invited.map(({ device }) => device),
    ["carol/main"],
  );
  assert.deepEqual(missing, [
    { name: "bob/main", code: "requirement_unmet", reason: `extension ${APP_EXTENSION}` },
    { name: "dave/main", code: "requirement_unmet", reason: `proposal ${APP_PROPOSAL}` },
  ]);
  for (const device of [bob, dave]) {
    assert.equal((await device.status()).available, 32);
  }
  // A member that has joined requires the same.
  await nextEvent(carol, "joined");
  assert.equal((await carol.invite(id, ["bob"])).missing[0].code, "requirement_unmet");
  await carol.send(id, "here I am");
  assert.equal((await nextEvent(alice, "message")).text, "here I am");
  assert.deepEqual(await eventsOf(bob), []);
});

test("a group requires nothing that its maker does not handle, and no numbers of default types", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice", { capabilities: { extensions: [APP_EXTENSION] } });
  for (const required of [{ extensions: [0xf0a3] }, { proposals: [APP_PROPOSAL] }, { extensions: [3] }]) {
    await assert.rejects(alice.createGroup("friday", { required }), { code: "invalid_argument" });
  }
  assert.deepEqual(await alice.groups(), []);
  await assert.rejects(openDevice(t, server, "bob", { capabilities: { extensions: [70_000] } }), {
    code: "invalid_argument",
  });
});

test("a group has the id that the app names, and never takes the place of another", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const id = Buffer.from("ours").toString("base64url");
  assert.deepEqual(await alice.createGroup("anything", { id }), { id, name: "ours", epoch: 0, active: true });
  await alice.invite(id, ["bob"]);
  await assert.rejects(alice.createGroup("again", { id }), { code: "invalid_argument" });
  await assert.rejects(bob.createGroup("again", { id: "ä" }), { code: "invalid_argument" });
  await assert.rejects(bob.createGroup("again", { id }), { code: "group_exists" });
  assert.equal((await nextEvent(bob, "joined")).group, id);
  await bob.send(id, "hello");
  assert.equal((await nextEvent(alice, "message")).text, "hello");
});
