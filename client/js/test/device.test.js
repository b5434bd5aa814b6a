// The main job: packages, invitations, groups, messages.

import assert from "node:assert/strict";
import { test } from "node:test";

import { eventsOf, nextEvent, openDevice, readyDevice, startServer } from "./harness.js";

test("a device is invited while it is offline, joins after a restart, and both talk", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob/phone");
  assert.deepEqual(await available(bob), { available: 32, lastResort: 1, privateKeys: 33 });
  await bob.close();

  const friday = await alice.createGroup("friday");
  const { invited, missing } = await alice.invite(friday.id, ["bob", "zoe"]);
  assert.deepEqual(
    invited.map(({ device, lastResort }) => [device, lastResort]),
    [["bob/phone", false]],
  );
  assert.deepEqual(missing, [{ name: "zoe", code: "unknown_user" }]);
  assert.deepEqual(await alice.send(friday.id, "hello"), { queued: false, notKept: [] });

  const again = await openDevice(t, server, "bob/phone", { folder: bob.folder });
  const joined = await nextEvent(again, "joined");
  assert.equal(joined.group, friday.id);
  assert.equal(joined.reference, invited[0].reference);
  assert.deepEqual(joined.inviter, { name: "alice/main", trust: "known" });
  assert.deepEqual(
    joined.members.map(({ name }) => name),
    ["alice/main", "bob/phone"],
  );
  const { text, sender } = await nextEvent(again, "message");
  assert.deepEqual([text, sender.name], ["hello", "alice/main"]);

  const seen = [];
  await again.send(friday.id, "hi, Alice");
  const answer = await nextEvent(alice, "message", seen);
  assert.deepEqual([answer.text, answer.sender], ["hi, Alice", { name: "bob/phone", trust: "known" }]);
  // Bob has joined, and replaced the keys of his package.
  assert.deepEqual(
    seen.map(({ kind }) => kind),
    ["answer", "changed", "message"],
  );
  assert.equal(seen[0].outcome, "joined");
  assert.deepEqual(await available(again), { available: 31, lastResort: 1, privateKeys: 32 });
});

async function available(device) {
  const { available, lastResort, privateKeys } = await device.status();
  return { available, lastResort, privateKeys };
}
