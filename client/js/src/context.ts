// The context that the parts of a device share, and the records of the store.

import { blake3 } from "@noble/hashes/blake3.js";

import { fromBase64, fromBase64Url, textOf, toBase64, toBase64Url, toHex } from "./bytes.js";
import type { Capabilities } from "./capabilities.js";
import type { ServerClock } from "./clock.js";
import { hasCode, KeypoolError } from "./errors.js";
import { eventToStore, type DeviceEvent } from "./events.js";
import { stateOf, type ClientState } from "./mls.js";
import type { Server } from "./server.js";
import type { DeviceKey } from "./signing.js";
import { damaged, Staged, type Store } from "./store.js";

/** The context that the parts of a device share. */
export interface Context {
  readonly store: Store;
  /** The server, to which the device's key speaks. */
  server: Server;
  /** The key of the device. Another one takes its place by `useKey`. */
  key: DeviceKey;
  readonly capabilities: Capabilities;
  readonly clock: ServerClock;
  readonly user: string;
  /** `user/device`. */
  readonly name: string;
}

/** A group in the store. `id` is base64url of its bytes, as everywhere in this library. */
export interface GroupRecord {
  id: string;
  /** The state of MLS, base64; empty once this device is no member any more. */
  state: string;
  epoch: number;
  /** Whether this device is a member. */
  active: boolean;
  /** Whether the leaf still has the keys of its package, which were public for days. */
  needsFreshKeys: boolean;
  /** Whether the store was found to be an older copy of itself: nothing is sealed in this group any more. */
  readOnly: boolean;
  /** The keys of members that contradict the directory, and that the app has accepted. */
  accepted: string[];
}

/** The mailbox in the store: how far it was read, and what the next acknowledgement says. */
export interface MailboxRecord {
  /** The position of the last item whose effect is stored. */
  read: number;
  /** The position up to which the server was told. */
  acknowledged: number;
  /** The position of the last Commit or message that this device has posted. */
  lastPosted: number;
  /** Groups as the server has them: base64 of their bytes. */
  accepted: string[];
  failed: { group_id: string; reason: "keys_gone" | "expired" | "unreadable" | "untrusted" }[];
  told: string[];
  available: string[];
}

/** Lets the device speak with another key. */
export function useKey(context: Context, key: DeviceKey): void {
  context.key = key;
  context.server = context.server.withKey(key);
}

const NO_MAIL: MailboxRecord = {
  read: 0,
  acknowledged: 0,
  lastPosted: 0,
  accepted: [],
  failed: [],
  told: [],
  available: [],
};
const SEQUENCE_DIGITS = 12;

/** The mailbox, as an operation has it. */
export async function mailboxOf(staged: Staged): Promise<MailboxRecord> {
  return { ...structuredClone(NO_MAIL), ...(await staged.get<MailboxRecord>("mailbox")) };
}

/** The name of a record of a group. Ids are the choice of others, and may be long. */
export function recordOf(kind: "group" | "commit" | "invitation" | "making" | "leaving", id: string): string {
  return `${kind}/${toHex(blake3(fromBase64Url(id)).slice(0, 16))}`;
}

/** A group's id as the bodies of requests have it. */
export function idInBody(id: string): string {
  return toBase64(fromBase64Url(id));
}

/** A group's id from the body of an answer. */
export function idOfBody(text: string): string {
  return toBase64Url(fromBase64(text));
}

/** The name of a group for people: the text of its id, without the random part of this library and of the chat. */
export function groupName(id: string): string {
  return textOf(fromBase64Url(id))?.replace(/~[0-9a-f]{16}$/, "") ?? id;
}

/** A group that this device is a member of, with its state. Throws a `KeypoolError` with the code `unknown_here`. */
export async function memberGroup(staged: Staged, id: string): Promise<{ record: GroupRecord; state: ClientState }> {
  const name = /^[A-Za-z0-9_-]+$/.test(id) ? recordOf("group", id) : undefined;
  const record = name === undefined ? undefined : await staged.get<GroupRecord>(name);
  if (name === undefined || record === undefined || !record.active) {
    const hint = "Take an id from groups(); after a removal, have a member invite this device again.";
    throw new KeypoolError("unknown_here", `this device is no member of the group ${id}`, hint);
  }
  try {
    return { record, state: stateOf(record.state) };
  } catch (cause) {
    throw damaged(name, cause);
  }
}

/** As `memberGroup`, to seal something: throws `store_set_back` where a key could be used twice. */
export async function writableGroup(staged: Staged, id: string): ReturnType<typeof memberGroup> {
  const group = await memberGroup(staged, id);
  if (group.record.readOnly) {
    throw new KeypoolError(
      "store_set_back",
      `the store of this device is an older copy of itself, so ${groupName(id)} may only be read`,
      "Have this device removed from the group and invited again.",
    );
  }
  return group;
}

/** The groups of this device, also those that it is no member of any more. */
export async function groupRecords(staged: Staged): Promise<GroupRecord[]> {
  const names = await staged.list("group/");
  const records = await Promise.all(names.map((name) => staged.get<GroupRecord>(name)));
  return records.filter((record) => record !== undefined);
}

/** Draws the next number of a record that is kept in order. */
export async function nextName(staged: Staged, kind: "event" | "outbox"): Promise<string> {
  const number = ((await staged.get<number>("sequence")) ?? 0) + 1;
  staged.put("sequence", number);
  return `${kind}/${String(number).padStart(SEQUENCE_DIGITS, "0")}`;
}

/** Keeps an event until the app has seen it. */
export async function keepEvent(staged: Staged, event: DeviceEvent): Promise<void> {
  staged.put(await nextName(staged, "event"), eventToStore(event));
}

/** Notes the position of a Commit or message that the server has taken. */
export async function notePosted(staged: Staged, position: number): Promise<void> {
  const mailbox = await mailboxOf(staged);
  if (position > mailbox.lastPosted) {
    staged.put("mailbox", { ...mailbox, lastPosted: position });
  }
}

/**
 * Whether a refusal is the last word on a request: nothing was done, and nothing will be. A suspended caller is refused
 * before the server looks whether the request was carried out, and may be unblocked.
 */
export function isFinal(error: unknown): error is KeypoolError {
  const status = error instanceof KeypoolError ? (error.status ?? 0) : 0;
  const isRefusal = status >= 400 && status < 500 && status !== 408 && status !== 425;
  return isRefusal && !hasCode(error, "unanswered", "suspended");
}
