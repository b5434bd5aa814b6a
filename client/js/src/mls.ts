// MLS by ts-mls: packages, group states, Commits and messages, to and from bytes.

import {
  createCommit,
  createGroup,
  decodeGroupState,
  decodeMlsMessage,
  emptyPskIndex,
  encodeGroupState,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  joinGroup,
  type CiphersuiteImpl,
  type ClientState,
  type CreateCommitResult,
  type Extension,
  type KeyPackage,
  type LeafNode,
  type MLSMessage,
  type PrivateKeyPackage,
  type PrivateMessage,
  type Proposal,
  type Welcome,
} from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { encodeCredential } from "ts-mls/credential.js";
import { decodeKeyPackage, encodeKeyPackage, makeKeyPackageRef, verifyKeyPackage } from "ts-mls/keyPackage.js";
import { verifyLeafNodeSignatureKeyPackage } from "ts-mls/leafNode.js";
import { decryptSenderData } from "ts-mls/privateMessage.js";

import { equal, fromBase64, textOf, toBase64, toBase64Url, toHex, utf8, type Bytes } from "./bytes.js";
import { LAST_RESORT, listed, type Capabilities } from "./capabilities.js";
import type { LeafKey } from "./leaf-keys.js";
import { suiteName, suiteNumber, suiteOf, type Ciphersuite } from "./suites.js";

export type { ClientState, KeyPackage, MLSMessage, Welcome };

/** The implementation of a group's ciphersuite. Throws an `Error` for a ciphersuite that no device of this library uses. */
export function groupSuite({ groupContext }: Pick<ClientState, "groupContext">): Promise<CiphersuiteImpl> {
  return suiteOf(groupContext.cipherSuite);
}

/** The number of a group's ciphersuite. Throws an `Error` for one that no device of this library uses. */
export function ciphersuiteOf({ groupContext }: Pick<ClientState, "groupContext">): Ciphersuite {
  const ciphersuite = suiteNumber(groupContext.cipherSuite);
  if (ciphersuite === undefined) {
    throw new Error(`the group has the ciphersuite ${groupContext.cipherSuite}`);
  }
  return ciphersuite;
}

/** A package and its private keys, as the store has them. */
export interface StoredPackage {
  /** The bytes of the package, base64. */
  keyPackage: string;
  /** The private keys: of the Welcome, and of the leaf, base64. */
  initKey: string;
  leafKey: string;
  /** The private key that has signed it, base64; the device's if it is left out. */
  signatureKey?: string;
  /** The number of its ciphersuite; 1 if it is left out. */
  ciphersuite?: Ciphersuite;
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

/** The shape of a package to make. */
export interface PackageShape {
  ciphersuite: Ciphersuite;
  lastResort: boolean;
}

/** The owner of a package to make. */
export interface PackageOwner {
  /** `user/device`. */
  name: string;
  /** The key that signs the package. */
  leafKey: LeafKey;
  capabilities: Capabilities;
}

/** Makes a package with a lifetime in Unix seconds. Returns it under its reference. */
export async function makePackage(
  { name, leafKey, capabilities }: PackageOwner,
  { ciphersuite, lastResort }: PackageShape,
  { notBeforeS, notAfterS, madeAtS }: { notBeforeS: number; notAfterS: number; madeAtS: number },
): Promise<[string, StoredPackage]> {
  const marks = lastResort ? [{ extensionType: LAST_RESORT, extensionData: new Uint8Array() }] : [];
  const { publicPackage, privatePackage } = await generateKeyPackageWithKey(
    { credentialType: "basic", identity: utf8(name) },
    listed(capabilities),
    { notBefore: BigInt(notBeforeS), notAfter: BigInt(notAfterS) },
    marks,
    { signKey: leafKey.secret, publicKey: leafKey.publicKey },
    await suiteOf(suiteName(ciphersuite)),
  );
  const stored = {
    keyPackage: toBase64(encodeKeyPackage(publicPackage)),
    initKey: toBase64(privatePackage.initPrivateKey),
    leafKey: toBase64(privatePackage.hpkePrivateKey),
    signatureKey: toBase64(leafKey.secret),
    ciphersuite,
    notAfterS,
    madeAtS,
    lastResort,
    uploaded: false,
  };
  return [await referenceOf(publicPackage), stored];
}

/** The reference of a package (RFC 9420 section 5.2), hexadecimal. Throws an `Error` for an unknown ciphersuite. */
export async function referenceOf(keyPackage: KeyPackage): Promise<string> {
  return toHex(await makeKeyPackageRef(keyPackage, (await suiteOf(keyPackage.cipherSuite)).hash));
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
  const { signature } = await suiteOf(keyPackage.cipherSuite);
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
export async function newGroup(id: Bytes, stored: StoredPackage, extensions: Extension[]): Promise<ClientState> {
  const { publicPackage, privatePackage } = both(stored);
  return createGroup(id, publicPackage, privatePackage, extensions, await suiteOf(publicPackage.cipherSuite));
}

/**
 * Joins a group by the package a Welcome is for. `secret` is the device's private key. Throws an `Error` if it can
 * never be opened.
 */
export async function joined(welcome: Welcome, stored: StoredPackage, secret: Bytes): Promise<ClientState> {
  const { publicPackage, privatePackage } = both(stored, secret);
  return joinGroup(welcome, publicPackage, privatePackage, emptyPskIndex, await suiteOf(publicPackage.cipherSuite));
}

function both(stored: StoredPackage, secret?: Bytes): { publicPackage: KeyPackage; privatePackage: PrivateKeyPackage } {
  const publicPackage = readPackage(fromBase64(stored.keyPackage));
  const signaturePrivateKey = stored.signatureKey === undefined ? secret : fromBase64(stored.signatureKey);
  if (publicPackage === undefined || signaturePrivateKey === undefined) {
    throw new Error("no package");
  }
  const [initPrivateKey, hpkePrivateKey] = [fromBase64(stored.initKey), fromBase64(stored.leafKey)];
  return { publicPackage, privatePackage: { initPrivateKey, hpkePrivateKey, signaturePrivateKey } };
}

/** The leaf of this device in a group. */
export function ownLeafNode({ ratchetTree, privatePath }: ClientState): LeafNode {
  const node = ratchetTree[2 * privatePath.leafIndex];
  if (node?.nodeType !== "leaf") {
    throw new Error("this device has no leaf");
  }
  return node.leaf;
}

/** Whether the leaf of this device in a group is signed by a key. */
export function isSignedBy(state: ClientState, { publicKey }: LeafKey): boolean {
  return equal(ownLeafNode(state).signaturePublicKey, publicKey);
}

// The begin of the bytes that the sender of a Commit signs: the length of the label, and the label.
const FRAMING = utf8("\u0018MLS 1.0 FramedContentTBS");

/**
 * Makes a Commit. If it replaces the keys of this device's leaf, the new leaf is signed by `leafKey`. Throws an `Error`
 * if MLS does not allow it.
 */
export async function makeCommit(
  state: ClientState,
  proposals: Proposal[],
  leafKey: LeafKey,
): Promise<CreateCommitResult> {
  const cipherSuite = await groupSuite(state);
  const options = { extraProposals: proposals, ratchetTreeExtension: true };
  if (isSignedBy(state, leafKey) || !replacesKeys(state, proposals)) {
    return createCommit({ state, cipherSuite, pskIndex: emptyPskIndex }, options);
  }
  // ts-mls takes the signature key of the new leaf from the leaf before, and signs everything with one key. So it is
  // given a leaf that has the new key already. The Commit itself is signed by the leaf that the others know
  // (RFC 9420 section 6.1), the rest by the new one.
  const own = 2 * state.privatePath.leafIndex;
  const leaf = { ...ownLeafNode(state), signaturePublicKey: leafKey.publicKey };
  const ratchetTree = state.ratchetTree.with(own, { nodeType: "leaf", leaf });
  const { sign } = cipherSuite.signature;
  const signature = {
    ...cipherSuite.signature,
    sign: (before: Uint8Array, bytes: Uint8Array) =>
      sign(equal(bytes.subarray(0, FRAMING.length), FRAMING) ? before : leafKey.secret, bytes),
  };
  const context = { state: { ...state, ratchetTree }, cipherSuite: { ...cipherSuite, signature } };
  const made = await createCommit({ ...context, pskIndex: emptyPskIndex }, options);
  const { epoch } = state.groupContext;
  const past = made.newState.historicalReceiverData.get(epoch);
  const historicalReceiverData = new Map(made.newState.historicalReceiverData);
  if (past !== undefined) {
    historicalReceiverData.set(epoch, { ...past, ratchetTree: state.ratchetTree });
  }
  return { ...made, newState: { ...made.newState, historicalReceiverData, signaturePrivateKey: leafKey.secret } };
}

// Whether a Commit with these proposals and those that wait has a path (RFC 9420 section 12.4), as ts-mls decides it.
function replacesKeys({ unappliedProposals }: ClientState, proposals: Proposal[]): boolean {
  const all = [...proposals, ...Object.values(unappliedProposals).map(({ proposal }) => proposal)];
  return all.length === 0 || all.some(({ proposalType }) => proposalType === "update" || proposalType === "remove");
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
  const data = await decryptSenderData(message, secret, await groupSuite(state));
  return data === undefined ? undefined : leavesOf(past ?? state).get(data.leafIndex);
}
