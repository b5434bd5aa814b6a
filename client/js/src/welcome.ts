// Welcomes: opened by the package they are for, and held to the directory.

import { blake3 } from "@noble/hashes/blake3.js";
import { decryptGroupInfo, decryptGroupSecrets } from "ts-mls/welcome.js";

import { fromBase64, toBase64Url, toHex } from "./bytes.js";
import { joinedGroup } from "./commits.js";
import { recordOf, type Context, type GroupRecord } from "./context.js";
import { Unopenable, type Effect } from "./effect.js";
import { groupSuite, joined, leavesOf } from "./mls.js";
import type { ClientState, Leaf, MLSMessage, StoredPackage, Welcome } from "./mls.js";
import { judge, lookUpNew } from "./peers.js";
import type { Staged } from "./store.js";

/**
 * Joins the group of a Welcome, as part of an operation. Throws `Unopenable` or an `MlsError` if it can never be
 * opened, and a `KeypoolError` if the directory does not answer.
 */
export async function openWelcome(
  context: Context,
  staged: Staged,
  message: MLSMessage,
  group: string,
): Promise<Effect> {
  if (message.wireformat !== "mls_welcome") {
    throw new Unopenable("unreadable", "the message is no Welcome");
  }
  const { welcome } = message;
  const [reference, stored] = await packageFor(staged, welcome);
  const digest = toHex(blake3(welcome.encryptedGroupInfo));
  if (stored.joined?.includes(digest)) {
    throw new Unopenable("unreadable", "the Welcome was used before");
  }
  const state = await joined(welcome, stored, context.key.secret);
  await refuseOther(staged, state, group);
  const leaves = leavesOf(state);
  await lookUpNew(staged, context.server, [...leaves.values()], context.clock.nowMs());
  const inviter = await judge(staged, leaves.get(await signerOf(welcome, reference, stored, state)) as Leaf);
  if (inviter.trust === "contradicts") {
    return { events: [{ kind: "invitationRefused", group, inviter }], failed: "untrusted" };
  }
  const members = await Promise.all([...leaves.values()].map((leaf) => judge(staged, leaf)));
  staged.put(recordOf("group", group), joinedGroup(state, true));
  useUp(context, staged, reference, stored, digest);
  return { events: [{ kind: "joined", group, inviter, members, reference }], accepted: true };
}

async function refuseOther(staged: Staged, { groupContext }: ClientState, group: string): Promise<void> {
  const before = await staged.get<GroupRecord>(recordOf("group", group));
  const isKnown = before?.active === true && groupContext.epoch <= before.epoch;
  if (isKnown || toBase64Url(groupContext.groupId) !== group) {
    throw new Unopenable("unreadable", "the Welcome is for another group or an earlier epoch than the server says");
  }
}

async function packageFor(staged: Staged, welcome: Welcome): Promise<[string, StoredPackage]> {
  for (const { newMember } of welcome.secrets) {
    const reference = toHex(newMember);
    const stored = await staged.get<StoredPackage>(`package/${reference}`);
    if (stored !== undefined) {
      return [reference, stored];
    }
  }
  throw new Unopenable("keys_gone", "this device has no private keys of the Welcome's packages");
}

// The private keys go in the same write as the group comes. Those of a last resort stay for others on their way.
function useUp(context: Context, staged: Staged, reference: string, stored: StoredPackage, digest: string): void {
  if (stored.lastResort) {
    const usedAtS = stored.usedAtS ?? context.clock.nowS();
    staged.put(`package/${reference}`, { ...stored, usedAtS, joined: [...(stored.joined ?? []), digest] });
  } else {
    staged.delete(`package/${reference}`);
  }
}

// The leaf that has signed a Welcome's group: ts-mls has checked the signature, and does not say whose it is.
async function signerOf(
  welcome: Welcome,
  reference: string,
  stored: StoredPackage,
  state: ClientState,
): Promise<number> {
  const impl = await groupSuite(state);
  const key = await impl.hpke.importPrivateKey(fromBase64(stored.initKey));
  const ref = Uint8Array.from(reference.match(/../g) ?? [], (digits) => parseInt(digits, 16));
  const secrets = await decryptGroupSecrets(key, ref, welcome, impl.hpke);
  const info = secrets && (await decryptGroupInfo(welcome, secrets.joinerSecret, new Uint8Array(impl.kdf.size), impl));
  if (info === undefined) {
    throw new Unopenable("unreadable", "the Welcome names no signer");
  }
  return info.signer;
}
