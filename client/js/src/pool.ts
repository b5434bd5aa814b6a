// The pool: makes packages, uploads them, and keeps both sides in agreement.

import { fromBase64, type Bytes } from "./bytes.js";
import type { ClockOffset } from "./clock.js";
import type { Context } from "./context.js";
import { hasCode, KeypoolError } from "./errors.js";
import { declareLeafKey, leafKeyOf } from "./leaf-keys.js";
import { makePackage, type PackageShape, type StoredPackage } from "./mls.js";
import { unreadable, type Reply } from "./server.js";
import { Staged } from "./store.js";
import { CIPHERSUITE, type Ciphersuite } from "./suites.js";

/** The settings of a pool. Each is for the packages of one ciphersuite. */
export interface PoolOptions {
  /** Up to how many packages the pool is filled; 32 by default, or what fits. All ciphersuites have 64 at most. */
  target?: number;
  /** A pool with this many packages to hand out, or fewer, is filled; 8 by default. */
  lowWatermark?: number;
  /** Whether a package of last resort is kept, for a device that is away for weeks; true by default. */
  lastResort?: boolean;
}

/** A package that the server has refused. */
export interface RejectedPackage {
  reference: string;
  /** The failed check of admission, if that was the reason. */
  check: string | undefined;
  detail: string;
}

/** The outcome of a refresh. */
export interface Refresh {
  /** The packages that the server has now and had not before, by reference. */
  uploaded: string[];
  /** How many of them are single-use ones. */
  created: number;
  rejected: RejectedPackage[];
  /** Packages that were withdrawn: last resorts that were used or are old, and those whose private keys are lost. */
  withdrawn: string[];
  /**
   * Whether packages that this store does not have were uploaded within the last hour: another copy of the store may be
   * running, which must not be. They are withdrawn after that hour.
   */
  otherCopy: boolean;
  /** How many packages were deleted with their private keys, because their time was over. */
  deleted: number;
  /** How many packages there are to hand out. */
  available: number;
  /** How far this device's clock is off, if that is news. */
  clock: ClockOffset | undefined;
  /** Devices of this user that no key of the user has introduced: tell the user. */
  unintroducedDevices: string[];
}

const TARGET = 32;
const LOW_WATERMARK = 8;
const TARGETS_MAX = 64;
const HOUR_S = 3600;
const DAY_S = 24 * HOUR_S;
const LIFETIME_S = 14 * DAY_S;
const LAST_RESORT_LIFETIME_S = 84 * DAY_S;
// Members whose machines are behind have to be able to add the package.
const BACKDATED_S = DAY_S;
// For how long the keys of a used last resort stay, for Welcomes on their way.
const USED_KEYS_S = DAY_S;
/** How many packages one request may have. */
export const UPLOAD_MAX = 64;
const RECONCILE_MAX = 256;

/** The settings of a pool, each with its default where it is left out. Throws `invalid_argument`. */
export function poolSettings(options: PoolOptions, ciphersuites: Ciphersuite[]): Required<PoolOptions> {
  const fitting = Math.min(TARGET, Math.floor(TARGETS_MAX / ciphersuites.length));
  const { target = fitting, lowWatermark = LOW_WATERMARK, lastResort = true } = options;
  if (!(0 <= lowWatermark && lowWatermark < target && target * ciphersuites.length <= TARGETS_MAX)) {
    const fact = `a pool of ${ciphersuites.length} ciphersuites cannot have a target of ${target} and a low watermark of ${lowWatermark}`;
    throw new KeypoolError(
      "invalid_argument",
      fact,
      `Choose targets up to ${TARGETS_MAX} together, and a low watermark below the target.`,
    );
  }
  return { target, lowWatermark, lastResort };
}

/** The server's view of a pool. */
export type PoolStatus = Reply<"/keypackages/status", "get">;
type Packages = Map<string, StoredPackage>;

/** The packages of this device by reference, as an operation has them. */
export async function packagesOf(staged: Staged): Promise<Packages> {
  const packages: Packages = new Map();
  for (const name of await staged.list("package/")) {
    const stored = await staged.get<StoredPackage>(name);
    if (stored !== undefined) {
      packages.set(name.slice("package/".length), stored);
    }
  }
  return packages;
}

/**
 * Makes a package, dated by the server's time, as part of an operation. `key` is the device's key, or the one that is to
 * follow it.
 */
export async function makeDatedPackage(
  { clock, name, capabilities, key }: Context,
  staged: Staged,
  shape: PackageShape,
  signer = key,
): Promise<[string, StoredPackage]> {
  const madeAtS = clock.nowS();
  const notBeforeS = madeAtS - BACKDATED_S;
  const notAfterS = notBeforeS + HOUR_S + (shape.lastResort ? LAST_RESORT_LIFETIME_S : LIFETIME_S);
  const leafKey = await leafKeyOf(staged, signer, shape.ciphersuite);
  return makePackage({ name, leafKey, capabilities }, shape, { notBeforeS, notAfterS, madeAtS });
}

/** The number of packages of a ciphersuite to hand out, by a status. */
export function availableIn(status: Pick<PoolStatus, "suites">, ciphersuite: Ciphersuite): number {
  return status.suites?.find((suite) => suite.ciphersuite === ciphersuite)?.available ?? 0;
}

/** Compares both sides, and fills the pool by its status. Throws a `KeypoolError`; the next call goes on. */
export async function refreshPool(
  context: Context,
  options: Required<PoolOptions>,
  status: PoolStatus,
): Promise<Omit<Refresh, "clock" | "unintroducedDevices">> {
  const { ciphersuites } = context.capabilities;
  const deleted = await deleteExpired(context);
  const compared = await compare(context);
  const lastResort = options.lastResort ? await dueLastResorts(context, compared.live) : { make: [], withdraw: [] };
  const { old, isRunning } = await copiesOf(context, compared.keysLost);
  const { withdrawn, pool } = await withdraw(context, [...old, ...lastResort.withdraw]);
  const packages = await packagesOf(new Staged(context.store));
  const shapes: PackageShape[] = lastResort.make.map((ciphersuite) => ({ ciphersuite, lastResort: true }));
  for (const ciphersuite of ciphersuites) {
    const isOne = (one?: StoredPackage) => one && !one.lastResort && suiteOfPackage(one) === ciphersuite;
    const toUpload = compared.toUpload.filter((reference) => isOne(packages.get(reference))).length;
    const there = availableIn(pool ?? status, ciphersuite) + toUpload;
    const missing = there <= options.lowWatermark ? options.target - there : 0;
    shapes.unshift(...Array<PackageShape>(missing).fill({ ciphersuite, lastResort: false }));
  }
  const made = await make(context, shapes);
  await declareLeafKey(context);
  const { uploaded, rejected } = await upload(context, [...compared.toUpload, ...made]);
  const singles = uploaded.filter(({ stored }) => !stored.lastResort).length;
  const before = ciphersuites.map((ciphersuite) => availableIn(pool ?? status, ciphersuite));
  const available = before.reduce((sum, count) => sum + count, singles);
  const references = uploaded.map(({ reference }) => reference);
  return { uploaded: references, created: singles, rejected, withdrawn, otherCopy: isRunning, deleted, available };
}

function suiteOfPackage({ ciphersuite = CIPHERSUITE }: StoredPackage): Ciphersuite {
  return ciphersuite;
}

// Tells packages whose keys are lost from those of another copy of this store that may be running.
async function copiesOf(context: Context, keysLost: string[]): Promise<{ old: string[]; isRunning: boolean }> {
  if (keysLost.length === 0) {
    return { old: [], isRunning: false };
  }
  const sinceMs = context.clock.nowMs() - HOUR_S * 1000;
  const history = await poolHistory(context);
  const isYoung = ({ change, at }: PoolChange): boolean => change === "uploaded" && at.getTime() > sinceMs;
  const young = new Set(history.filter(isYoung).map(({ reference }) => reference));
  const old = keysLost.filter((reference) => !young.has(reference));
  return { old, isRunning: old.length < keysLost.length };
}

async function withdraw(context: Context, references: string[]) {
  if (references.length === 0) {
    return { withdrawn: [], pool: undefined };
  }
  const body = { keypackage_refs: references, reason: "withdrawn" as const };
  const { revoked, pool } = await context.server.post("/keypackages/revoke", body);
  return { withdrawn: revoked, pool };
}

async function deleteExpired(context: Context): Promise<number> {
  const staged = new Staged(context.store);
  const nowS = context.clock.nowS();
  let deleted = 0;
  for (const [reference, { notAfterS, usedAtS = Number.POSITIVE_INFINITY }] of await packagesOf(staged)) {
    if (notAfterS + HOUR_S < nowS || usedAtS + USED_KEYS_S < nowS) {
      staged.delete(`package/${reference}`);
      deleted += 1;
    }
  }
  await staged.commit();
  return deleted;
}

/** Both sides, compared by reference. */
interface Comparison {
  /** Packages that both sides have. */
  live: Set<string>;
  /** Packages that the server hands out although this device has no keys for them. */
  keysLost: string[];
  /** Packages that the server has never had, or has no more because it was set back. */
  toUpload: string[];
}

async function compare(context: Context): Promise<Comparison> {
  const staged = new Staged(context.store);
  const packages = await packagesOf(staged);
  const newest = [...packages].sort(([, one], [, other]) => other.madeAtS - one.madeAtS);
  const named = newest.slice(0, RECONCILE_MAX).map(([reference]) => reference);
  const reply = await context.server.post("/keypackages/reconcile", { keypackage_refs: named });
  const there = new Map(reply.only_there.map(({ keypackage_ref, state }) => [keypackage_ref, state]));
  const toUpload = named.filter((reference) => there.get(reference) === "unknown");
  for (const reference of named) {
    const stored = packages.get(reference) as StoredPackage;
    const uploaded = !toUpload.includes(reference);
    if (stored.uploaded !== uploaded) {
      staged.put(`package/${reference}`, { ...stored, uploaded });
    }
  }
  await staged.commit();
  const live = new Set(named.filter((reference) => !there.has(reference)));
  const keysLost = reply.only_here.map(({ keypackage_ref }) => keypackage_ref).filter((one) => !packages.has(one));
  return { live, keysLost, toUpload };
}

// A last resort is replaced after its first use, and at half its life.
async function dueLastResorts(
  context: Context,
  live: Set<string>,
): Promise<{ make: Ciphersuite[]; withdraw: string[] }> {
  const nowS = context.clock.nowS();
  const all = [...(await packagesOf(new Staged(context.store)))].filter(([, { lastResort }]) => lastResort);
  const isGood = ([reference, { usedAtS, madeAtS, uploaded }]: [string, StoredPackage]): boolean =>
    usedAtS === undefined && nowS < madeAtS + LAST_RESORT_LIFETIME_S / 2 && (live.has(reference) || !uploaded);
  const withdraw = all
    .filter((one) => !isGood(one))
    .map(([reference]) => reference)
    .filter((one) => live.has(one));
  const good = all.filter(isGood).map(([, stored]) => suiteOfPackage(stored));
  const make = context.capabilities.ciphersuites.filter((ciphersuite) => !good.includes(ciphersuite));
  return { make, withdraw };
}

// The private keys are durable before anybody can be given a package.
async function make(context: Context, shapes: PackageShape[]): Promise<string[]> {
  const staged = new Staged(context.store);
  const references: string[] = [];
  for (const shape of shapes) {
    const [reference, stored] = await makeDatedPackage(context, staged, shape);
    staged.put(`package/${reference}`, stored);
    references.push(reference);
  }
  await staged.commit();
  return references;
}

interface UploadOutcome {
  uploaded: { reference: string; stored: StoredPackage }[];
  rejected: RejectedPackage[];
}

async function upload(context: Context, references: string[]): Promise<UploadOutcome> {
  const whole: UploadOutcome = { uploaded: [], rejected: [] };
  for (let at = 0; at < references.length; at += UPLOAD_MAX) {
    const { uploaded, rejected } = await uploadSome(context, references.slice(at, at + UPLOAD_MAX));
    whole.uploaded.push(...uploaded);
    whole.rejected.push(...rejected);
  }
  return whole;
}

async function uploadSome(context: Context, references: string[]): Promise<UploadOutcome> {
  const staged = new Staged(context.store);
  const packages = await packagesOf(staged);
  const all = references.map((reference) => ({ reference, stored: packages.get(reference) as StoredPackage }));
  const keypackages = all.map(({ stored }) => stored.keyPackage);
  const items = await outcomes(context, keypackages);
  const outcome: UploadOutcome = { uploaded: [], rejected: [] };
  all.forEach(({ reference, stored }, at) => {
    const item = items[at];
    // The server computes the reference too: an upload under another one is not this package.
    if (item !== undefined && item.outcome !== "rejected" && item.keypackage_ref === reference) {
      staged.put(`package/${reference}`, { ...stored, uploaded: true });
      outcome.uploaded.push({ reference, stored });
    } else if (item?.outcome === "rejected") {
      staged.delete(`package/${reference}`);
      outcome.rejected.push({ reference, check: item.check ?? undefined, detail: item.detail ?? item.code ?? "" });
    } else {
      outcome.rejected.push({ reference, check: undefined, detail: "the server names another reference" });
    }
  });
  await staged.commit();
  return outcome;
}

async function outcomes(context: Context, keypackages: string[]) {
  try {
    return (await context.server.post("/keypackages/upload", { keypackages })).items;
  } catch (error) {
    if (hasCode(error, "invalid_key_package", "pool_full") && error.items !== undefined) {
      return error.items;
    }
    throw error;
  }
}

/** A change of the pool, as the server's history has it. */
export interface PoolChange {
  /** The kind of change: `uploaded`, `reserved`, `spent`, `revoked`, … */
  change: string;
  /** The package; `undefined` for changes of the device. */
  reference: string | undefined;
  /** The inviter that reserved or used the package. */
  by: string | undefined;
  at: Date;
}

const HISTORY_MAX = 1000;

/** An event of the pool's history, as the server shows it. */
export interface PoolEvent {
  /** Its place in the history, from 1. */
  version: number;
  at: Date;
  event: object;
  /** The stored bytes of the event. */
  envelope: Bytes;
}

/** The server's history of the pool, the oldest event first. */
export async function poolEvents(context: Context): Promise<PoolEvent[]> {
  const events: PoolEvent[] = [];
  for (let [after, more] = [0, true]; more;) {
    const reply = await context.server.get("/keypackages/events", { after, limit: HISTORY_MAX });
    for (const { event, at_ms, version, envelope } of reply.events) {
      events.push({ version, at: new Date(at_ms), event: event ?? {}, envelope: bytesOf(envelope) });
      after = version;
    }
    more = reply.more && reply.events.length > 0;
  }
  return events;
}

function bytesOf(envelope: string): Bytes {
  try {
    return fromBase64(envelope);
  } catch {
    throw unreadable("an event of the pool's history has no bytes");
  }
}

/** The changes of the pool by the server's history, the oldest first. */
export async function poolHistory(context: Context): Promise<PoolChange[]> {
  return (await poolEvents(context)).map(({ event, at }) => {
    const [[change, fields] = ["", {}]] = Object.entries(event as Record<string, PoolFields>);
    return { change, reference: fields.keypackage_ref, by: fields.holder, at };
  });
}

interface PoolFields {
  keypackage_ref?: string;
  holder?: string;
}
