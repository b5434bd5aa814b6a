// Commits: made, stored, posted, and merged once the server has taken them.

import type { CreateCommitResult, Proposal } from "ts-mls";

import { toBase64Url } from "./bytes.js";
import { groupName, isFinal, keepEvent, notePosted, recordOf, writableGroup } from "./context.js";
import type { Context, GroupRecord } from "./context.js";
import { KeypoolError } from "./errors.js";
import type { Invited } from "./events.js";
import { declareLeafKey, leafKeyOf, type LeafKey } from "./leaf-keys.js";
import {
  ciphersuiteOf,
  isSignedBy,
  leavesOf,
  makeCommit,
  messageBytes,
  ownLeafNode,
  stateOf,
  stateText,
} from "./mls.js";
import type { ClientState } from "./mls.js";
import { judge } from "./peers.js";
import { freshKey, type Body } from "./server.js";
import { Staged } from "./store.js";

type CommitBody = Body<"/groups/{group_id}/commits">;

/** A claim on a reserved package. */
export interface Claim {
  keypackage_ref: string;
  reservation_id: string;
}

/** A Commit that the server may or may not have. */
export interface PendingCommit {
  group: string;
  /** The idempotency key: the same request again has the first answer. */
  key: string;
  body: CommitBody;
  /** The state of MLS behind the Commit, base64. */
  state: string;
  /** The invitation that it ends. */
  invited?: Invited;
}

/** A change of a group. */
export interface GroupChange {
  proposals: Proposal[];
  /** The packages that it uses up, one for each Add. */
  spend?: Claim[];
  invited?: Invited;
}

/**
 * Makes a Commit with the proposals of others that wait, and posts it. Throws the refusal of the server, after which
 * the group is as it was, or an error by which it is not known whether the server has it: `resumeCommits` goes on then.
 */
export async function commitChange(context: Context, group: string, change: GroupChange): Promise<void> {
  const staged = new Staged(context.store);
  if ((await staged.get(recordOf("commit", group))) !== undefined) {
    throw new KeypoolError(
      "commit_pending",
      `a Commit of ${groupName(group)} waits for its answer`,
      "Call sync first.",
    );
  }
  const pending = await prepared(context, staged, group, change);
  staged.put(recordOf("commit", group), pending);
  await staged.commit();
  await post(context, pending, false);
}

async function prepared(context: Context, staged: Staged, group: string, change: GroupChange): Promise<PendingCommit> {
  const { state } = await writableGroup(staged, group);
  const leafKey = await leafKeyOf(staged, context.key, ciphersuiteOf(state));
  const made = await created(state, change, leafKey, group);
  const removed = await removedNames(staged, state, made.newState);
  const body: CommitBody = {
    epoch: Number(state.groupContext.epoch),
    commit: messageBytes(made.commit),
    ...(made.welcome === undefined ? {} : { welcomes: [welcomeBytes(made.welcome)] }),
    ...(change.spend === undefined ? {} : { spend: change.spend }),
    ...(removed.length > 0 ? { removed } : {}),
  };
  const invited = change.invited === undefined ? {} : { invited: change.invited };
  return { group, key: freshKey(), body, state: stateText(made.newState), ...invited };
}

async function created(state: ClientState, { proposals }: GroupChange, leafKey: LeafKey, group: string) {
  try {
    return await makeCommit(state, proposals, leafKey);
  } catch (cause) {
    const fact = `MLS does not allow this change of ${groupName(group)}: ${(cause as Error).message}`;
    throw new KeypoolError("invalid_argument", fact, "Leave out the members that are the reason.", { cause });
  }
}

function welcomeBytes(welcome: NonNullable<CreateCommitResult["welcome"]>): string {
  return messageBytes({ version: "mls10", wireformat: "mls_welcome", welcome });
}

async function removedNames(staged: Staged, before: ClientState, after: ClientState): Promise<string[]> {
  const left = leavesOf(after);
  const gone = [...leavesOf(before)].filter(([index]) => !left.has(index));
  const members = await Promise.all(gone.map(([, leaf]) => judge(staged, leaf)));
  return members.map(({ name }) => name).filter((name) => name.includes("/"));
}

// Posts a Commit, and writes what came of it. `late` says that nobody waits for the outcome any more.
async function post(context: Context, pending: PendingCommit, late: boolean): Promise<void> {
  const { group, key, body, invited } = pending;
  // The other members hold this device's leaf to the keys that the directory has.
  await declareLeafKey(context);
  try {
    const { position } = await context.server.post("/groups/{group_id}/commits", body, { key, group });
    await merge(context, pending, position, late);
  } catch (error) {
    if (!isFinal(error)) {
      throw error;
    }
    const staged = new Staged(context.store);
    staged.delete(recordOf("commit", group));
    if (late && invited !== undefined) {
      staged.delete(recordOf("invitation", group));
      const names = invited.invited.map(({ device }) => device);
      await keepEvent(staged, { kind: "notInvited", group, names, code: error.code, message: error.message });
    }
    await staged.commit();
    if (late) {
      await release(context, body.spend ?? []);
    } else {
      throw error;
    }
  }
}

async function merge(context: Context, pending: PendingCommit, position: number, late: boolean): Promise<void> {
  const { group, state, body, invited } = pending;
  const staged = new Staged(context.store);
  const record = (await staged.get<GroupRecord>(recordOf("group", group))) as GroupRecord;
  const needsFreshKeys = await hasOldKeys(context, staged, record, stateOf(state));
  const merged = { ...record, state, epoch: Number(body.epoch) + 1, needsFreshKeys };
  staged.put(recordOf("group", group), merged);
  staged.delete(recordOf("commit", group));
  await notePosted(staged, position);
  if (invited !== undefined) {
    staged.delete(recordOf("invitation", group));
    if (late) {
      await keepEvent(staged, { kind: "invited", ...invited });
    }
  }
  await staged.commit();
}

// Whether a leaf has the keys of its package, which were public for days, or the signature of a key that was replaced.
async function hasOldKeys(
  { key }: Context,
  staged: Staged,
  { needsFreshKeys }: GroupRecord,
  state: ClientState,
): Promise<boolean> {
  const isOfPackage = ownLeafNode(state).leafNodeSource === "key_package";
  return (needsFreshKeys && isOfPackage) || !isSignedBy(state, await leafKeyOf(staged, key, ciphersuiteOf(state)));
}

/** Posts the Commits again whose outcome a crash or a lost answer has left open. Throws if it stays open. */
export async function resumeCommits(context: Context): Promise<void> {
  const staged = new Staged(context.store);
  for (const name of await staged.list("commit/")) {
    await post(context, (await staged.get<PendingCommit>(name)) as PendingCommit, true);
  }
}

/** Gives reserved packages back. A reservation that cannot be released lapses by itself in two minutes. */
export async function release(context: Context, claims: Claim[]): Promise<void> {
  await Promise.allSettled(claims.map((claim) => context.server.post("/keypackages/release", claim)));
}

/** Replaces the keys of this device's leaf by a Commit. */
export function updateKeys(context: Context, group: string): Promise<void> {
  return commitChange(context, group, { proposals: [] });
}

/** The proposals that remove members, each named `user/device`, or `user` for all of the user's devices. */
export async function removals(staged: Staged, state: ClientState, names: string[]): Promise<Proposal[]> {
  const proposals: Proposal[] = [];
  for (const [removed, leaf] of leavesOf(state)) {
    const { name } = await judge(staged, leaf);
    const isNamed = names.includes(name) || names.includes(name.split("/")[0] as string);
    if (isNamed && removed !== state.privatePath.leafIndex) {
      proposals.push({ proposalType: "remove", remove: { removed } });
    }
  }
  return proposals;
}

/** The record of a group that this device is a member of from now on. */
export function joinedGroup(state: ClientState, needsFreshKeys: boolean): GroupRecord {
  return {
    id: toBase64Url(state.groupContext.groupId),
    state: stateText(state),
    epoch: Number(state.groupContext.epoch),
    active: true,
    needsFreshKeys,
    readOnly: false,
    accepted: [],
  };
}
