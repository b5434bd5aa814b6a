// A server that lies: what it shows is checked, and nothing of it is believed that a check refuses.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  createGroupInfoWithExternalPubAndRatchetTree,
  defaultCapabilities,
  defaultLifetime,
  generateKeyPackage,
  joinGroupExternal,
} from "ts-mls";

import { emptyList, follow, headOf } from "../dist/directory.js";
import { groupSuite, messageBytes, readPackage, referenceOf, stateOf } from "../dist/mls.js";
import { eventsOf, nextEvent, openDevice, readyDevice, startProxy, startServer } from "./harness.js";

// Two devices behind a proxy. `proxy.lie` changes answers.
async function behindProxy(t) {
  const proxy = { lie: () => undefined };
  const server = await startProxy(t, (exchange) => proxy.lie(exchange));
  const alice = await readyDevice(t, server, "alice");
  return Object.assign(proxy, { server, alice });
}

const flipped = (base64, at) => {
  const bytes = Buffer.from(base64, "base64");
  bytes[at < 0 ? bytes.length + at : at] ^= 1;
  return bytes.toString("base64");
};

// The outcome of inviting Bob when the server changes the reservation.
async function invitedWith(t, change) {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  proxy.lie = async ({ path, answer }) => {
    if (path === "/keypackages/reserve-many" && answer.reservations !== undefined) {
      return { ...answer, reservations: await Promise.all(answer.reservations.map(change)) };
    }
    return undefined;
  };
  return { outcome: await proxy.alice.invite(group.id, ["bob"]), bob, alice: proxy.alice, group };
}

// A chain that is sound, and has a key that nobody has.
function strangeChain(user) {
  const key = Buffer.alloc(32, 9).toString("base64url");
  const change = { device: `${user}/main`, position: 1, at_ms: 1, event: { registered: { signature_key: key } } };
  return { change, head: headOf({ ...emptyList(user), devices: { main: { changes: 1, key } } }) };
}

function shownInstead(answer, user, { change, head }) {
  const lie = { head, position: 1, history: [change] };
  return { ...answer, users: answer.users.map((one) => (one.user === user ? { ...one, ...lie } : one)) };
}

const refusedFor = (reason) => ({ invited: [], missing: [{ name: "bob/main", code: "package_rejected", reason }] });

async function assertRefused(t, reason, change) {
  const { outcome, alice, group } = await invitedWith(t, change);
  const { invited, missing } = outcome;
  assert.deepEqual({ invited, missing }, refusedFor(reason));
  assert.deepEqual(
    (await alice.members(group.id)).map(({ name }) => name),
    ["alice/main"],
  );
}

test("a package under another reference is not added", (t) =>
  assertRefused(t, "reference", (one) => ({ ...one, keypackage_ref: "ab".repeat(32) })));

test("bytes that are no package are not added", (t) =>
  assertRefused(t, "encoding", (one) => ({ ...one, keypackage: "bm90IGEgcGFja2FnZQ==" })));

test("a package whose signature is wrong is not added", (t) =>
  assertRefused(t, "validity", async (one) => {
    const keypackage = flipped(one.keypackage, -1);
    const keypackage_ref = await referenceOf(readPackage(Buffer.from(keypackage, "base64")));
    return { ...one, keypackage, keypackage_ref };
  }));

test("a device that nobody asked for is not added", async (t) => {
  const { outcome } = await invitedWith(t, (one) => ({ ...one, user: "mallory" }));
  assert.deepEqual(outcome.invited, []);
  assert.deepEqual(outcome.missing[0], { name: "mallory/main", code: "package_rejected", reason: "identity" });
});

test("another user's package is not added under the name that was asked for", async (t) => {
  const proxy = await behindProxy(t);
  await readyDevice(t, proxy.server, "bob");
  await readyDevice(t, proxy.server, "mallory");
  const group = await proxy.alice.createGroup("friday");
  // The server reserves one of Mallory's packages instead of Bob's.
  const stolen = [];
  proxy.lie = ({ path, answer }) => {
    if (path === "/keypackages/reserve-many" && answer.reservations?.[0]?.user === "mallory") {
      stolen.push(answer.reservations[0]);
    } else if (path === "/keypackages/reserve-many" && stolen.length > 0) {
      return { ...answer, reservations: [{ ...stolen[0], user: "bob" }] };
    }
    return undefined;
  };
  const other = await proxy.alice.createGroup("other");
  await proxy.alice.invite(other.id, ["mallory"]);
  const { invited, missing } = await proxy.alice.invite(group.id, ["bob"]);
  assert.deepEqual({ invited, missing }, refusedFor("identity"));
});

test("a key that the directory's chain does not lead to is not believed", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  assert.equal((await proxy.alice.peer("bob")).status, "first_seen");
  // The server brings another key of its own in the place of Bob's.
  proxy.lie = ({ path, answer }) => {
    if (path !== "/users/devices") {
      return undefined;
    }
    const users = answer.users.map((one) => {
      const key = Buffer.alloc(32, 9).toString("base64url");
      const rotated = {
        device: "bob/main",
        position: one.position + 1,
        at_ms: Date.now(),
        event: { key_rotated: { signature_key: key } },
      };
      return one.user === "bob" ? { ...one, history: [rotated], position: one.position + 1 } : one;
    });
    return { ...answer, users };
  };
  const peer = await proxy.alice.peer("bob");
  assert.equal(peer.status, "changed");
  assert.match(peer.doubt, /keeps changes of bob's devices back/);
  assert.equal(peer.devices[0].key, bob.key);
  const group = await proxy.alice.createGroup("friday");
  const { missing } = await proxy.alice.invite(group.id, ["bob"]);
  assert.deepEqual(
    missing.map(({ name, code }) => [name, code]),
    [["bob", "keys_changed"]],
  );
  await assert.rejects(proxy.alice.verifyPeer("bob"), { code: "invalid_argument" });
  // Once the person was asked, the keys of now are taken.
  proxy.lie = () => undefined;
  assert.equal((await proxy.alice.acceptPeer("bob")).status, "first_seen");
  assert.equal((await proxy.alice.invite(group.id, ["bob"])).invited.length, 1);
});

test("a list of devices that is older than the one seen before is not believed", async (t) => {
  const proxy = await behindProxy(t);
  await readyDevice(t, proxy.server, "bob");
  await proxy.alice.peer("bob");
  proxy.lie = ({ path, answer }) =>
    path === "/users/devices" ? { ...answer, users: [], unknown: ["bob"] } : undefined;
  assert.match((await proxy.alice.peer("bob")).doubt, /does not know bob/);
});

test("a Welcome that was changed on the way joins nothing, and the inviter is told", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  proxy.lie = ({ path, answer }) => {
    if (path !== "/mailbox" || answer.items === undefined) {
      return undefined;
    }
    const items = answer.items.map((one) => (one.kind === "welcome" ? { ...one, bytes: flipped(one.bytes, -1) } : one));
    return { ...answer, items };
  };
  const before = (await bob.status()).privateKeys;
  const { reason } = await nextEvent(bob, "unreadable");
  assert.ok(reason.length > 0);
  assert.deepEqual(
    (await bob.groups()).filter(({ active }) => active),
    [],
  );
  assert.equal((await bob.status()).privateKeys, before, "the keys stay");
  const { outcome, reason: why } = await nextEvent(proxy.alice, "answer");
  assert.deepEqual([outcome, why], ["failed", "unreadable"]);
});

test("a Welcome for another group than the server says joins nothing", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  proxy.lie = ({ path, answer }) =>
    path === "/mailbox"
      ? { ...answer, items: answer.items?.map((one) => ({ ...one, group_id: "b3RoZXI=" })) }
      : undefined;
  assert.match((await nextEvent(bob, "unreadable")).reason, /another group/);
});

test("items that the server shows again, or again under another position, change nothing", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  await proxy.alice.send(group.id, "once");
  const shown = [];
  proxy.lie = ({ path, answer }) => {
    shown.push(...(path === "/mailbox" ? answer.items : []));
    return undefined;
  };
  assert.equal((await nextEvent(bob, "message")).text, "once");
  const last = shown.at(-1).position;
  proxy.lie = ({ path, answer }) => (path === "/mailbox" ? { ...answer, items: shown } : undefined);
  assert.deepEqual(
    (await eventsOf(bob)).map(({ kind }) => kind),
    [],
  );
  const renumbered = shown.map((one, at) => ({ ...one, position: last + 1 + at }));
  let acknowledged;
  proxy.lie = ({ path, answer, body }) => {
    if (path === "/mailbox/acknowledge") {
      acknowledged = body;
      // The real server would refuse a position that it never gave out.
      return { waiting: 0 };
    }
    return path === "/mailbox" ? { ...answer, items: renumbered } : undefined;
  };
  const kinds = (await eventsOf(bob).catch(() => eventsOf(bob))).map(({ kind }) => kind);
  assert.ok(
    kinds.every((kind) => kind === "unreadable"),
    `${kinds}`,
  );
  assert.ok(acknowledged.through > last);
  assert.equal((await bob.groups())[0].active, true);
});

test("nobody joins a group from outside, even with all that a member could tell", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const { id } = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(id, ["bob"]);
  await nextEvent(bob, "joined");
  // A GroupInfo of Bob's own state, by which somebody who is no member makes an external Commit.
  const [name] = await bob.store.list("group/");
  const state = stateOf(JSON.parse(await bob.store.get(name)).state);
  const impl = await groupSuite(state);
  const info = await createGroupInfoWithExternalPubAndRatchetTree(state, [], impl);
  const identity = new TextEncoder().encode("mallory/main");
  const { publicPackage, privatePackage } = await generateKeyPackage(
    { credentialType: "basic", identity },
    defaultCapabilities(),
    defaultLifetime,
    [],
    impl,
  );
  const { publicMessage } = await joinGroupExternal(info, publicPackage, privatePackage, false, impl);
  const bytes = messageBytes({ version: "mls10", wireformat: "mls_public_message", publicMessage });
  proxy.lie = ({ path, answer }) => {
    const position = (answer?.acknowledged ?? 0) + 1;
    const item = {
      position,
      at_ms: 1,
      kind: "commit",
      group_id: Buffer.from(id, "base64url").toString("base64"),
      bytes,
    };
    return path === "/mailbox"
      ? { ...answer, items: [item] }
      : path === "/mailbox/acknowledge"
        ? { waiting: 0 }
        : undefined;
  };
  assert.match((await nextEvent(bob, "unreadable")).reason, /from outside/);
  assert.deepEqual(
    (await bob.members(id)).map((member) => member.name),
    ["alice/main", "bob/main"],
  );
});

test("items of a kind that a later server has are passed over", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const { id } = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(id, ["bob"]);
  proxy.lie = ({ path, answer }) => {
    const [first] = path === "/mailbox" ? answer.items : [];
    const later = first && { ...first, position: first.position - 1, kind: "reaction", bytes: "" };
    return first && { ...answer, items: [later, ...answer.items] };
  };
  const seen = [];
  await nextEvent(bob, "joined", seen);
  assert.deepEqual(
    seen.map(({ kind }) => kind),
    ["joined"],
  );
});

test("a sender that the server makes up is told apart from the one that has signed", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  await proxy.alice.send(group.id, "it is me");
  proxy.lie = ({ path, answer }) =>
    path === "/mailbox"
      ? { ...answer, items: answer.items.map((one) => (one.kind === "message" ? { ...one, sender: "zoe/main" } : one)) }
      : undefined;
  const seen = [];
  const lie = await nextEvent(bob, "otherSender", seen);
  assert.deepEqual([lie.sender, lie.serverSaid], ["alice/main", "zoe/main"]);
  assert.equal(seen.find(({ kind }) => kind === "message").sender.name, "alice/main");
});

test("an inviter whose key is not the directory's brings nobody into a group", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  // The directory has another key of Alice's when Bob looks her up: a whole chain of the server's own.
  const { change, head } = strangeChain("alice");
  await follow(emptyList("alice"), { head, position: 1, history: [change] }, []);
  proxy.lie = ({ path, answer }) =>
    path === "/users/devices" ? shownInstead(answer, "alice", { change, head }) : undefined;
  const { inviter } = await nextEvent(bob, "invitationRefused");
  assert.deepEqual(inviter, { name: "alice/main", trust: "contradicts" });
  assert.deepEqual(await bob.groups(), []);
  assert.deepEqual((await nextEvent(proxy.alice, "answer")).reason, "untrusted");
});

test("answers that are no answers of a keypool server are errors with a code", async (t) => {
  const proxy = await behindProxy(t);
  const badId = { position: 1e9, kind: "welcome", group_id: "%", bytes: "" };
  for (const nonsense of [[], {}, { items: 5 }, { items: [{}] }, { items: [null] }, { items: [badId] }]) {
    proxy.lie = ({ path }) => (path === "/mailbox" ? nonsense : undefined);
    await assert.rejects(
      eventsOf(proxy.alice),
      (error) => error.code === "answer_unreadable" && error.hint.length > 0,
      JSON.stringify(nonsense),
    );
  }
  await assert.rejects(openDevice(t, { address: "https://keys.example/path" }, "zoe"), { code: "invalid_argument" });
  const nowhere = await openDevice(t, { address: "http://127.0.0.1:1" }, "zoe");
  await assert.rejects(nowhere.register(), { code: "unanswered", retryable: true });
});

test("every call ends well or with a KeypoolError when a broken server answers nonsense", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const { id } = await proxy.alice.createGroup("friday");
  const calls = [
    () => proxy.alice.invite(id, ["bob"]),
    () => proxy.alice.refresh(),
    () => eventsOf(bob),
    () => proxy.alice.send(id, "hello"),
    () => proxy.alice.peer("bob"),
    () => proxy.alice.history(),
    () => proxy.alice.awaitPackages(["bob"]),
  ];
  const lists = [
    "items",
    "users",
    "events",
    "reservations",
    "missing",
    "devices",
    "only_here",
    "only_there",
    "revoked",
  ];
  for (const nonsense of [{}, [], 7, null, ...[null, 1, "x", {}, []].map((one) => [one])]) {
    proxy.lie = ({ answer }) =>
      answer === undefined ? undefined : Object.fromEntries(lists.map((name) => [name, nonsense]));
    for (const call of calls) {
      await call().catch((error) =>
        assert.equal(error.name, "KeypoolError", `${JSON.stringify(nonsense)}: ${error.stack}`),
      );
    }
  }
});

test("a refusal has the code, the hint and the request's id of the server", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const thief = await openDevice(t, server, "alice");
  await assert.rejects(thief.register(), (error) => {
    assert.deepEqual([error.name, error.code, error.status], ["KeypoolError", "identity_bound", 409]);
    assert.match(error.hint, /Use the key that registered first/);
    assert.ok(error.requestId.length > 0 && !error.retryable);
    return true;
  });
  await assert.rejects(alice.send("bm9uZQ", "hi"), { code: "unknown_here" });
});

test("a member whose key is not the directory's is marked, and blocks messages until it is accepted or removed", async (t) => {
  const proxy = await behindProxy(t);
  const bob = await readyDevice(t, proxy.server, "bob");
  const carol = await readyDevice(t, proxy.server, "carol");
  const group = await proxy.alice.createGroup("friday");
  await proxy.alice.invite(group.id, ["bob"]);
  await nextEvent(bob, "joined");
  await nextEvent(proxy.alice, "changed");
  await proxy.alice.invite(group.id, ["carol"]);
  // Bob sees Carol for the first time by this Commit, and the directory has another key of hers.
  const { change, head } = strangeChain("carol");
  proxy.lie = ({ path, answer }) =>
    path === "/users/devices" ? shownInstead(answer, "carol", { change, head }) : undefined;
  const { added } = await nextEvent(bob, "changed");
  assert.deepEqual(added, [{ name: "carol/main", trust: "contradicts" }]);
  await assert.rejects(bob.send(group.id, "hello"), (error) => {
    return error.code === "untrusted_members" && error.message.includes("carol/main");
  });
  await nextEvent(carol, "joined");
  await carol.send(group.id, "it is me");
  assert.deepEqual((await nextEvent(bob, "message")).sender, { name: "carol/main", trust: "contradicts" });
  await bob.acceptMembers(group.id);
  await bob.send(group.id, "I have asked her");
  assert.equal((await nextEvent(carol, "message")).text, "I have asked her");
  await bob.remove(group.id, ["carol"]);
  assert.equal((await nextEvent(carol, "removed")).by.name, "bob/main");
});

test("a package that only this machine's clock refuses is given back, and nobody is blamed", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("friday");
  const now = Date.now;
  t.mock.method(Date, "now", () => now() - 3 * 24 * 3_600_000);
  const { missing } = await alice.invite(id, ["bob"]);
  t.mock.restoreAll();
  assert.deepEqual(missing, [{ name: "bob/main", code: "package_rejected", reason: "clock" }]);
  const { available, reserved } = await bob.status();
  assert.deepEqual([available, reserved], [32, 0]);
});
