// The mailbox: the effect of each item and the event for the app are one write, and acknowledged afterwards.

import { blake3 } from "@noble/hashes/blake3.js";
import { acceptAll, emptyPskIndex, processMessage } from "ts-mls";
import { decryptGroupInfo, decryptGroupSecrets } from "ts-mls/welcome.js";

import { fromBase64, textOf, toBase64, toBase64Url, toHex } from "./bytes.js";
import { joinedGroup, resumeCommits } from "./commits.js";
import { groupRecords, idOfBody, keepEvent, mailboxOf, memberGroup, recordOf } from "./context.js";
import type { Context, GroupRecord, MailboxRecord } from "./context.js";
import { KeypoolError } from "./errors.js";
import type { DeviceEvent, Member } from "./events.js";
import { joined, leavesOf, readMessage, senderOf, stateText, suite } from "./mls.js";
import type { ClientState, Leaf, MLSMessage, StoredPackage, Welcome } from "./mls.js";
import { judge, lookUp, peerRecord, userOf } from "./peers.js";
import { unreadable, type Reply } from "./server.js";
import { Staged } from "./store.js";

/** What waits in a mailbox. */
export type Mail = Reply<"/mailbox", "get">;
type Item = Mail["items"][number];

const ITEMS_MAX = 100;
// How old the answer of the directory may be before a leaf that does not fit is looked up again.
const LOOK_AGAIN_MS = 20_000;
const HOUR_MS = 3_600_000;

/** Asks for what waits behind the last item whose effect is stored. The server may hold an empty answer for `waitS`. */
export async function fetchMail(context: Context, waitS: number, signal?: AbortSignal): Promise<Mail> {
  const { read } = await mailboxOf(new Staged(context.store));
  const query = { after: read, limit: ITEMS_MAX, ...(waitS > 0 ? { wait: waitS } : {}) };
  const mail = await context.server.get("/mailbox", query, { signal, waitS });
  if (!mail.items.every(isItem)) {
    throw unreadable("an item of the mailbox is none");
  }
  return mail;
}

function isBase64(text: unknown): boolean {
  return typeof text === "string" && text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);
}

function isItem({ position, kind, group_id, bytes }: Partial<Item>): boolean {
  return (
    Number.isSafeInteger(position) && isBase64(group_id) && [kind, bytes].every((field) => typeof field === "string")
  );
}

/** Takes in all that waits, and acknowledges it. */
export async function receiveWaiting(context: Context): Promise<void> {
  for (let more = true; more;) {
    const mail = await fetchMail(context, 0);
    await receive(context, mail);
    more = mail.more && mail.items.length > 0;
  }
}

/** Takes in an answer of the mailbox, item by item, and acknowledges them. Throws a `KeypoolError`; items before it stay. */
export async function receive(context: Context, mail: Mail): Promise<void> {
  await compareHome(context, mail);
  await resumeCommits(context);
  for (const item of mail.items) {
    await receiveItem(context, item);
  }
  await noteLosses(context, mail);
  await acknowledge(context);
}

/**
 * Compares this store with what the server was told by this device: a store that is behind is an older copy, and may
 * have sealed with keys that it would use again.
 */
export async function compareHome(context: Context, { acknowledged = 0, last_posted = 0 }: Mail): Promise<void> {
  const staged = new Staged(context.store);
  const mailbox = await mailboxOf(staged);
  if (acknowledged <= mailbox.read && last_posted <= mailbox.lastPosted) {
    return;
  }
  for (const record of await groupRecords(staged)) {
    staged.put(recordOf("group", record.id), { ...record, readOnly: true });
  }
  const [read, lastPosted] = [Math.max(acknowledged, mailbox.read), Math.max(last_posted, mailbox.lastPosted)];
  staged.put("mailbox", { ...mailbox, read, acknowledged: Math.max(acknowledged, mailbox.acknowledged), lastPosted });
  await keepEvent(staged, { kind: "setBack" });
  await staged.commit();
}

async function receiveItem(context: Context, item: Item): Promise<void> {
  const staged = new Staged(context.store);
  const mailbox = await mailboxOf(staged);
  // An item that was taken in before: by another tab, or shown again by the server.
  if (!(item.position > mailbox.read)) {
    return;
  }
  const group = idOfBody(item.group_id);
  const { events, accepted, failed } = await open(context, staged, item, group);
  mailbox.accepted.push(...(accepted ? [item.group_id] : []));
  mailbox.failed.push(...(failed === undefined ? [] : [{ group_id: item.group_id, reason: failed }]));
  staged.put("mailbox", { ...mailbox, read: item.position });
  for (const event of events) {
    await keepEvent(staged, event);
  }
  await staged.commit();
}

/** The effect of an item. */
interface Effect {
  events: DeviceEvent[];
  accepted?: boolean;
  failed?: MailboxRecord["failed"][number]["reason"];
}

/** An item that can never be opened. */
class Unopenable extends Error {
  readonly reason: MailboxRecord["failed"][number]["reason"];

  constructor(reason: MailboxRecord["failed"][number]["reason"], message: string) {
    super(message);
    this.reason = reason;
  }
}

async function open(context: Context, staged: Staged, item: Item, group: string): Promise<Effect> {
  try {
    return await openKind(context, staged, item, group);
  } catch (error) {
    // The store or the line: the item is taken in by the next call.
    if (error instanceof KeypoolError && error.code !== "unknown_here") {
      throw error;
    }
    const { message } = error as Error;
    const effect: Effect = {
      events: [{ kind: "unreadable", group, sender: item.sender ?? undefined, reason: message }],
    };
    const reason = error instanceof Unopenable ? error.reason : "unreadable";
    return item.kind === "welcome" ? { ...effect, failed: reason } : effect;
  }
}

async function openKind(context: Context, staged: Staged, item: Item, group: string): Promise<Effect> {
  if (item.kind === "answer") {
    const { outcome = "unknown", reason } = item.answer ?? {};
    const device = item.sender ?? "";
    return { events: [{ kind: "answer", group, device, outcome, reason: reason ?? undefined }] };
  }
  const message = readMessage(fromBase64(item.bytes));
  if (message === undefined) {
    throw new Unopenable("unreadable", "the bytes are no MLSMessage");
  }
  if (item.kind === "welcome") {
    return openWelcome(context, staged, message, group);
  }
  return openMessage(context, staged, message, item, group);
}

async function openWelcome(context: Context, staged: Staged, message: MLSMessage, group: string): Promise<Effect> {
  if (message.wireformat !== "mls_welcome") {
    throw new Unopenable("unreadable", "the message is no Welcome");
  }
  const { welcome } = message;
  const [reference, stored] = await packageFor(staged, welcome);
  const digest = toHex(blake3(fromBase64(welcomeText(welcome))));
  if (stored.joined?.includes(digest)) {
    throw new Unopenable("unreadable", "the Welcome was used before");
  }
  const state = await joined(welcome, stored, context.key);
  const before = await staged.get<GroupRecord>(recordOf("group", group));
  if (
    toBase64Url(state.groupContext.groupId) !== group ||
    (before?.active && state.groupContext.epoch <= before.epoch)
  ) {
    throw new Unopenable("unreadable", "the Welcome is for another group or an earlier epoch than the server says");
  }
  const leaves = leavesOf(state);
  await lookUpNew(context, staged, [...leaves.values()]);
  const inviter = await judge(staged, leaves.get(await signerOf(welcome, reference, stored)) as Leaf);
  if (inviter.trust === "contradicts") {
    return { events: [{ kind: "invitationRefused", group, inviter }], failed: "untrusted" };
  }
  const members = await Promise.all([...leaves.values()].map((leaf) => judge(staged, leaf)));
  staged.put(recordOf("group", group), joinedGroup(state, true));
  useUp(context, staged, reference, stored, digest);
  return { events: [{ kind: "joined", group, inviter, members, reference }], accepted: true };
}

function welcomeText(welcome: Welcome): string {
  return toBase64(welcome.encryptedGroupInfo);
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
async function signerOf(welcome: Welcome, reference: string, stored: StoredPackage): Promise<number> {
  const impl = await suite();
  const key = await impl.hpke.importPrivateKey(fromBase64(stored.initKey));
  const ref = Uint8Array.from(reference.match(/../g) ?? [], (digits) => parseInt(digits, 16));
  const secrets = await decryptGroupSecrets(key, ref, welcome, impl.hpke);
  const info = secrets && (await decryptGroupInfo(welcome, secrets.joinerSecret, new Uint8Array(impl.kdf.size), impl));
  if (info === undefined) {
    throw new Unopenable("unreadable", "the Welcome names no signer");
  }
  return info.signer;
}

async function lookUpNew(context: Context, staged: Staged, leaves: Leaf[]): Promise<void> {
  const nowMs = context.clock.nowMs();
  const users: string[] = [];
  for (const user of new Set(leaves.map(userOf))) {
    const record = user === undefined ? undefined : await peerRecord(staged, user);
    if (user !== undefined && (record === undefined || record.fetchedAtMs + HOUR_MS < nowMs)) {
      users.push(user);
    }
  }
  if (users.length > 0) {
    await lookUp(staged, context.server, users, nowMs);
  }
}

// A leaf that does not fit is looked up again: its device may have changed its key since.
async function judgeAgain(context: Context, staged: Staged, leaf: Leaf): Promise<Member> {
  const member = await judge(staged, leaf);
  const user = userOf(leaf);
  if (user === undefined || (member.trust !== "contradicts" && member.trust !== "unchecked")) {
    return member;
  }
  const nowMs = context.clock.nowMs();
  if (((await peerRecord(staged, user))?.fetchedAtMs ?? 0) + LOOK_AGAIN_MS < nowMs) {
    await lookUp(staged, context.server, [user], nowMs);
  }
  return judge(staged, leaf);
}

async function openMessage(
  context: Context,
  staged: Staged,
  message: MLSMessage,
  item: Item,
  group: string,
): Promise<Effect> {
  const { record, state } = await memberGroup(staged, group);
  if (message.wireformat === "mls_public_message" || message.wireformat === "mls_private_message") {
    const isOld = item.kind === "commit" && epochOf(message) < state.groupContext.epoch;
    return isOld ? { events: [] } : process(context, staged, { message, item, group, record, state });
  }
  throw new Unopenable("unreadable", "the message is neither a Commit nor a message of a group");
}

type GroupMessage = Extract<MLSMessage, { wireformat: "mls_public_message" | "mls_private_message" }>;

function epochOf(message: GroupMessage): bigint {
  return message.wireformat === "mls_public_message"
    ? message.publicMessage.content.epoch
    : message.privateMessage.epoch;
}

interface Opening {
  message: GroupMessage;
  item: Item;
  group: string;
  record: GroupRecord;
  state: ClientState;
}

async function process(context: Context, staged: Staged, opening: Opening): Promise<Effect> {
  const { message, item, group, record, state } = opening;
  const sender =
    message.wireformat === "mls_private_message" ? await senderOf(message.privateMessage, state) : undefined;
  let committer: number | undefined;
  const result = await processMessage(
    message,
    state,
    emptyPskIndex,
    (incoming) => {
      committer = incoming.kind === "commit" ? incoming.senderLeafIndex : incoming.proposal.senderLeafIndex;
      return acceptAll(incoming);
    },
    await suite(),
  );
  const after = result.newState;
  const isMember = after.groupActiveState.kind === "active";
  const epoch = Number(after.groupContext.epoch);
  staged.put(recordOf("group", group), { ...record, state: isMember ? stateText(after) : "", active: isMember, epoch });
  if (result.kind === "applicationMessage") {
    const member = await judgeAgain(context, staged, sender as Leaf);
    return { events: messageEvents(item, group, member, result.message) };
  }
  const by = committer === undefined ? undefined : leavesOf(state).get(committer);
  const author = by === undefined ? undefined : await judgeAgain(context, staged, by);
  if (epoch === record.epoch && isMember) {
    return { events: [{ kind: "proposed", group, by: author }] };
  }
  return {
    events: [await changeEvent(context, staged, opening, after, author ?? { name: "nobody", trust: "unchecked" })],
  };
}

function messageEvents(item: Item, group: string, sender: Member, bytes: Uint8Array): DeviceEvent[] {
  const at = new Date(item.at_ms);
  const events: DeviceEvent[] = [{ kind: "message", group, sender, bytes, text: textOf(bytes), at }];
  if (item.sender && sender.name.includes("/") && item.sender !== sender.name) {
    events.push({ kind: "otherSender", group, sender: sender.name, serverSaid: item.sender });
  }
  return events;
}

async function changeEvent(
  context: Context,
  staged: Staged,
  { group, state }: Opening,
  after: ClientState,
  by: Member,
): Promise<DeviceEvent> {
  if (after.groupActiveState.kind !== "active") {
    return { kind: "removed", group, by };
  }
  const [old, now] = [leavesOf(state), leavesOf(after)];
  const isSame = (one: Leaf | undefined, other: Leaf): boolean => one?.credential === other.credential;
  const added = [...now].filter(([index, leaf]) => !isSame(old.get(index), leaf)).map(([, leaf]) => leaf);
  const gone = [...old].filter(([index, leaf]) => !isSame(now.get(index), leaf)).map(([, leaf]) => leaf);
  await lookUpNew(context, staged, added);
  const removed = await Promise.all(gone.map(async (leaf) => (await judge(staged, leaf)).name));
  const members = await Promise.all(added.map((leaf) => judge(staged, leaf)));
  return { kind: "changed", group, epoch: Number(after.groupContext.epoch), by, added: members, removed };
}

async function noteLosses(context: Context, mail: Mail): Promise<void> {
  const staged = new Staged(context.store);
  const mailbox = await mailboxOf(staged);
  for (const { group_id, sender } of mail.not_kept ?? []) {
    if (isBase64(group_id) && !mailbox.told.includes(group_id)) {
      mailbox.told.push(group_id);
      await keepEvent(staged, { kind: "notKept", group: idOfBody(group_id), sender: sender ?? undefined });
    }
  }
  for (const device of (mail.available ?? []).filter((one) => !mailbox.available.includes(one))) {
    mailbox.available.push(device);
    await keepEvent(staged, { kind: "available", device });
  }
  staged.put("mailbox", mailbox);
  await staged.commit();
}

/** Tells the server how far the mailbox is stored. Repeating it changes nothing. */
export async function acknowledge(context: Context): Promise<void> {
  const staged = new Staged(context.store);
  const mailbox = await mailboxOf(staged);
  const { read, accepted, failed, told, available } = mailbox;
  const lists = { accepted, failed, told, available };
  if (read === mailbox.acknowledged && Object.values(lists).every((list) => list.length === 0)) {
    return;
  }
  await context.server.post("/mailbox/acknowledge", { through: read, ...lists });
  staged.put("mailbox", { ...mailbox, acknowledged: read, accepted: [], failed: [], told: [], available: [] });
  await staged.commit();
}
