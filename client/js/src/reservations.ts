// Reservations: claims on the packages of others, and the checks of a package that the server has handed out.

import { fromBase64, owned, type Bytes } from "./bytes.js";
import { release, type Claim } from "./commits.js";
import { idInBody, type Context } from "./context.js";
import type { ListedDevice } from "./directory.js";
import { KeypoolError } from "./errors.js";
import { leafOf, packageFault, readPackage, referenceOf, type KeyPackage, type PackageFault } from "./mls.js";
import { isLeafOf, lookUp, peerRecord } from "./peers.js";
import { freshKey, type Reply } from "./server.js";
import { Staged } from "./store.js";
import { suiteNumber, type Ciphersuite } from "./suites.js";

/** A package that is reserved for this device, of an app that makes the Commit by itself. */
export interface Reservation {
  /** The reference of the package, hexadecimal. */
  reference: string;
  /** The secret id of the claim. */
  id: string;
  /** The owner, `user/device`. */
  device: string;
  /** The bytes of the package, as its owner has uploaded them. */
  keyPackage: Bytes;
  /** Whether it is the package of last resort: its keys are shared with other invitations. */
  lastResort: boolean;
  /** When the claim ends. */
  ends: Date;
}

/** The outcome of spending a package. */
export interface Spent {
  /** Whether the claim had lapsed or the package expired before; nobody else was given it meanwhile. */
  late: boolean;
  /** Whether the same claim had spent it before. */
  replayed: boolean;
}

/** A device to invite, and its keys by the directory. */
export interface Target {
  user: string;
  device: string;
  listed: ListedDevice;
}

/** A reserved package that was checked. */
export interface Checked {
  device: string;
  keyPackage: KeyPackage;
  claim: Claim;
  lastResort: boolean;
}

type Offered = Omit<Reply<"/keypackages/reserve-many", "post">["reservations"][number], "user">;

/**
 * Checks a package that the server has handed out: the server is not trusted. It must be the one that is named, of one
 * of these ciphersuites, and the device's by its credential and its key. Returns the failed check of another one.
 */
export async function check(
  context: Context,
  offered: Offered,
  { user, device, listed }: Target,
  ciphersuites: Ciphersuite[],
): Promise<Checked | PackageFault> {
  const keyPackage = decoded(offered.keypackage);
  if (keyPackage === undefined) {
    return "encoding";
  }
  const { keypackage_ref, reservation_id, last_resort } = offered;
  const ciphersuite = suiteNumber(keyPackage.cipherSuite);
  if (keyPackage.version !== "mls10" || ciphersuite === undefined || !ciphersuites.includes(ciphersuite)) {
    return "ciphersuite";
  }
  if ((await referenceOf(keyPackage)) !== keypackage_ref) {
    return "reference";
  }
  const name = `${user}/${device}`;
  const leaf = leafOf(keyPackage.leafNode);
  if (!listed.introduced || !isLeafOf(leaf, name, listed)) {
    return leaf.claims === name || leaf.claims === user ? "directory" : "identity";
  }
  const fault = await packageFault(keyPackage, context.clock.nowS());
  const claim = { keypackage_ref, reservation_id };
  return fault ?? { device: name, keyPackage, claim, lastResort: last_resort };
}

function decoded(text: string): KeyPackage | undefined {
  try {
    return readPackage(fromBase64(text));
  } catch {
    return undefined;
  }
}

/** Reports a package that is faulty for everybody, so that the server withdraws it; gives another one back. */
export async function giveBack(context: Context, offered: Offered, fault: PackageFault): Promise<void> {
  const { keypackage_ref, reservation_id } = offered;
  const claim = { keypackage_ref, reservation_id };
  if (fault === "clock" || fault === "directory") {
    await release(context, [claim]);
    return;
  }
  await context.server.post("/keypackages/report", { ...claim, reason: fault }).catch((error: unknown) => {
    if (!(error instanceof KeypoolError)) {
      throw error;
    }
  });
}

/** Reserves a package of a user, or of one device `user/device`. Throws a `KeypoolError`. */
export async function reserve(
  context: Context,
  group: string,
  name: string,
  ciphersuites: Ciphersuite[],
): Promise<Reservation> {
  const [user = "", device] = name.split("/");
  const target = { target_user: user, ...(device && { target_device: device }) };
  const body = { ...target, group_id: idInBody(group), reservation_id: freshKey(), ciphersuites };
  const offered = await context.server.post("/keypackages/reserve", body);
  const listed = await listedDevice(context, user, offered.device);
  const found = { user, device: offered.device, listed: listed as ListedDevice };
  const isAsked = device === undefined || device === offered.device;
  const outcome = listed && isAsked ? await check(context, offered, found, ciphersuites) : "directory";
  if (typeof outcome === "string") {
    await giveBack(context, offered, outcome);
    const fact = `the package of ${name} that the server has handed out failed the check "${outcome}"`;
    throw new KeypoolError("package_rejected", fact, "Look at peer() for the user's keys, then reserve again.", {
      check: outcome,
    });
  }
  return {
    reference: offered.keypackage_ref,
    id: offered.reservation_id,
    device: outcome.device,
    keyPackage: owned(fromBase64(offered.keypackage)),
    lastResort: outcome.lastResort,
    ends: new Date(offered.reservation_expires_at * 1000),
  };
}

async function listedDevice(context: Context, user: string, device: string): Promise<ListedDevice | undefined> {
  const staged = new Staged(context.store);
  await lookUp(staged, context.server, [user], context.clock.nowMs());
  await staged.commit();
  const record = await peerRecord(staged, user);
  return record?.doubt === undefined ? record?.list.devices[device] : undefined;
}

/** Names a claim as the server has it. */
export function claimOf({ reference, id }: Pick<Reservation, "reference" | "id">): Claim {
  return { keypackage_ref: reference, reservation_id: id };
}
