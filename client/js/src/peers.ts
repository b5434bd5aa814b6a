// Other users' keys: pinned when they are seen first, and held to the chain that leads on from there.

import { adopt, ChainError, emptyList, follow, registered, type DeviceList, type ListedDevice } from "./directory.js";
import type { Leaf } from "./mls.js";
import type { Reply, Server } from "./server.js";
import { safetyNumber } from "./safety-number.js";
import type { Staged } from "./store.js";

/** A user's keys, as this device knows them. */
export interface PeerRecord {
  list: DeviceList;
  /** When a person compared the safety number, in Unix milliseconds. */
  verifiedAtMs?: number;
  firstSeenMs: number;
  /** When the server was asked last. */
  fetchedAtMs: number;
  /** Why the server's list does not follow from the one that was seen before: nobody is invited by it. */
  doubt?: string;
}

/** A user's keys, for the app. */
export interface Peer {
  user: string;
  /** `changed`: the server names keys that do not follow from those seen before; `doubt` says why. */
  status: "first_seen" | "verified" | "changed";
  doubt?: string;
  /** The registered devices; `trusted` ones were introduced by keys of the user, or there at first sight. */
  devices: { device: string; key: string; trusted: boolean; since: Date }[];
}

/**
 * How far the key of a group's member is trusted as its user's: `contradicts` says that the directory has another one,
 * `removed` that its user has removed the device, `unchecked` that the user was never looked up.
 */
export type Trust = "verified" | "known" | "unchecked" | "removed" | "contradicts";

/** A member of a group, for the app. */
export interface Member {
  /** `user/device`, or the text of its credential where that names no device. */
  name: string;
  trust: Trust;
}

// How many users one request may name.
const USERS_MAX = 256;
// How often a server may say that there is more of a user's chain: 1,024 changes come in one answer.
const PARTS_MAX = 150;

// How old an answer of the directory may be: before a new leaf, and before one that does not fit.
const HOUR_MS = 3_600_000;
const LOOK_AGAIN_MS = 20_000;

const recordName = (user: string): string => `peer/${user}`;

/** The record of a user; `undefined` for one who was never looked up. */
export function peerRecord(staged: Staged, user: string): Promise<PeerRecord | undefined> {
  return staged.get<PeerRecord>(recordName(user));
}

/** Looks users up, and follows the chains of their devices from the known keys. Throws a `KeypoolError`. */
export async function lookUp(staged: Staged, server: Server, users: string[], nowMs: number): Promise<void> {
  const all = [...new Set(users)];
  for (let at = 0; at < all.length; at += USERS_MAX) {
    await lookUpSome(staged, server, all.slice(at, at + USERS_MAX), nowMs);
  }
}

type Shown = Reply<"/users/devices", "post">["users"][number];

async function lookUpSome(staged: Staged, server: Server, users: string[], nowMs: number): Promise<void> {
  const records = new Map<string, PeerRecord>();
  for (const user of users) {
    const fresh = { list: emptyList(user), firstSeenMs: nowMs, fetchedAtMs: nowMs };
    records.set(user, (await peerRecord(staged, user)) ?? fresh);
  }
  const { shown, ledgers } = await fetchParts(server, records);
  for (const [user, record] of records) {
    record.fetchedAtMs = nowMs;
    const parts = shown.get(user);
    if (parts !== undefined) {
      await followParts(record, parts, ledgers);
    } else if (record.list.position > 0) {
      record.doubt ??= `the server says that it does not know ${user}, whom it has shown before`;
    }
    if (record.list.position > 0 || record.doubt !== undefined) {
      staged.put(recordName(user), record);
    }
  }
}

async function fetchParts(server: Server, records: Map<string, PeerRecord>) {
  const shown = new Map<string, Shown[]>();
  let asked = [...records].map(([user, { list }]) => ({ user, after: list.position }));
  let ledgers: string[] = [];
  for (let part = 0; asked.length > 0 && part < PARTS_MAX; part += 1) {
    const reply = await server.post("/users/devices", { users: asked });
    ledgers = [...(reply.earlier_ledgers ?? []), reply.ledger];
    reply.users.forEach((one) => shown.set(one.user, [...(shown.get(one.user) ?? []), one]));
    asked = reply.users
      .filter((one) => one.more)
      .flatMap((one) => {
        const last = one.history?.at(-1) as { position: number } | undefined;
        return last === undefined ? [] : [{ user: one.user, after: last.position }];
      });
  }
  return { shown, ledgers };
}

async function followParts(record: PeerRecord, parts: Shown[], ledgers: string[]): Promise<void> {
  if (record.doubt !== undefined) {
    return;
  }
  const last = parts.at(-1) as Shown;
  const history = parts.flatMap((part) => part.history ?? []) as unknown as Parameters<typeof follow>[1]["history"];
  const before = record.list;
  try {
    const after = await follow(before, { head: last.head, position: last.position ?? 0, history }, ledgers);
    if (before.position === 0) {
      adopt(after);
    } else if (before.releases < after.releases) {
      record.doubt = "the server's operator has released the name: it may be another person";
      return;
    }
    record.list = after;
  } catch (error) {
    record.doubt = error instanceof ChainError ? error.message : "the server's list of devices cannot be read";
  }
}

/** Looks the users of leaves up who are new, or were not looked up within the hour. Throws a `KeypoolError`. */
export async function lookUpNew(staged: Staged, server: Server, leaves: Leaf[], nowMs: number): Promise<void> {
  const users: string[] = [];
  for (const user of new Set(leaves.map(userOf))) {
    const record = user === undefined ? undefined : await peerRecord(staged, user);
    if (user !== undefined && (record === undefined || record.fetchedAtMs + HOUR_MS < nowMs)) {
      users.push(user);
    }
  }
  if (users.length > 0) {
    await lookUp(staged, server, users, nowMs);
  }
}

/** Looks the users of leaves up whose keys the directory did not have when it was asked last. Throws a `KeypoolError`. */
export async function lookUpStrange(staged: Staged, server: Server, leaves: Leaf[], nowMs: number): Promise<void> {
  const members = await Promise.all(leaves.map((leaf) => judge(staged, leaf)));
  const strange = leaves.filter((_, at) => members[at]?.trust === "contradicts");
  const users = strange.map(userOf).filter((user) => user !== undefined);
  if (users.length > 0) {
    await lookUp(staged, server, users, nowMs);
  }
}

/**
 * Judges a leaf; one that does not fit is looked up again, because its device may have changed its key since. Throws a
 * `KeypoolError`.
 */
export async function judgeAgain(staged: Staged, server: Server, leaf: Leaf, nowMs: number): Promise<Member> {
  const member = await judge(staged, leaf);
  const user = userOf(leaf);
  if (user === undefined || (member.trust !== "contradicts" && member.trust !== "unchecked")) {
    return member;
  }
  if (((await peerRecord(staged, user))?.fetchedAtMs ?? 0) + LOOK_AGAIN_MS < nowMs) {
    await lookUp(staged, server, [user], nowMs);
  }
  return judge(staged, leaf);
}

/** Forgets a user's keys, so that the next look takes those of then as seen for the first time. */
export function forgetPeer(staged: Staged, user: string): void {
  staged.delete(recordName(user));
}

/** Notes that a person has compared the safety number. */
export function verifyPeer(staged: Staged, record: PeerRecord, nowMs: number): void {
  staged.put(recordName(record.list.user), { ...record, verifiedAtMs: nowMs });
}

/** A record for the app. */
export function toPeer({ list, doubt, verifiedAtMs }: PeerRecord): Peer {
  const devices = registered(list).map(([device, { key, introduced, sinceMs }]) => {
    return { device, key: key as string, trusted: introduced, since: new Date(sinceMs) };
  });
  const status = doubt !== undefined ? "changed" : verifiedAtMs !== undefined ? "verified" : "first_seen";
  return { user: list.user, status, devices, ...(doubt === undefined ? {} : { doubt }) };
}

/** The safety number of two users, by their trusted devices; `undefined` if one of them has none. */
export function safetyNumberOf(own: PeerRecord, other: PeerRecord): string | undefined {
  const halves = [own, other].map(({ list }) => {
    const trusted = registered(list).filter(([, { introduced }]) => introduced);
    return { user: list.user, keys: trusted.map(([, { key }]) => key as string) };
  });
  const [one, two] = halves as [(typeof halves)[0], (typeof halves)[0]];
  return one.keys.length > 0 && two.keys.length > 0 ? safetyNumber(one, two) : undefined;
}

/** The user that a leaf names; `undefined` if its credential names none. */
export function userOf({ claims }: Leaf): string | undefined {
  return claims === undefined
    ? undefined
    : /^([A-Za-z0-9._@:+-]{1,128})(\/[A-Za-z0-9._@:+-]{1,64})?$/.exec(claims)?.[1];
}

/** Whether a leaf may be a device's by the directory: its credential and its key. */
export function isLeafOf(leaf: Leaf, name: string, listed: ListedDevice): boolean {
  const [user] = name.split("/");
  const isNamed = leaf.claims === name || leaf.claims === user;
  const keys = [listed.key, ...Object.values(listed.leafKeys)];
  return (listed.credential === null ? isNamed : leaf.credential === listed.credential) && keys.includes(leaf.key);
}

/** Judges a leaf by the records of this device. Returns the name of the device it belongs to. */
export async function judge(staged: Staged, leaf: Leaf): Promise<Member> {
  const user = userOf(leaf);
  const record = user === undefined ? await recordWithKey(staged, leaf.key) : await peerRecord(staged, user);
  if (record === undefined) {
    return { name: leaf.claims ?? "a member without a name", trust: "unchecked" };
  }
  const named = leaf.claims?.split("/")[1];
  const device = named ?? deviceWithKey(record, leaf.key) ?? "main";
  const name = `${record.list.user}/${device}`;
  const listed = record.list.devices[device];
  if (record.doubt === undefined && listed?.key === null) {
    return { name, trust: "removed" };
  }
  const keys = listed === undefined ? [] : [listed.key, ...Object.values(listed.leafKeys), ...listed.formerKeys];
  const isKnown = record.doubt === undefined && listed?.introduced === true && keys.includes(leaf.key);
  const isTrusted = record.verifiedAtMs === undefined ? "known" : "verified";
  return { name, trust: isKnown ? isTrusted : "contradicts" };
}

function deviceWithKey({ list }: PeerRecord, key: string): string | undefined {
  const hasKey = ([, listed]: [string, ListedDevice]): boolean =>
    [listed.key, ...Object.values(listed.leafKeys), ...listed.formerKeys].includes(key);
  return registered(list).find(hasKey)?.[0];
}

async function recordWithKey(staged: Staged, key: string): Promise<PeerRecord | undefined> {
  for (const name of await staged.list("peer/")) {
    const record = await staged.get<PeerRecord>(name);
    if (record !== undefined && deviceWithKey(record, key) !== undefined) {
      return record;
    }
  }
  return undefined;
}
