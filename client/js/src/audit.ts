// The audit: the server's ledger and the history of this device's pool, held to what was seen of them before.

import { blake3 } from "@noble/hashes/blake3.js";

import { fromBase64, toBase64, toHex, type Bytes } from "./bytes.js";
import type { Context } from "./context.js";
import { signedText } from "./note.js";
import { poolEvents, type PoolEvent } from "./pool.js";
import { Staged } from "./store.js";

/** A contradiction that an audit has found. */
export interface Finding {
  /**
   * - `checkpoint_unsigned`: the ledger's key has not signed the server's checkpoint.
   * - `ledger_rewritten`: the ledger does not continue the one that was seen before.
   * - `history_rewritten`: the pool's history does not continue the one that was seen before, or is not chained.
   * - `handed_out_twice`: a package was given to an inviter while another one held it, or after it was used.
   */
  code: "checkpoint_unsigned" | "ledger_rewritten" | "history_rewritten" | "handed_out_twice";
  /** The fact, as a sentence. */
  text: string;
  /** The package, by reference. */
  reference?: string;
}

/** The scope and the findings of an audit. */
export interface Audit {
  /** Whether there are no findings. */
  isSound: boolean;
  /** How many records the server's ledger has. */
  records: number;
  /** How many events the pool's history has. */
  events: number;
  findings: Finding[];
}

/** The end of the ledger: how many records it has, and their tree hash (RFC 6962), base64. */
interface Checkpoint {
  size: number;
  root: string;
}

/** The end of the pool's history: the version and the digest of the last event, hexadecimal. */
interface HistoryEnd {
  version: number;
  head: string;
}

/** The last ledger and history that were sound. */
interface AuditRecord {
  checkpoint: Checkpoint;
  history: HistoryEnd;
}

const RECORD = "audit";
// The field of an envelope that has the digest of the one before: a text of MessagePack, and the head of 32 bytes.
const PREV = "a470726576c420";
// The tree hash of an inner node begins with this byte (RFC 6962 section 2.1).
const NODE = 1;

/** Audits the server. `ledgerKey` is the key that the device holds its ledger to. Throws a `KeypoolError`. */
export async function auditLedger(context: Context, ledgerKey: string): Promise<Audit> {
  const staged = new Staged(context.store);
  const before = await staged.get<AuditRecord>(RECORD);
  const findings: Finding[] = [];
  const checkpoint = await checkpointOf(context, ledgerKey);
  if (checkpoint === undefined) {
    findings.push({ code: "checkpoint_unsigned", text: "the server's checkpoint is not signed by its ledger's key" });
  } else if (before !== undefined && !(await continues(context, before.checkpoint, checkpoint))) {
    const text = `the ledger of ${checkpoint.size} records does not continue the one of ${before.checkpoint.size}`;
    findings.push({ code: "ledger_rewritten", text });
  }
  // The status is asked for first: the events must lead up to it, and may go on.
  const { version, head } = await context.server.get("/keypackages/status");
  const events = await poolEvents(context);
  const ends = [{ version, head }, ...(before === undefined ? [] : [before.history])];
  findings.push(...chainFindings(events, ends), ...handOutFindings(events));
  const isSound = findings.length === 0;
  if (isSound && checkpoint !== undefined) {
    staged.put(RECORD, { checkpoint, history: { version, head } });
    await staged.commit();
  }
  return { isSound, records: checkpoint?.size ?? 0, events: events.length, findings };
}

async function checkpointOf({ server }: Context, ledgerKey: string): Promise<Checkpoint | undefined> {
  const text = await signedText(await server.checkpoint(), ledgerKey);
  const [origin, size = "", root = ""] = text?.split("\n") ?? [];
  const isOfLedger = origin !== undefined && ledgerKey.startsWith(`${origin}+`);
  return isOfLedger && /^\d{1,15}$/.test(size) ? { size: Number(size), root } : undefined;
}

async function continues({ server }: Context, old: Checkpoint, now: Checkpoint): Promise<boolean> {
  if (now.size <= old.size) {
    return now.size === old.size && now.root === old.root;
  }
  if (old.size === 0) {
    return true;
  }
  const { hashes } = await server.get("/ledger/proof/consistency", { from: old.size, to: now.size });
  return isPrefix(old, now, hashes);
}

/** Whether hashes prove that the tree of one checkpoint is the beginning of a larger one's (RFC 9162 section 2.1.4.2). */
export async function isPrefix(old: Checkpoint, now: Checkpoint, hashes: string[]): Promise<boolean> {
  const isFull = Number.isInteger(Math.log2(old.size));
  const [first, ...rest] = (isFull ? [old.root, ...hashes] : hashes).map(fromBase64);
  if (first === undefined) {
    return false;
  }
  let [oldAt, nowAt] = [old.size - 1, now.size - 1];
  const up = (): void => void ([oldAt, nowAt] = [Math.floor(oldAt / 2), Math.floor(nowAt / 2)]);
  while (oldAt % 2 === 1) {
    up();
  }
  let [inOld, inNow] = [first, first];
  for (const hash of rest) {
    if (nowAt === 0) {
      return false;
    }
    if (oldAt % 2 === 1 || oldAt === nowAt) {
      [inOld, inNow] = [await node(hash, inOld), await node(hash, inNow)];
      while (oldAt % 2 === 0 && oldAt !== 0) {
        up();
      }
    } else {
      inNow = await node(inNow, hash);
    }
    up();
  }
  return nowAt === 0 && toBase64(inOld) === old.root && toBase64(inNow) === now.root;
}

async function node(left: Bytes, right: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new Uint8Array([NODE, ...left, ...right])));
}

// Each event has the digest of the one before, so an end that is as it was says that all before it is.
function chainFindings(events: PoolEvent[], ends: HistoryEnd[]): Finding[] {
  const zeros = new Uint8Array(32);
  const digests = [zeros];
  for (const { version, envelope } of events) {
    const before = digests.at(-1) as Uint8Array;
    if (version !== digests.length || !toHex(envelope).includes(PREV + toHex(before))) {
      return [{ code: "history_rewritten", text: `event ${version} of the pool does not follow the one before` }];
    }
    digests.push(new Uint8Array(blake3(envelope)));
  }
  const isMissing = ({ version, head }: HistoryEnd): boolean => {
    const digest = digests[version];
    return digest === undefined || toHex(digest) !== head;
  };
  return ends.filter(isMissing).map(({ version }) => {
    return { code: "history_rewritten", text: `the pool's history has another event ${version} than was seen before` };
  });
}

interface Fields {
  keypackage_ref?: string;
  last_resort?: boolean;
  reservation?: string;
}

interface HandedOut {
  lastResort: boolean;
  holder?: string | undefined;
  used: boolean;
}

function handOutFindings(events: PoolEvent[]): Finding[] {
  const packages = new Map<string, HandedOut>();
  const findings: Finding[] = [];
  for (const { event, version } of events) {
    const [[kind, fields] = ["", {}]] = Object.entries(event as Record<string, Fields>);
    const { keypackage_ref: reference, reservation, last_resort: lastResort = false } = fields;
    if (reference === undefined) {
      continue;
    }
    const known = packages.get(reference) ?? { lastResort, used: false };
    packages.set(reference, known);
    const isTaken = !known.lastResort && (known.used || (known.holder !== undefined && known.holder !== reservation));
    if ((kind === "reserved" || kind === "spent") && isTaken) {
      const text = `event ${version} of the pool hands a package out that another inviter holds or has used`;
      findings.push({ code: "handed_out_twice", text, reference });
    }
    known.used ||= kind === "spent";
    known.holder = kind === "reserved" ? reservation : kind === "released" ? undefined : known.holder;
  }
  return findings;
}
