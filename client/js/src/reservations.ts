// Reserved packages: checked, and given back if a check fails.

import { fromBase64 } from "./bytes.js";
import { release, type Claim } from "./commits.js";
import type { Context } from "./context.js";
import type { ListedDevice } from "./directory.js";
import { KeypoolError } from "./errors.js";
import { leafOf, packageFault, readPackage, referenceOf, type KeyPackage, type PackageFault } from "./mls.js";
import { isLeafOf } from "./peers.js";
import type { Reply } from "./server.js";
import { suiteNumber, type Ciphersuite } from "./suites.js";

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
