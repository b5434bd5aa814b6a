// Known answers: the formats that other implementations have too.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { safetyNumber } from "keypool-client";

import { headOf, statementLines } from "../dist/directory.js";
import { ServerClock } from "../dist/clock.js";
import { signedText, statedTimeMs } from "../dist/note.js";
import { contentDigest, DeviceKey, proofOf, signatureHeaders } from "../dist/signing.js";
import { FILE, typesOf } from "../tools/api-types.js";
import { startServer } from "./harness.js";

const counted = Uint8Array.from({ length: 32 }, (_, byte) => byte);
const keyId = (byte) => Buffer.alloc(32, byte).toString("base64url");

test("the types are those of the server's API document", async (t) => {
  const { address } = await startServer(t);
  const document = await (await fetch(`${address}/openapi.json`)).json();
  const types = await readFile(FILE, "utf8");
  assert.ok(types === (await typesOf(document)), "src/api.ts is not current: npm run types");
});

test("a request is signed as the API's page shows it", async () => {
  const key = await DeviceKey.fromSecret(counted);
  const headers = {
    "content-type": "application/json",
    "content-digest": await contentDigest('{"target_user":"bob","group_id":"Z3JvdXAtMQ=="}'),
    "idempotency-key": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab",
  };
  assert.equal(headers["content-digest"], "sha-256=:QdSe66gutd5VwrsoooNmZU6HdVauWNi5JJ+TnReV1Y8=:");
  const request = { method: "POST", url: "https://keypool.example/keypackages/reserve", headers };
  assert.deepEqual(await signatureHeaders(key, request, 1766400000), {
    "signature-input":
      'kp=("@method" "@authority" "@path" "content-type" "content-digest" "idempotency-key");' +
      'created=1766400000;keyid="A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";alg="ed25519";' +
      'expires=1766400060;tag="keypool-v1"',
    signature: "kp=:ulJWxNwpZLo4rGM8EJGZ8LjqWid4k6GY+VSGPMwKX3eXf2BRvmViKRWSe5G2EUDO3dGSfzCOzkqVtv9ArdKICg==:",
  });
});

test("a token of the operator's is covered by the signature", async () => {
  const key = await DeviceKey.fromSecret(counted);
  const headers = { "content-digest": "sha-256=:x:", authorization: "Bearer token" };
  const request = { method: "POST", url: "https://keypool.example/v1/devices", headers };
  const signed = await signatureHeaders(key, request, 1766400000);
  assert.match(signed["signature-input"], /"idempotency-key" "authorization"\);created/);
});

test("a statement and the head of a device list are as the API's page shows them", async () => {
  const phone = await DeviceKey.fromSecret(counted);
  const laptop = "6kpsY-KcUgq-9VB7Ey7F-ZVHdq687xnuLzjVuvxmEoA";
  const devices = { laptop: { changes: 2, key: null }, phone: { changes: 1, key: phone.id } };
  const head = headOf({ user: "alice", devices });
  assert.equal(head, "a1198c98a32bbce1f0019967afc67ba53ddc5412138c9d799e2f19bb83516aa5");
  const fields = ["keypool.example+2cf24dba", "alice/laptop", phone.id, laptop, head, 1766400600];
  const proof = "ECpT29z1opy0xYPb3afZEwTnpOnihrNXqtnB3fX6T-GK4Zpw_uQHECV4Ea2mpU8BTfwxbdseMU1qa2E5XHQHDA";
  assert.equal(await proofOf(phone, statementLines("vouch", fields)), proof);
});

test("a safety number is the one that the Rust client computes", () => {
  const alice = { user: "alice", keys: [keyId(2), keyId(1)] };
  const bob = { user: "bob", keys: [keyId(3)] };
  const digits = "64841 66682 81155 22214 30775 00405 65348 10675 37798 87510 25890 72760";
  assert.equal(safetyNumber(alice, bob), digits);
  assert.equal(safetyNumber(bob, alice), digits);
  assert.notEqual(safetyNumber(bob, { ...alice, keys: [keyId(1)] }), digits);
});

test("the ledger's key signs the time for one question, and nobody else does", async (t) => {
  const { address } = await startServer(t);
  const text = async (path) => (await fetch(address + path)).text();
  const [nonce, other] = ["000102030405060708090a0b0c0d0e0f", "ff".repeat(16)];
  const [key, note] = [await text("/ledger/key"), await text(`/ledger/time?nonce=${nonce}`)];
  const timeMs = await statedTimeMs(note, key, nonce);
  assert.ok(Math.abs(timeMs - Date.now()) < 60_000);
  assert.equal(await statedTimeMs(note, key, other), undefined);
  assert.equal(await statedTimeMs(note.replace(String(timeMs), String(timeMs + 1)), key, nonce), undefined);
  const stranger = (await startServer(t)).address;
  assert.equal(await signedText(note, await (await fetch(`${stranger}/ledger/key`)).text()), undefined);
  for (const damaged of ["", "\n\n", note.slice(0, -20), key]) {
    assert.equal(await signedText(damaged, key), undefined);
  }
});

test("a clock believes a day unsigned and more once it is signed, and tells once", () => {
  const hour = 3_600_000;
  const clock = new ServerClock(() => 1000 * hour);
  clock.hear(998 * hour);
  assert.equal(clock.nowMs(), 998 * hour);
  assert.deepEqual(clock.tell(), { deviceAheadSeconds: 7200, corrected: true });
  assert.equal(clock.tell(), undefined);
  clock.hear(Number.NaN);
  clock.hear(998 * hour + 5_000);
  assert.equal(clock.nowMs(), 998 * hour, "slow answers do not move it");
  clock.hear(1072 * hour);
  assert.deepEqual([clock.nowMs(), clock.isInDoubt()], [998 * hour, true]);
  assert.equal(clock.tell().corrected, false);
  clock.verify(1072 * hour);
  assert.deepEqual([clock.nowMs(), clock.isInDoubt()], [1072 * hour, false]);
});
