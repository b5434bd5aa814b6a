// Another key for the device, in place of one that may have leaked or has served long enough.
//
// The next key and its packages are durable before the server hears of them, and it is the next key that asks: a crash
// or a lost answer anywhere is made good by asking again. The server puts the packages in the place of the live ones in
// the same write, so nobody who invites finds an empty pool.

import { fromBase64, toBase64 } from "./bytes.js";
import { groupRecords, isFinal, recordOf, useKey, type Context } from "./context.js";
import { hasCode } from "./errors.js";
import { declarationOf, forgetLeafKey, noteDeclared } from "./leaf-keys.js";
import type { StoredPackage } from "./mls.js";
import { lookUp } from "./peers.js";
import { makeDatedPackage, packagesOf, UPLOAD_MAX } from "./pool.js";
import type { DeviceRecord } from "./registration.js";
import type { Reply } from "./server.js";
import { DeviceKey } from "./signing.js";
import { groundsOf, signStatement, whileStale } from "./statements.js";
import { Staged } from "./store.js";

/** A rotation that is not finished. */
interface Rotation {
  /** The private key that is to be the device's, base64. */
  secret: string;
  /** The packages that it has signed, by reference. */
  packages: string[];
}

/** The packages of the next key at the server. */
interface Brought {
  items: Reply<"/keypackages/rotate", "post">["items"];
  /** Whether the server has heard of the P-256 key that goes with the next key. */
  declared: boolean;
}

const RECORD = "rotation";
// The refusals by which the next key can never be the device's.
const HOPELESS = ["too_many_devices", "key_retired", "identity_bound", "not_allowed"] as const;

/** Begins a rotation, unless one was begun before: draws the next key and makes `target` packages of each ciphersuite. */
export async function beginRotation(context: Context, target: number): Promise<void> {
  const staged = new Staged(context.store);
  if ((await staged.get<Rotation>(RECORD)) !== undefined) {
    return;
  }
  const next = await DeviceKey.generate();
  const packages: string[] = [];
  for (const ciphersuite of context.capabilities.ciphersuites) {
    for (let count = 0; count < target; count += 1) {
      const shape = { ciphersuite, lastResort: false };
      const [reference, stored] = await makeDatedPackage(context, staged, shape, next);
      staged.put(`package/${reference}`, stored);
      packages.push(reference);
    }
  }
  staged.put(RECORD, { secret: toBase64(next.secret), packages });
  await staged.commit();
}

/** Goes on with a rotation that was begun. Mostly there is none. Throws a `KeypoolError`; the next call goes on. */
export async function resumeRotation(context: Context): Promise<void> {
  const staged = new Staged(context.store);
  const rotation = await staged.get<Rotation>(RECORD);
  if (rotation === undefined) {
    return;
  }
  const next = await DeviceKey.fromSecret(fromBase64(rotation.secret));
  const packages = await packagesOf(staged);
  const named = rotation.packages.filter((reference) => packages.has(reference)).slice(0, UPLOAD_MAX);
  const bytes = named.map((reference) => (packages.get(reference) as StoredPackage).keyPackage);
  const brought = await whileStale(() => bring(context, next, rotation, bytes));
  await takeOver(context, next, named, brought);
}

// Tells the server of the next key and its packages. If it takes none of them, the key alone takes over.
async function bring(context: Context, next: DeviceKey, rotation: Rotation, keypackages: string[]): Promise<Brought> {
  const { store, user, name, key: previous } = context;
  const server = context.server.withKey(next);
  const [grounds, isPreviousKnown] = await groundsOfRotation(context, next);
  const signed = await signStatement(grounds, previous, { kind: "rotate", device: name, agreed: next.id });
  const key = { user, device: name.slice(user.length + 1), previous_keyid: previous.id, ...signed };
  const declaration = await declarationOf(new Staged(store), next, name, grounds);
  const leaf_keys = declaration === undefined ? [] : [declaration];
  try {
    const { items } = await server.post("/keypackages/rotate", { keypackages, key, leaf_keys });
    return { items, declared: true };
  } catch (error) {
    if (hasCode(error, "invalid_key_package", "pool_full", "too_large")) {
      await server.post("/devices/rotate", key);
      return { items: error.items ?? [], declared: false };
    }
    if (isPreviousKnown && isFinal(error) && hasCode(error, ...HOPELESS)) {
      await drop(context, next, rotation);
    }
    throw error;
  }
}

// The state that the statement is made on, and whether the server knows the key before. After a lost answer it knows the
// next key only.
async function groundsOfRotation({ server, user, clock }: Context, next: DeviceKey) {
  try {
    return [await groundsOf(server, user, clock.nowS()), true] as const;
  } catch (error) {
    if (!hasCode(error, "unauthenticated")) {
      throw error;
    }
    return [await groundsOf(server.withKey(next), user, clock.nowS()), false] as const;
  }
}

async function drop(context: Context, next: DeviceKey, rotation: Rotation): Promise<void> {
  const staged = new Staged(context.store);
  rotation.packages.forEach((reference) => staged.delete(`package/${reference}`));
  forgetLeafKey(staged, next);
  staged.delete(RECORD);
  await staged.commit();
}

// The server has the next key: it is the device's from now on. Packages before keep the key that has signed them.
async function takeOver(context: Context, next: DeviceKey, named: string[], { items, declared }: Brought) {
  const staged = new Staged(context.store);
  const record = (await staged.get<DeviceRecord>("device")) as DeviceRecord;
  for (const [reference, stored] of await packagesOf(staged)) {
    const signatureKey = stored.signatureKey ?? record.secret;
    const item = items[named.indexOf(reference)];
    const outcome = item?.keypackage_ref === reference ? item.outcome : undefined;
    if (outcome === "rejected") {
      staged.delete(`package/${reference}`);
    } else {
      staged.put(`package/${reference}`, {
        ...stored,
        signatureKey,
        uploaded: stored.uploaded || outcome !== undefined,
      });
    }
  }
  for (const group of (await groupRecords(staged)).filter(({ active }) => active)) {
    staged.put(recordOf("group", group.id), { ...group, needsFreshKeys: true });
  }
  if (declared) {
    await noteDeclared(staged, next);
  }
  forgetLeafKey(staged, context.key);
  // The members of groups are held to the directory, this device too.
  await lookUp(staged, context.server.withKey(next), [context.user], context.clock.nowMs());
  staged.put("device", { ...record, secret: toBase64(next.secret) });
  staged.delete(RECORD);
  await staged.commit();
  useKey(context, next);
}

/** Lets this device speak with the key of its store, where another tab has replaced it. */
export async function reloadKey(context: Context): Promise<void> {
  const record = await new Staged(context.store).get<DeviceRecord>("device");
  if (record !== undefined && record.secret !== toBase64(context.key.secret)) {
    useKey(context, await DeviceKey.fromSecret(fromBase64(record.secret)));
  }
}
