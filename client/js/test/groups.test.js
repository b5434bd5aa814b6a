// Groups of several members, several devices of one user, and whose keys are whose.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Device, SealedStore } from "keypool-client";
import { FileStore } from "keypool-client/node";

import { afterwards, eventsOf, folderFor, nextEvent, openDevice, readyDevice, startServer } from "./harness.js";

const kinds = (events) => events.map(({ kind }) => kind);

// A group that Alice has made with others, who have all joined and read everything.
async function groupOf(server, t, ...others) {
  const alice = await readyDevice(t, server, "alice");
  const { id } = await alice.createGroup("friday");
  const devices = [];
  for (const name of others) {
    devices.push(await readyDevice(t, server, name));
    await alice.invite(id, [name]);
    await nextEvent(devices.at(-1), "joined");
    for (const device of [alice, ...devices]) {
      await eventsOf(device);
    }
  }
  return [id, alice, ...devices];
}

test("an invitation is made again after another member's Commit was faster", async (t) => {
  const server = await startServer(t);
  const [id, alice, bob] = await groupOf(server, t, "bob");
  const carol = await readyDevice(t, server, "carol");
  await bob.updateKeys(id);
  const { invited } = await alice.invite(id, ["carol"]);
  assert.deepEqual(
    invited.map(({ device }) => device),
    ["carol/main"],
  );
  assert.equal((await nextEvent(carol, "joined")).group, id);
  await carol.send(id, "here I am");
  assert.deepEqual(
    [(await nextEvent(alice, "message")).text, (await nextEvent(bob, "message")).text],
    Array(2).fill("here I am"),
  );
  // Nothing is left reserved.
  const { reserved, spent } = await carol.status();
  assert.deepEqual([reserved, spent], [0, 1]);
  assert.deepEqual(
    (await alice.invite(id, ["carol", "bob"])).missing.map(({ code }) => code),
    Array(2).fill("already_member"),
  );
});

test("a member is removed, is told, and comes back by another invitation", async (t) => {
  const server = await startServer(t);
  const [id, alice, bob, carol] = await groupOf(server, t, "bob", "carol");
  await alice.remove(id, ["bob"]);
  assert.deepEqual((await nextEvent(bob, "removed")).by.name, "alice/main");
  await assert.rejects(bob.send(id, "hello?"), { code: "unknown_here" });
  assert.deepEqual((await nextEvent(carol, "changed")).removed, ["bob/main"]);
  await assert.rejects(alice.remove(id, ["bob"]), { code: "invalid_argument" });
  await alice.invite(id, ["bob"]);
  assert.equal((await nextEvent(bob, "joined")).group, id);
  await bob.send(id, "back again");
  assert.equal((await nextEvent(carol, "message")).text, "back again");
});

test("who leaves is removed by the next member that sends something", async (t) => {
  const server = await startServer(t);
  const [id, alice, bob, carol] = await groupOf(server, t, "bob", "carol");
  await bob.leave(id);
  assert.deepEqual(
    (await bob.groups()).map(({ active }) => active),
    [false],
  );
  assert.equal((await nextEvent(alice, "proposed")).by.name, "bob/main");
  await alice.send(id, "bye, Bob");
  assert.deepEqual(
    (await alice.members(id)).map(({ name }) => name),
    ["alice/main", "carol/main"],
  );
  const seen = [];
  assert.equal((await nextEvent(carol, "message", seen)).text, "bye, Bob");
  assert.deepEqual(seen.find(({ kind }) => kind === "changed").removed, ["bob/main"]);
});

test("who has no package is waited for, and named once it has uploaded some", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await openDevice(t, server, "bob");
  await bob.register();
  const { id } = await alice.createGroup("friday");
  assert.deepEqual((await alice.invite(id, ["bob"])).missing, [{ name: "bob/main", code: "pool_exhausted" }]);
  assert.deepEqual(await alice.awaitPackages(["bob", "zoe"]), [
    { name: "bob/main", status: "waiting" },
    { name: "zoe", status: "refused", code: "unknown_user" },
  ]);
  await bob.refresh();
  assert.equal((await nextEvent(alice, "available")).device, "bob/main");
  assert.equal((await alice.invite(id, ["bob"])).invited.length, 1);
  assert.deepEqual(kinds(await eventsOf(alice)), [], "it is told once");
});

test("a member without room for a message is named to the sender, and is told of the loss", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  // A group that Bob has not accepted has room for 64 KiB, and for half of that from one user.
  assert.deepEqual((await alice.send(id, new Uint8Array(20_000))).notKept, []);
  assert.deepEqual((await alice.send(id, new Uint8Array(20_000))).notKept, ["bob/main"]);
  const seen = [];
  assert.deepEqual((await nextEvent(bob, "notKept", seen)).sender, "alice/main");
  assert.deepEqual(kinds(seen), ["joined", "message", "notKept"]);
  assert.deepEqual(kinds(await eventsOf(bob)), [], "it is told once");
  assert.deepEqual((await alice.send(id, "there is room again")).notKept, []);
});

test("bytes arrive as they are, and text as text", async (t) => {
  const server = await startServer(t);
  const [id, alice, bob] = await groupOf(server, t, "bob");
  await alice.send(id, new Uint8Array([0, 255, 128]));
  await alice.send(id, "Grüße 👋");
  const events = (await eventsOf(bob)).filter(({ kind }) => kind === "message");
  assert.deepEqual(
    events.map(({ bytes, text }) => [[...bytes].slice(0, 3), text]),
    [
      [[0, 255, 128], undefined],
      [[71, 114, 195], "Grüße 👋"],
    ],
  );
  assert.ok(events[0].at instanceof Date);
  await assert.rejects(alice.send(id, new Uint8Array(1_500_001)), { code: "invalid_argument" });
});

test("a second device is vouched for, and both have one safety number with everybody", async (t) => {
  const server = await startServer(t);
  const phone = await readyDevice(t, server, "alice/phone");
  const laptop = await openDevice(t, server, "alice/laptop");
  await assert.rejects(laptop.register(), { code: "identity_bound" });
  await assert.rejects(laptop.register({ voucher: "no voucher" }), { code: "invalid_argument" });
  await laptop.register({ voucher: await phone.vouch("laptop", laptop.key) });
  await laptop.refresh();
  const bob = await readyDevice(t, server, "bob");
  const number = await bob.safetyNumber("alice");
  assert.match(number, /^(\d{5} ){11}\d{5}$/);
  assert.deepEqual([await phone.safetyNumber("bob"), await laptop.safetyNumber("bob")], [number, number]);
  assert.equal(await bob.safetyNumber("nobody"), undefined);
  // All devices of the user are invited, and trusted: verified once Bob has compared the number.
  await bob.verifyPeer("alice");
  const { id } = await bob.createGroup("friday");
  const { invited } = await bob.invite(id, ["alice"]);
  assert.deepEqual(
    invited.map(({ device }) => device),
    ["alice/phone", "alice/laptop"],
  );
  const trust = (await bob.members(id)).map(({ name, trust }) => `${name} ${trust}`);
  assert.deepEqual(trust, ["bob/main known", "alice/phone verified", "alice/laptop verified"]);
  assert.deepEqual((await phone.refresh()).unintroducedDevices, []);
});

test("a sealed store works like a plain one, and shows no private key on the disk", async (t) => {
  const server = await startServer(t);
  const store = await FileStore.open(await folderFor(t));
  afterwards(t, () => store.close());
  const sealed = await SealedStore.over(store, new Uint8Array(32).fill(3));
  const bob = await Device.open({ store: sealed, server: server.address, user: "bob" });
  await bob.register();
  await bob.refresh();
  const alice = await readyDevice(t, server, "alice");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  assert.equal((await nextEvent(bob, "joined")).group, id);
  const onDisk = await Promise.all((await store.list("")).map((name) => store.get(name)));
  assert.ok(onDisk.length > 30 && onDisk.every((value) => !value.includes("{")));
});

test("a store belongs to one device", async (t) => {
  const server = await startServer(t);
  const alice = await openDevice(t, server, "alice");
  await alice.close();
  const { folder } = alice;
  await assert.rejects(openDevice(t, server, "bob", { folder }), { code: "store_of_another" });
});

test("a store belongs to one server", async (t) => {
  const alice = await openDevice(t, { address: "https://keys.example" }, "alice");
  await alice.close();
  const { folder } = alice;
  await assert.rejects(openDevice(t, { address: "https://other.example" }, "alice", { folder }), {
    code: "store_of_another",
  });
});

test("calls at the same time take turns", async (t) => {
  const server = await startServer(t);
  const [id, alice, bob] = await groupOf(server, t, "bob");
  const texts = Array.from({ length: 8 }, (_, at) => `message ${at}`);
  await Promise.all([
    ...texts.map((text) => alice.send(id, text)),
    alice.refresh(),
    eventsOf(alice),
    bob.send(id, "meanwhile"),
  ]);
  const there = (await eventsOf(bob)).filter(({ kind }) => kind === "message").map(({ text }) => text);
  assert.deepEqual(there, texts);
  assert.ok(kinds(await eventsOf(alice)).every((kind) => kind === "message"));
});
