// MLS by ts-mls: packages, group states and messages, to and from bytes.

import {
  createGroup,
  decodeGroupState,
  decodeMlsMessage,
  emptyPskIndex,
  encodeGroupState,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  type CiphersuiteImpl,
  type ClientState,
  type KeyPackage,
  type LeafNode,
  type MLSMessage,
  type PrivateKeyPackage,
  type PrivateMessage,
  type Welcome,
} from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { encodeCredential } from "ts-mls/credential.js";
import { greaseCapabilities } from "ts-mls/grease.js";
import { decodeKeyPackage, encodeKeyPackage, makeKeyPackageRef, verifyKeyPackage } from "ts-mls/keyPackage.js";
import { verifyLeafNodeSignatureKeyPackage } from "ts-mls/leafNode.js";
import { decryptSenderData } from "ts-mls/privateMessage.js";

import { fromBase64, textOf, toBase64, toBase64Url, toHex, utf8, type Bytes } from "./bytes.js";
import type { DeviceKey } from "./signing.js";

export type { CiphersuiteImpl, ClientState, KeyPackage, MLSMessage, Welcome };

/** The number of the ciphersuite of this library's groups: the signature key is Ed25519, as that of requests. */
export const SUITE = 1;
const SUITE_NAME = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";
// The extension that marks a package of last resort (draft-ietf-mls-extensions).
const LAST_RESORT = 0x000a;

// All a package needs to list, and every GREASE value (RFC 9420 section 13.5): readers must ignore these.
const CAPABILITIES = greaseCapabilities(
  { probabilityPerGreaseValue: 1 },
  { versions: ["mls10"], ciphersuites: [SUITE_NAME], extensions: [LAST_RESORT], proposals: [], credentials: ["basic"] },
);

/** The implementation of the ciphersuite. */
export function suite(): Promise<CiphersuiteImpl> {
  return getCiphersuiteImpl(getCiphersuiteFromName(SUITE_NAME));
}

/** A package and its private keys, as the store has them. */
export interface StoredPackage {
  /** The bytes of the package, base64. */
  keyPackage: string;
  /** The private keys: of the Welcome, and of the leaf, base64. */
  initKey: string;
  leafKey: string;
  /** The end of its lifetime, in Unix seconds. */
  notAfterS: number;
  /** When it was made, in Unix seconds. */
  madeAtS: number;
  lastResort: boolean;
  /** Whether the server has it. */
  uploaded: boolean;
  /** When a Welcome has used it, in Unix seconds: a last resort stays for others on their way. */
  usedAtS?: number;
  /** The digests of the Welcomes that have used a last resort: none is joined twice. */
  joined?: string[];
}

/** Makes a package of a device with a lifetime in Unix seconds. Returns it under its reference. */
export async function makePackage(
  identity: string,
  key: DeviceKey,
  { notBeforeS, notAfterS, madeAtS }: { notBeforeS: number; notAfterS: number; madeAtS: number },
  lastResort: boolean,
): Promise<[string, StoredPackage]> {
  const marks = lastResort ? [{ extensionType: LAST_RESORT, extensionData: new Uint8Array() }] : [];
  const { publicPackage, privatePackage } = await generateKeyPackageWithKey(
    { credentialType: "basic", identity: utf8(identity) },
    CAPABILITIES,
    { notBefore: BigInt(notBeforeS), notAfter: BigInt(notAfterS) },
    marks,
    { signKey: key.secret, publicKey: key.publicKey },
    await suite(),
  );
  const stored = {
    keyPackage: toBase64(encodeKeyPackage(publicPackage)),
    initKey: toBase64(privatePackage.initPrivateKey),
    leafKey: toBase64(privatePackage.hpkePrivateKey),
    notAfterS,
    madeAtS,
    lastResort,
    uploaded: false,
  };
  return [await referenceOf(publicPackage), stored];
}

/** The reference of a package (RFC 9420 section 5.2), hexadecimal. */
export async function referenceOf(keyPackage: KeyPackage): Promise<string> {
  return toHex(await makeKeyPackageRef(keyPackage, (await suite()).hash));
}

/** Reads a package as its owner has uploaded it, bare or in an MLSMessage; `undefined` if the bytes are no package. */
export function readPackage(bytes: Uint8Array): KeyPackage | undefined {
  const bare = wholly(decodeKeyPackage, bytes);
  if (bare !== undefined) {
    return bare;
  }
  const message = readMessage(bytes);
  return message?.wireformat === "mls_key_package" ? message.keyPackage : undefined;
}

/** Reads an MLSMessage; `undefined` if the bytes are not exactly one. */
export function readMessage(bytes: Uint8Array): MLSMessage | undefined {
  return wholly(decodeMlsMessage, bytes);
}

function wholly<T>(
  decode: (bytes: Uint8Array, at: number) => [T, number] | undefined,
  bytes: Uint8Array,
): T | undefined {
  try {
    const decoded = decode(bytes, 0);
    return decoded !== undefined && decoded[1] === bytes.length ? decoded[0] : undefined;
  } catch {
    return undefined;
  }
}

/** The bytes of a message, base64. */
export function messageBytes(message: MLSMessage): string {
  return toBase64(encodeMlsMessage(message));
}

/** Why a package cannot be added; `undefined` if it can. `nowS` is the time in Unix seconds. */
export async function packageFault(keyPackage: KeyPackage, nowS: number): Promise<PackageFault | undefined> {
  const { signature } = await suite();
  if (keyPackage.version !== "mls10" || keyPackage.cipherSuite !== SUITE_NAME) {
    return "ciphersuite";
  }
  const { leafNode } = keyPackage;
  const areSigned =
    (await verifyKeyPackage(keyPackage, signature)) && (await verifyLeafNodeSignatureKeyPackage(leafNode, signature));
  if (!areSigned) {
    return "validity";
  }
  if (leafNode.leafNodeSource !== "key_package" || !isWithin(leafNode.lifetime, nowS)) {
    return "lifetime";
  }
  // ts-mls asks the machine's clock when it adds a package, and takes no other.
  return isWithin(leafNode.lifetime, Date.now() / 1000) ? undefined : "clock";
}

/** A check that a reserved package has failed. `clock` is a fault of this machine, not of the package. */
export type PackageFault =
  "encoding" | "reference" | "identity" | "lifetime" | "ciphersuite" | "validity" | "clock" | "directory";

function isWithin({ notBefore, notAfter }: { notBefore: bigint; notAfter: bigint }, nowS: number): boolean {
  const now = BigInt(Math.floor(nowS));
  return notBefore <= now && now < notAfter;
}

/** A leaf of a group or of a package: the name it claims, and its signature key. */
export interface Leaf {
  /** The text of its Basic credential; `undefined` for another credential. */
  claims: string | undefined;
  /** The bytes of its credential, base64. */
  credential: string;
  /** The signature key, base64url without padding. */
  key: string;
}

/** The claims of a leaf. */
export function leafOf({ credential, signaturePublicKey }: LeafNode): Leaf {
  const isBasic = credential.credentialType === "basic" && "identity" in credential;
  return {
    claims: isBasic ? textOf(credential.identity) : undefined,
    credential: toBase64(encodeCredential(credential)),
    key: toBase64Url(signaturePublicKey),
  };
}

/** The leaves of a group by index. */
export function leavesOf(state: Pick<ClientState, "ratchetTree">): Map<number, Leaf> {
  const leaves = new Map<number, Leaf>();
  state.ratchetTree.forEach((node, at) => {
    if (node?.nodeType === "leaf") {
      leaves.set(at / 2, leafOf(node.leaf));
    }
  });
  return leaves;
}

/** Encodes a group's state for the store. */
export function stateText(state: ClientState): string {
  return toBase64(encodeGroupState(state));
}

/** Decodes a group's state from the store; throws an `Error` if it is damaged. */
export function stateOf(text: string): ClientState {
  const state = wholly(decodeGroupState, fromBase64(text));
  if (state === undefined) {
    throw new Error("no state of a group");
  }
  return { ...state, clientConfig: defaultClientConfig };
}

/** Makes the state of a group with one member: a package of this device that nobody else has. */
export async function newGroup(id: Bytes, stored: StoredPackage, key: DeviceKey): Promise<ClientState> {
  const { publicPackage, privatePackage } = both(stored, key);
  return createGroup(id, publicPackage, privatePackage, [], await suite());
}

/** Joins a group by the package a Welcome is for. Throws an `MlsError`. */
export async function joined(welcome: Welcome, stored: StoredPackage, key: DeviceKey): Promise<ClientState> {
  const { publicPackage, privatePackage } = both(stored, key);
  return joinGroup(welcome, publicPackage, privatePackage, emptyPskIndex, await suite());
}

function both(stored: StoredPackage, key: DeviceKey): { publicPackage: KeyPackage; privatePackage: PrivateKeyPackage } {
  const publicPackage = readPackage(fromBase64(stored.keyPackage));
  if (publicPackage === undefined) {
    throw new Error("no package");
  }
  const [initPrivateKey, hpkePrivateKey] = [fromBase64(stored.initKey), fromBase64(stored.leafKey)];
  return { publicPackage, privatePackage: { initPrivateKey, hpkePrivateKey, signaturePrivateKey: key.secret } };
}

/**
 * The leaf that a sealed message names as its sender. It is the sender's once the message was opened: ts-mls checks the
 * signature by the key of this leaf, and does not say which one it was.
 */
export async function senderOf(message: PrivateMessage, state: ClientState): Promise<Leaf | undefined> {
  const isPast = message.epoch < state.groupContext.epoch;
  const past = isPast ? state.historicalReceiverData.get(message.epoch) : undefined;
  const secret = isPast ? past?.senderDataSecret : state.keySchedule.senderDataSecret;
  if (secret === undefined) {
    return undefined;
  }
  const data = await decryptSenderData(message, secret, await suite());
  return data === undefined ? undefined : leavesOf(past ?? state).get(data.leafIndex);
}
