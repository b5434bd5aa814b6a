// Signed requests: HTTP Message Signatures (RFC 9421) in the one profile that docs/api.md describes.

import { createHash, createPrivateKey, createPublicKey, randomBytes, sign } from "node:crypto";

// What stands before the 32 bytes of a private Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_OF_ED25519 = Buffer.from("302e020100300506032b657004220420", "hex");
// For how long a signature holds, in seconds.
const HOLDS_S = 60;
const WITH_BODY = ["@method", "@authority", "@path", "content-type", "content-digest", "idempotency-key"];
const WITHOUT_BODY = ["@method", "@authority", "@path", "@query"];

// The key of a device: it signs the device's packages, and its requests.
export class DeviceKey {
  constructor(secret = randomBytes(32)) {
    const der = Buffer.concat([PKCS8_OF_ED25519, secret]);
    this.private = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const { x } = createPublicKey(this.private).export({ format: "jwk" });
    // The public key as `keyid` wants it: base64url without padding.
    this.id = x;
    // Both halves as ts-mls takes them.
    this.signKey = new Uint8Array(secret);
    this.publicKey = new Uint8Array(Buffer.from(x, "base64url"));
  }

  sign(bytes) {
    return sign(null, Buffer.from(bytes), this.private).toString("base64");
  }
}

// `content-digest` of a body (RFC 9530).
export function digest(body) {
  return `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
}

// The headers that sign a request at a moment, in Unix seconds. `headers` are those that are covered: a
// request without a body has none.
export function signatureOf(key, method, url, headers, now) {
  const { host, pathname, search } = new URL(url);
  const values = {
    ...headers,
    "@method": method,
    "@authority": host,
    "@path": pathname,
    "@query": search === "" ? "?" : search,
  };
  const covered = headers["content-digest"] === undefined ? WITHOUT_BODY : WITH_BODY;
  const names = covered.map((name) => `"${name}"`).join(" ");
  const params =
    `(${names});created=${now};keyid="${key.id}";alg="ed25519";` +
    `expires=${now + HOLDS_S};tag="keypool-v1"`;
  const lines = covered.map((name) => `"${name}": ${values[name]}`);
  const base = [...lines, `"@signature-params": ${params}`].join("\n");
  return { "signature-input": `kp=${params}`, signature: `kp=:${key.sign(base)}:` };
}
