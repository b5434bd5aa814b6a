// The device's key, and signed requests: HTTP Message Signatures (RFC 9421) in the profile of docs/api.md.

import { fromBase64Url, owned, random, toBase64, toBase64Url, utf8, type Bytes } from "./bytes.js";

// The bytes before the 32 of a private Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_OF_ED25519 = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
// For how long a signature is good.
const GOOD_FOR_S = 60;
const WITH_BODY = ["@method", "@authority", "@path", "content-type", "content-digest", "idempotency-key"];
const WITHOUT_BODY = ["@method", "@authority", "@path", "@query"];

/** The key of a device: it signs the device's packages, requests and statements. */
export class DeviceKey {
  readonly #signer: CryptoKey;
  /** The public key as `keyid` has it: base64url without padding. */
  readonly id: string;
  /** The 32 bytes of the private key. */
  readonly secret: Bytes;
  /** The 32 bytes of the public key. */
  readonly publicKey: Bytes;

  private constructor(signer: CryptoKey, secret: Bytes, id: string) {
    this.#signer = signer;
    this.secret = secret;
    this.id = id;
    this.publicKey = fromBase64Url(id);
  }

  /** Draws a key. */
  static generate(): Promise<DeviceKey> {
    return DeviceKey.fromSecret(random(32));
  }

  /** The key with these 32 secret bytes. */
  static async fromSecret(secret: Uint8Array): Promise<DeviceKey> {
    const pkcs8 = new Uint8Array([...PKCS8_OF_ED25519, ...secret]);
    const signer = await crypto.subtle.importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
    const { x } = await crypto.subtle.exportKey("jwk", signer);
    return new DeviceKey(signer, owned(secret), x as string);
  }

  /** Signs bytes. */
  async sign(bytes: Bytes): Promise<Bytes> {
    return new Uint8Array(await crypto.subtle.sign("Ed25519", this.#signer, bytes));
  }
}

/** Whether an Ed25519 key, 32 bytes, has signed bytes. */
export async function hasSigned(key: Bytes, bytes: Bytes, signature: Bytes): Promise<boolean> {
  try {
    const verifier = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", verifier, signature, bytes);
  } catch {
    return false;
  }
}

/** The `content-digest` of a body (RFC 9530). */
export async function contentDigest(body: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", utf8(body));
  return `sha-256=:${toBase64(new Uint8Array(digest))}:`;
}

/** A request to sign. A request without a body has no headers to cover. */
export interface UnsignedRequest {
  method: string;
  url: string;
  headers: Record<string, string>;
}

/** The headers that sign a request, dated `createdS` in Unix seconds. */
export async function signatureHeaders(
  key: DeviceKey,
  { method, url, headers }: UnsignedRequest,
  createdS: number,
): Promise<Record<string, string>> {
  const { host, pathname, search } = new URL(url);
  const derived = { "@method": method, "@authority": host, "@path": pathname, "@query": search || "?" };
  const values: Record<string, string> = { ...headers, ...derived };
  const covered = headers["content-digest"] === undefined ? [...WITHOUT_BODY] : [...WITH_BODY];
  if (headers["authorization"] !== undefined) {
    covered.push("authorization");
  }
  const params =
    `(${covered.map((name) => `"${name}"`).join(" ")});created=${createdS};keyid="${key.id}";` +
    `alg="ed25519";expires=${createdS + GOOD_FOR_S};tag="keypool-v1"`;
  const lines = covered.map((name) => `"${name}": ${values[name]}`);
  const base = [...lines, `"@signature-params": ${params}`].join("\n");
  const signature = await key.sign(utf8(base));
  return { "signature-input": `kp=${params}`, signature: `kp=:${toBase64(signature)}:` };
}

/** The base64url text of a signature, as statements have it. */
export async function proofOf(key: DeviceKey, statement: string): Promise<string> {
  return toBase64Url(await key.sign(utf8(statement)));
}
