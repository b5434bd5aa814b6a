// The pool: makes packages, uploads them, and keeps both sides in agreement.

import type { ClockOffset } from "./clock.js";
import type { Context } from "./context.js";
import { hasCode } from "./errors.js";
import { makePackage, SUITE, type StoredPackage } from "./mls.js";
import type { Reply } from "./server.js";
import { Staged } from "./store.js";

/** The settings of a pool. */
export interface PoolOptions {
  /** Up to how many packages the pool is filled; 32 by default, 64 at most. */
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

const HOUR_S = 3600;
const DAY_S = 24 * HOUR_S;
const LIFETIME_S = 14 * DAY_S;
const LAST_RESORT_LIFETIME_S = 84 * DAY_S;
// Members whose machines are behind have to be able to add the package.
const BACKDATED_S = DAY_S;
// For how long the keys of a used last resort stay, for Welcomes on their way.
const USED_KEYS_S = DAY_S;
const UPLOAD_MAX = 64;
const RECONCILE_MAX = 256;

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

/** Makes a package for a device, dated by the server's time. */
export function makeDatedPackage(context: Context, lastResort: boolean): Promise<[string, StoredPackage]> {
  const madeAtS = context.clock.nowS();
  const notBeforeS = madeAtS - BACKDATED_S;
  const notAfterS = notBeforeS + HOUR_S + (lastResort ? LAST_RESORT_LIFETIME_S : LIFETIME_S);
  return makePackage(context.name, context.key, { notBeforeS, notAfterS, madeAtS }, lastResort);
}

/** The number of packages to hand out, by a status. */
export function availableIn(status: Pick<PoolStatus, "suites">): number {
  return status.suites?.find(({ ciphersuite }) => ciphersuite === SUITE)?.available ?? 0;
}

/** Compares both sides, and fills the pool by its status. Throws a `KeypoolError`; the next call goes on. */
export async function refreshPool(
  context: Context,
  options: Required<PoolOptions>,
  status: PoolStatus,
): Promise<Omit<Refresh, "clock" | "unintroducedDevices">> {
  const deleted = await deleteExpired(context);
  const compared = await compare(context);
  const lastResort = options.lastResort ? await dueLastResort(context, compared.live) : { make: false, withdraw: [] };
  const { old, isRunning } = await copiesOf(context, compared.keysLost);
  const { withdrawn, pool } = await withdraw(context, [...old, ...lastResort.withdraw]);
  const available = availableIn(pool ?? status);
  const isLow = available + compared.toUpload.length <= options.lowWatermark;
  const missing = isLow ? options.target - available - compared.toUpload.length : 0;
  const made = await make(context, Math.max(0, missing), lastResort.make);
  const { uploaded, rejected } = await upload(context, [...compared.toUpload, ...made]);
  const singles = uploaded.filter(({ stored }) => !stored.lastResort).length;
  const references = uploaded.map(({ reference }) => reference);
  return { uploaded: references, rejected, withdrawn, otherCopy: isRunning, deleted, available: available + singles };
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
async function dueLastResort(context: Context, live: Set<string>): Promise<{ make: boolean; withdraw: string[] }> {
  const nowS = context.clock.nowS();
  const all = [...(await packagesOf(new Staged(context.store)))].filter(([, { lastResort }]) => lastResort);
  const isGood = ([reference, { usedAtS, madeAtS, uploaded }]: [string, StoredPackage]): boolean =>
    usedAtS === undefined && nowS < madeAtS + LAST_RESORT_LIFETIME_S / 2 && (live.has(reference) || !uploaded);
  const withdraw = all
    .filter((one) => !isGood(one))
    .map(([reference]) => reference)
    .filter((one) => live.has(one));
  return { make: !all.some(isGood), withdraw };
}

// The private keys are durable before anybody can be given a package.
async function make(context: Context, count: number, lastResort: boolean): Promise<string[]> {
  const staged = new Staged(context.store);
  const references: string[] = [];
  for (const isLast of [...Array<boolean>(count).fill(false), ...(lastResort ? [true] : [])]) {
    const [reference, stored] = await makeDatedPackage(context, isLast);
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

/** The server's history of the pool, the oldest change first. */
export async function poolHistory(context: Context): Promise<PoolChange[]> {
  const changes: PoolChange[] = [];
  for (let [after, more] = [0, true]; more;) {
    const reply = await context.server.get("/keypackages/events", { after, limit: HISTORY_MAX });
    for (const { event, at_ms, version } of reply.events) {
      const [[change, fields] = ["", {}]] = Object.entries((event ?? {}) as Record<string, PoolFields>);
      changes.push({ change, reference: fields.keypackage_ref, by: fields.holder, at: new Date(at_ms) });
      after = version;
    }
    more = reply.more && reply.events.length > 0;
  }
  return changes;
}

interface PoolFields {
  keypackage_ref?: string;
  holder?: string;
}
