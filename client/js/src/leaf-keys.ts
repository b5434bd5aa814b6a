// The keys that sign leaves: the device's own, and of ciphersuite 2 a P-256 key that goes with it.

import { fromBase64, fromBase64Url, toBase64, toBase64Url, toHex, type Bytes } from "./bytes.js";
import type { Context } from "./context.js";
import type { DeviceKey } from "./signing.js";
import { groundsOf, signStatement, whileStale, type Grounds } from "./statements.js";
import { Staged } from "./store.js";
import { P256_SCHEME, type Ciphersuite } from "./suites.js";

/** A key pair that signs leaves, of packages and in groups, as ts-mls takes it. */
export interface LeafKey {
  secret: Bytes;
  publicKey: Bytes;
}

/** A P-256 key in the store. Packages and groups keep a copy of the private key that signs for them. */
interface LeafKeyRecord {
  /** The private key, base64. */
  secret: string;
  /** The public key, a point of 65 bytes, base64url. */
  key: string;
  /** Whether the server has heard of it from the device's key. */
  declared: boolean;
}

/** The name of the record of the P-256 key that goes with a key of the device. */
function nameOf(key: DeviceKey): string {
  return `leaf-key/${toHex(key.publicKey)}`;
}

/** The key that signs leaves of a ciphersuite beside a key of the device. It is drawn when it is needed first. */
export async function leafKeyOf(staged: Staged, key: DeviceKey, ciphersuite: Ciphersuite): Promise<LeafKey> {
  if (ciphersuite !== 2) {
    return { secret: key.secret, publicKey: key.publicKey };
  }
  const known = await staged.get<LeafKeyRecord>(nameOf(key));
  const record = known ?? (await drawn());
  if (known === undefined) {
    staged.put(nameOf(key), record);
  }
  return { secret: fromBase64(record.secret), publicKey: fromBase64Url(record.key) };
}

// ts-mls draws compressed points, which RFC 9420 section 5.1.1 does not have.
async function drawn(): Promise<LeafKeyRecord> {
  const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const { d } = await crypto.subtle.exportKey("jwk", pair.privateKey);
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { secret: toBase64(fromBase64Url(d as string)), key: toBase64Url(point), declared: false };
}

/** The declaration of the P-256 key that goes with a key of the device, if there is one that is not declared. */
export async function declarationOf(staged: Staged, key: DeviceKey, device: string, grounds: Grounds) {
  const record = await staged.get<LeafKeyRecord>(nameOf(key));
  if (record === undefined || record.declared) {
    return undefined;
  }
  const agreed = `0x${P256_SCHEME.toString(16).padStart(4, "0")} ${record.key}`;
  const signed = await signStatement(grounds, key, { kind: "leaf-key", device, agreed });
  return { signature_scheme: P256_SCHEME, leaf_keyid: record.key, ...signed };
}

/** Notes that the server has heard of the P-256 key that goes with a key of the device. */
export async function noteDeclared(staged: Staged, key: DeviceKey): Promise<void> {
  const record = await staged.get<LeafKeyRecord>(nameOf(key));
  if (record !== undefined) {
    staged.put(nameOf(key), { ...record, declared: true });
  }
}

/** Deletes the P-256 key that went with a key of the device. */
export function forgetLeafKey(staged: Staged, key: DeviceKey): void {
  staged.delete(nameOf(key));
}

/** Tells the server of the P-256 key, if it has not heard of it: packages that it has signed are refused otherwise. */
export async function declareLeafKey({ store, server, key, name, user, clock }: Context): Promise<void> {
  const staged = new Staged(store);
  const record = await staged.get<LeafKeyRecord>(nameOf(key));
  if (record === undefined || record.declared) {
    return;
  }
  await whileStale(async () => {
    const grounds = await groundsOf(server, user, clock.nowS());
    const declaration = await declarationOf(staged, key, name, grounds);
    if (declaration !== undefined) {
      await server.post("/devices/leaf-key", declaration);
    }
  });
  await noteDeclared(staged, key);
  await staged.commit();
}
