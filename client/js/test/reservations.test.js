// Reservations for an app that makes its Commits with another MLS library.

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
  for (const call of [() => bob.refresh(), () => bob.groups(), () => bob.members(GROUP), sync]) {
    await assert.rejects(call(), { code: "closed" });
  }
});
