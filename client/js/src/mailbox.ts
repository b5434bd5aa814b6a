// The mailbox: the effect of each item and the event for the app are one write, and acknowledged afterwards.

import { emptyPskIndex, processMessage, type IncomingMessageCallback } from "ts-mls";

import { fromBase64, textOf } from "./bytes.js";
import { resumeCommits } from "./commits.js";
import { groupRecords, idOfBody, keepEvent, mailboxOf, memberGroup, recordOf } from "./context.js";
import type { Context, GroupRecord } from "./context.js";
import { Unopenable, type Effect } from "./effect.js";
import { KeypoolError } from "./errors.js";
import type { DeviceEvent, Member } from "./events.js";
import { groupSuite, leavesOf, readMessage, senderOf, stateText } from "./mls.js";
import type { ClientState, Leaf, MLSMessage } from "./mls.js";
import { judge, judgeAgain, lookUpNew, lookUpStrange } from "./peers.js";
import { unreadable, type Reply } from "./server.js";
import { Staged } from "./store.js";
import { openWelcome } from "./welcome.js";

/** The items that wait in a mailbox. */
export type Mail = Reply<"/mailbox", "get">;
type Item = Mail["items"][number];

const ITEMS_MAX = 100;
const KINDS: string[] = ["commit", "welcome", "message", "answer"] satisfies Item["kind"][];

/** Asks for the items behind the last one whose effect is stored. The server may hold an empty answer for `waitS`. */
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

/** Takes in all items that wait, and acknowledges them. */
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
  if (!KINDS.includes(item.kind)) {
    // A later server may have others: they are passed over.
    return { events: [] };
  }
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
  const { item, group, record, state } = opening;
  const { after, sender, content } = await decrypted(opening);
  const isMember = after.groupActiveState.kind === "active";
  const epoch = Number(after.groupContext.epoch);
  const member = await judgeAgain(staged, context.server, sender, context.clock.nowMs());
  staged.put(recordOf("group", group), { ...record, state: isMember ? stateText(after) : "", active: isMember, epoch });
  if (content !== undefined) {
    return { events: messageEvents(item, group, member, content) };
  }
  if (!isMember) {
    return { events: [{ kind: "removed", group, by: member }] };
  }
  const isProposal = epoch === record.epoch;
  const change = isProposal ? undefined : await changeEvent(context, staged, { group, state }, after, member);
  return { events: [change ?? { kind: "proposed", group, by: member }] };
}

// Opens a message, and finds the leaf of its sender, which ts-mls has checked.
async function decrypted({ message, state }: Opening) {
  const leaves = leavesOf(state);
  const isPrivate = message.wireformat === "mls_private_message";
  let sender = isPrivate ? await senderOf(message.privateMessage, state) : undefined;
  const note: IncomingMessageCallback = (incoming) => {
    const index = incoming.kind === "commit" ? incoming.senderLeafIndex : incoming.proposal.senderLeafIndex;
    sender = index === undefined ? undefined : leaves.get(index);
    if (sender === undefined) {
      throw new Unopenable("unreadable", "nobody joins or proposes from outside a group");
    }
    return "accept";
  };
  const result = await processMessage(message, state, emptyPskIndex, note, await groupSuite(state));
  if (sender === undefined) {
    throw new Unopenable("unreadable", "the message has no sender");
  }
  const content = result.kind === "applicationMessage" ? result.message : undefined;
  return { after: result.newState, sender, content };
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
  { group, state }: Pick<Opening, "group" | "state">,
  after: ClientState,
  by: Member,
): Promise<DeviceEvent> {
  const [old, now] = [leavesOf(state), leavesOf(after)];
  const isSame = (one: Leaf | undefined, other: Leaf): boolean => one?.credential === other.credential;
  const added = [...now].filter(([index, leaf]) => !isSame(old.get(index), leaf)).map(([, leaf]) => leaf);
  const gone = [...old].filter(([index, leaf]) => !isSame(now.get(index), leaf)).map(([, leaf]) => leaf);
  await lookUpNew(staged, context.server, added, context.clock.nowMs());
  const renewed = [...now].filter(([index, leaf]) => old.has(index) && old.get(index)?.key !== leaf.key);
  await lookUpStrange(
    staged,
    context.server,
    renewed.map(([, leaf]) => leaf),
    context.clock.nowMs(),
  );
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
