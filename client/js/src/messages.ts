// Messages and the other calls of a member of a group.

import { createApplicationMessage, createProposal } from "ts-mls";

import { utf8 } from "./bytes.js";
import { commitChange, removals, updateKeys } from "./commits.js";
import { groupName, recordOf, writableGroup, type Context, type GroupRecord } from "./context.js";
import { hasCode, KeypoolError } from "./errors.js";
import { receiveWaiting } from "./mailbox.js";
import { groupSuite, leavesOf, messageBytes, stateText, type ClientState } from "./mls.js";
import { flushOutbox, putIntoOutbox } from "./outbox.js";
import { judge, type Member } from "./peers.js";
import { Staged } from "./store.js";

/** The outcome of sending a message. */
export interface Sent {
  /** Whether the message waits in the outbox, because the server did not answer: the next call sends it. */
  queued: boolean;
  /** Members whose mailboxes had no room for the message: tell the user. */
  notKept: string[];
}

/** How many bytes a message may have. */
export const MESSAGE_BYTES_MAX = 1_500_000;
// How often a Commit is made again after another member was faster.
const ROUNDS_MAX = 3;

/** Seals a message and posts it. Throws a `KeypoolError`. */
export async function send(context: Context, group: string, content: string | Uint8Array): Promise<Sent> {
  const bytes = typeof content === "string" ? utf8(content) : content;
  if (bytes.length > MESSAGE_BYTES_MAX) {
    const fact = `a message has ${bytes.length} bytes, and may have ${MESSAGE_BYTES_MAX}`;
    throw new KeypoolError("invalid_argument", fact, "Send it in parts, or send a link to it.");
  }
  await commitProposals(context, group);
  const staged = new Staged(context.store);
  const { record, state } = await writableGroup(staged, group);
  await refuseUntrusted(staged, record, state);
  const { newState, privateMessage } = await createApplicationMessage(state, bytes, await groupSuite(state));
  staged.put(recordOf("group", group), { ...record, state: stateText(newState) });
  const sealed = messageBytes({ version: "mls10", wireformat: "mls_private_message", privateMessage });
  const name = await putIntoOutbox(staged, group, sealed);
  await staged.commit();
  try {
    const posted = await flushOutbox(context, name);
    return { queued: false, notKept: posted?.not_kept ?? [] };
  } catch (error) {
    if (error instanceof KeypoolError && (await context.store.get(name)) !== undefined) {
      return { queued: true, notKept: [] };
    }
    throw error;
  }
}

// MLS seals nothing while proposals wait (RFC 9420 section 12.4): they are committed first.
async function commitProposals(context: Context, group: string): Promise<void> {
  const { state } = await writableGroup(new Staged(context.store), group);
  if (Object.keys(state.unappliedProposals).length > 0) {
    await committed(context, () => updateKeys(context, group));
  }
}

// Makes a Commit; if another member's was faster, takes in that one first.
async function committed(context: Context, commit: () => Promise<void>): Promise<void> {
  for (let round = 1; ; round += 1) {
    try {
      return await commit();
    } catch (error) {
      if (!hasCode(error, "epoch_taken") || round === ROUNDS_MAX) {
        throw error;
      }
      await receiveWaiting(context);
    }
  }
}

async function refuseUntrusted(staged: Staged, record: GroupRecord, state: ClientState): Promise<void> {
  const leaves = [...leavesOf(state).values()].filter(({ key }) => !record.accepted.includes(key));
  const members = await Promise.all(leaves.map((leaf) => judge(staged, leaf)));
  const untrusted = members.filter(({ trust }) => trust === "contradicts").map(({ name }) => name);
  if (untrusted.length > 0) {
    throw new KeypoolError(
      "untrusted_members",
      `in ${groupName(record.id)} the key of ${untrusted.join(", ")} is not the one of the directory`,
      "Remove the member, or ask the person in another way and then call acceptMembers.",
    );
  }
}

/** Notes that the app accepts the keys of all members of a group, also of those that contradict the directory. */
export async function acceptMembers(context: Context, group: string): Promise<void> {
  const staged = new Staged(context.store);
  const { record, state } = await writableGroup(staged, group);
  const accepted = [...leavesOf(state).values()].map(({ key }) => key);
  staged.put(recordOf("group", group), { ...record, accepted });
  await staged.commit();
}

/** The members of a group. */
export async function membersOf(staged: Staged, state: ClientState): Promise<Member[]> {
  return Promise.all([...leavesOf(state).values()].map((leaf) => judge(staged, leaf)));
}

/** Removes members by a Commit. Throws `invalid_argument` if none of the names is a member. */
export function remove(context: Context, group: string, names: string[]): Promise<void> {
  return committed(context, async () => {
    const staged = new Staged(context.store);
    const { state } = await writableGroup(staged, group);
    const proposals = await removals(staged, state, names);
    if (proposals.length === 0) {
      const fact = `none of ${names.join(", ")} is another member of ${groupName(group)}`;
      throw new KeypoolError("invalid_argument", fact, "members() lists the members.");
    }
    await commitChange(context, group, { proposals });
  });
}

/** Replaces the keys of the leaf in those groups where it still has the keys of its package. */
export async function freshenKeys(context: Context): Promise<void> {
  for (const name of await context.store.list("group/")) {
    const record = await new Staged(context.store).get<GroupRecord>(name);
    if (record?.active && record.needsFreshKeys && !record.readOnly) {
      await freshen(context, record.id);
    }
  }
}

// After another member's Commit the next sync tries again, when its effect is taken in.
async function freshen(context: Context, group: string): Promise<void> {
  try {
    await updateKeys(context, group);
  } catch (error) {
    if (!hasCode(error, "epoch_taken", "rate_limited")) {
      throw error;
    }
  }
}

/** Leaves a group: proposes the removal, and ends the membership here and at the server. */
export async function leave(context: Context, group: string): Promise<void> {
  const staged = new Staged(context.store);
  const { record, state } = await writableGroup(staged, group);
  if (leavesOf(state).size > 1) {
    const removed = state.privatePath.leafIndex;
    const proposal = { proposalType: "remove" as const, remove: { removed } };
    const { message } = await createProposal(state, false, proposal, await groupSuite(state));
    await putIntoOutbox(staged, group, messageBytes(message));
  }
  staged.put(recordOf("group", group), { ...record, state: "", active: false });
  staged.put(recordOf("leaving", group), group);
  await staged.commit();
  await finishLeaving(context);
}

/** Ends the memberships at the server that are over here. */
export async function finishLeaving(context: Context): Promise<void> {
  const names = await context.store.list("leaving/");
  if (names.length > 0) {
    await flushOutbox(context);
  }
  for (const name of names) {
    const staged = new Staged(context.store);
    const group = (await staged.get<string>(name)) as string;
    await context.server.post("/groups/{group_id}/leave", {}, { group });
    staged.delete(name);
    await staged.commit();
  }
}
