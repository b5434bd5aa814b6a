// The device's record, and the words by which one device brings another.

import { toBase64 } from "./bytes.js";
import type { Context } from "./context.js";
import { KeypoolError } from "./errors.js";
import { DeviceKey } from "./signing.js";
import { groundsOf, signStatement } from "./statements.js";
import type { Staged } from "./store.js";

/** A device in its store. */
export interface DeviceRecord {
  user: string;
  device: string;
  server: string;
  /** The private key, base64. */
  secret: string;
  ledgerKey?: string;
}

/** The record of a device in its store, made with a new key if there is none. Throws `store_of_another`. */
export async function deviceRecord(
  staged: Staged,
  { user, device, server }: { user: string; device: string; server: string },
): Promise<DeviceRecord> {
  const stored = await staged.get<DeviceRecord>("device");
  if (stored === undefined) {
    const secret = toBase64((await DeviceKey.generate()).secret);
    const record = { user, device, server, secret };
    staged.put("device", record);
    return record;
  }
  if (stored.user !== user || stored.device !== device || stored.server !== server) {
    throw new KeypoolError(
      "store_of_another",
      `the store is that of ${stored.user}/${stored.device} at ${stored.server}, not of ${user}/${device} at ${server}`,
      "Open it with its own names, or give this device a store of its own.",
    );
  }
  return stored;
}

/** Reads the word of `vouchFor`. Throws `invalid_argument`. */
export function voucherOf(word: string): { keyid: string; head: string; until: number; proof: string } {
  const [keyid, head, until, proof] = word.split(".");
  if (!keyid || !head || !until || !proof || !/^\d+$/.test(until)) {
    throw new KeypoolError("invalid_argument", "the text is no voucher", "Take the word that vouch() returns, whole.");
  }
  return { keyid, head, until: Number(until), proof };
}

/** Signs a voucher for another device of the user, good for five minutes and for the user's present devices. */
export async function vouchFor(context: Context, device: string, key: string): Promise<string> {
  const { server, user, key: own, clock } = context;
  const grounds = await groundsOf(server, user, clock.nowS());
  const voucher = { kind: "vouch", device: `${user}/${device}`, agreed: key };
  const { head, until, proof } = await signStatement(grounds, own, voucher);
  return [own.id, head, until, proof].join(".");
}
