// Reservations for an app that makes its Commits with another MLS library, and the audit of the server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeKeyPackage } from "ts-mls/keyPackage.js";

import { openDevice, readyDevice, startProxy, startServer } from "./harness.js";

const GROUP = Buffer.from("elsewhere").toString("base64url");
const OTHER = Buffer.from("another").toString("base64url");

test("a package is reserved, renewed, and spent once", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob/phone");
  const reservation = await alice.reserve(GROUP, "bob");
  const { device, keyPackage, lastResort, ends } = reservation;
  assert.deepEqual([device, lastResort], ["bob/phone", false]);
  assert.equal(decodeKeyPackage(keyPackage, 0)[0].version, "mls10");
  assert.ok((await alice.renew(reservation)) >= ends);
  assert.deepEqual(await alice.spend(GROUP, reservation), { late: false, replayed: false });
  assert.deepEqual(await alice.spend(GROUP, reservation), { late: false, replayed: true });
  await assert.rejects(alice.spend(OTHER, reservation), { code: "reservation_mismatch" });
  const { available, reserved, spent } = await bob.status();
  assert.deepEqual([available, reserved, spent], [31, 0, 1]);
});

test("a package that is released can be spent no more, and refusals have the server's codes", async (t) => {
  const server = await startServer(t);
  const alice = await readyDevice(t, server, "alice");
  await readyDevice(t, server, "bob");
  const zoe = await openDevice(t, server, "zoe");
  const released = await alice.reserve(GROUP, "bob/main");
  await alice.release(released);
  await assert.rejects(alice.spend(GROUP, released), { code: "reservation_lost" });
  await assert.rejects(alice.renew(released), { code: "reservation_lost" });
  await assert.rejects(alice.reserve(GROUP, "zoe"), { code: "unknown_user" });
  await zoe.register();
  await assert.rejects(alice.reserve(GROUP, "zoe"), { code: "pool_exhausted", retryable: true });
  // A device of another ciphersuite could not read the package.
  const carol = await readyDevice(t, server, "carol", { ciphersuites: [2] });
  await assert.rejects(carol.reserve(GROUP, "bob"), { code: "nothing_compatible" });
});

test("a package that is not the device's is reported, and the call refused", async (t) => {
  const proxy = { lie: () => undefined };
  const server = await startProxy(t, (exchange) => proxy.lie(exchange));
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  proxy.lie = ({ path, answer }) =>
    path === "/keypackages/reserve" ? { ...answer, keypackage_ref: "00".repeat(32) } : undefined;
  await assert.rejects(alice.reserve(GROUP, "bob"), { code: "package_rejected", check: "reference" });
  proxy.lie = ({ path, answer }) => (path === "/keypackages/reserve" ? { ...answer, device: "phone" } : undefined);
  await assert.rejects(alice.reserve(GROUP, "bob"), { code: "package_rejected", check: "directory" });
  proxy.lie = () => undefined;
  assert.equal((await bob.status()).spent, 0);
});

test("a device that was closed refuses every call", async (t) => {
  const server = await startServer(t);
  const bob = await readyDevice(t, server, "bob");
  await bob.close();
  await bob.close();
  assert.equal(bob.name, "bob/main");
  const sync = () => bob.sync(() => {});
  for (const call of [() => bob.refresh(), () => bob.groups(), () => bob.members(GROUP), () => bob.audit(), sync]) {
    await assert.rejects(call(), { code: "closed" });
  }
});

// Bob behind a proxy, invited once. His audit is sound.
async function audited(t) {
  const proxy = { lie: () => undefined };
  const server = await startProxy(t, (exchange) => proxy.lie(exchange));
  const bob = await readyDevice(t, server, "bob");
  const alice = await readyDevice(t, server, "alice");
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, ["bob"]);
  const first = await bob.audit();
  assert.deepEqual(first.findings, []);
  assert.equal(first.isSound, true);
  return Object.assign(proxy, { server, bob, alice, first });
}

const codes = ({ findings }) => findings.map(({ code }) => code);

test("an audit is sound while ledger and history grow", async (t) => {
  const { bob, alice, first } = await audited(t);
  for (const name of ["one", "two", "three"]) {
    const { id } = await alice.createGroup(name);
    await alice.invite(id, ["bob"]);
    await bob.rotateKey();
    const { isSound, records, events } = await bob.audit();
    assert.ok(isSound && records >= first.records && events > first.events);
  }
});

test("a server that rewrites the pool's history or its ledger is found out", async (t) => {
  const proxy = await audited(t);
  const { bob, alice } = proxy;
  const { id } = await alice.createGroup("more");
  await alice.invite(id, ["bob"]);
  const events = (change) => {
    proxy.lie = ({ path, answer }) =>
      path === "/keypackages/events" ? { ...answer, events: change(answer.events) } : undefined;
  };
  events((all) => all.filter((_, at) => at !== 3).map((one, at) => ({ ...one, version: at + 1 })));
  assert.deepEqual(codes(await bob.audit()), ["history_rewritten"]);
  events((all) => all.slice(0, 5));
  assert.deepEqual(codes(await bob.audit()), ["history_rewritten", "history_rewritten"]);
  events((all) => {
    const { keypackage_ref, reservation } = all.find(({ event }) => event.reserved).event.reserved;
    const spent = { event: { spent: { keypackage_ref, reservation } } };
    return all.map((one) => (one.event.uploaded?.keypackage_ref === keypackage_ref ? { ...one, ...spent } : one));
  });
  assert.ok(codes(await bob.audit()).every((code) => code === "handed_out_twice"));
  assert.equal((await bob.audit()).isSound, false);
  const strange = Buffer.alloc(32, 9).toString("base64");
  proxy.lie = ({ path, answer }) =>
    path === "/ledger/proof/consistency" ? { ...answer, hashes: answer.hashes.map(() => strange) } : undefined;
  // A new checkpoint comes once a second.
  for (let audit = await bob.audit(); ; audit = await bob.audit()) {
    if (!audit.isSound) {
      assert.deepEqual(codes(audit), ["ledger_rewritten"]);
      break;
    }
    await bob.refresh();
    await alice.invite((await alice.createGroup("grow")).id, ["bob"]);
  }
  proxy.lie = () => undefined;
  assert.equal((await bob.audit()).isSound, true);
});

test("a checkpoint that another key has signed is no checkpoint", async (t) => {
  const [server, other] = [await startServer(t), await startServer(t)];
  const ledgerKey = await (await fetch(`${other.address}/v1/ledger/key`)).text();
  const bob = await readyDevice(t, server, "bob", { ledgerKey: ledgerKey.trim() });
  assert.deepEqual(codes(await bob.audit()), ["checkpoint_unsigned"]);
});
