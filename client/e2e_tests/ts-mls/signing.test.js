// The known answer of docs/api.md.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DeviceKey, digest, signatureOf } from "./signing.js";

test("a request is signed as the API's page shows it", () => {
  const key = new DeviceKey(Buffer.from(Array.from({ length: 32 }, (_, byte) => byte)));
  const body = '{"target_user":"bob","group_id":"Z3JvdXAtMQ=="}';
  const headers = {
    "content-type": "application/json",
    "content-digest": digest(body),
    "idempotency-key": "018f2f3e-7c1a-7d3b-9a5e-0123456789ab",
  };
  assert.equal(
    headers["content-digest"],
    "sha-256=:QdSe66gutd5VwrsoooNmZU6HdVauWNi5JJ+TnReV1Y8=:",
  );
  const url = "https://keypool.example/keypackages/reserve";
  assert.deepEqual(signatureOf(key, "POST", url, headers, 1766400000), {
    "signature-input":
      'kp=("@method" "@authority" "@path" "content-type" "content-digest" "idempotency-key");' +
      'created=1766400000;keyid="A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";alg="ed25519";' +
      'expires=1766400060;tag="keypool-v1"',
    signature:
      "kp=:ulJWxNwpZLo4rGM8EJGZ8LjqWid4k6GY+VSGPMwKX3eXf2BRvmViKRWSe5G2EUDO3dGSfzCOzkqVtv9ArdKICg==:",
  });
});
