// The directory's chain: the changes of a user's device list, verified from the user's first key on.
//
// Every change but a removal and a release carries a statement by a key that was the user's before, on the head of the
// device list at that moment. So a change that was left out, added or put elsewhere shows at the next statement, or at
// the head that the server names in the end. It is the same check as keypool_projections::directory.

import { blake3 } from "@noble/hashes/blake3.js";

import { fromBase64, fromBase64Url, toHex, utf8 } from "./bytes.js";
import { hasSigned } from "./signing.js";

/** A statement by which a key has agreed to a change. */
interface SignedStatement {
  /** The key that signed, base64url. */
  by: string;
  /** The head of the list it was made on, hexadecimal. */
  head: string;
  /** When it ended, in Unix milliseconds. */
  until: number;
  /** The signature, base64url. */
  proof: string;
}

/** A change of a user's device list, as the server shows it. */
export interface DeviceChange {
  device: string;
  position: number;
  at_ms: number;
  event: Record<string, ChangeFields>;
}

interface ChangeFields {
  signature_key?: string;
  signature_scheme?: number;
  recovery_key?: string;
  credential?: string;
  statement?: SignedStatement | null;
}

/** How a device came to be the user's. */
export type Origin = "first" | "vouched" | "recovered" | "unsigned";

/** A device of a list. */
export interface ListedDevice {
  /** How often its keys have changed: a part of the list's head. */
  changes: number;
  /** The key that signs for it, base64url; `null` if it was removed. */
  key: string | null;
  /** When that key was registered, in Unix milliseconds. */
  sinceMs: number;
  origin: Origin;
  /** Whether statements lead from the user's first key to the key of now. */
  introduced: boolean;
  /** The keys that sign its packages of other signature schemes, by scheme. */
  leafKeys: Record<string, string>;
  /** The keys that signed before others took their place. */
  formerKeys: string[];
  /** The credential that its packages carry by its declaration, base64; `null` for the Basic one that names it. */
  credential: string | null;
}

/** A user's devices and keys, as the chain has left them. */
export interface DeviceList {
  user: string;
  /** The position of the last change. */
  position: number;
  /** How often the operator has released the name: then it may be another person's. */
  releases: number;
  /** Whether a device was registered since the last release. */
  begun: boolean;
  recoveryKey: string | null;
  /** The device that set the first recovery key. */
  recoveryDevice: string | null;
  recoveryIntroduced: boolean;
  /** Keys that were removed or replaced: they are nobody's ever after. */
  retired: string[];
  devices: Record<string, ListedDevice>;
  /** The heads before the removals that came last, in a row: a recovery names one of them. */
  headsBeforeRemovals: string[];
  /** The device that was rotated last, and the head before, as long as only leaf keys have followed. */
  headBeforeRotation: [string, string] | null;
}

/** The reason to refuse a chain: a lie of the server, or a damaged answer. */
export class ChainError extends Error {}

/** The empty list of a user. */
export function emptyList(user: string): DeviceList {
  return {
    user,
    position: 0,
    releases: 0,
    begun: false,
    recoveryKey: null,
    recoveryDevice: null,
    recoveryIntroduced: false,
    retired: [],
    devices: {},
    headsBeforeRemovals: [],
    headBeforeRotation: null,
  };
}

/** The head of a list, which the next statement names, hexadecimal. */
export function headOf({ user, devices }: DeviceList): string {
  const lines = Object.keys(devices)
    .sort()
    .map((name) => {
      const { changes, key } = devices[name] as ListedDevice;
      return `${name} ${changes} ${key ?? "-"}\n`;
    });
  return toHex(blake3(utf8(`keypool-devices-v1\n${user}\n${lines.join("")}`)));
}

/** The registered devices of a list by name. */
export function registered(list: DeviceList): [string, ListedDevice][] {
  return Object.entries(list.devices).filter(([, listed]) => listed.key !== null);
}

/** The lines of a statement. `agreed` is its sixth line. */
export function statementLines(
  kind: string,
  [ledger, subject, by, agreed, head, untilS]: [string, string, string, string, string, number],
): string {
  return `keypool-statement-v2\n${kind}\n${ledger}\n${subject}\n${by}\n${agreed}\n${head}\n${untilS}\n`;
}

/** Takes the registered devices for the user's: for a reader who sees the user for the first time. */
export function adopt(list: DeviceList): void {
  registered(list).forEach(([, listed]) => (listed.introduced = true));
  list.recoveryIntroduced ||= list.recoveryKey !== null;
}

/**
 * Returns the list after the changes that the server shows, compared with the head and the position that it names.
 * `ledgers` are those that statements may be for. Throws a `ChainError`.
 */
export async function follow(
  before: DeviceList,
  shown: { head: string; position: number; history: DeviceChange[] },
  ledgers: string[],
): Promise<DeviceList> {
  if (shown.position < before.position) {
    const { user, position } = before;
    throw new ChainError(`the server shows an older list of ${user}'s devices: ${shown.position}, not ${position}`);
  }
  const list = structuredClone(before);
  for (const change of shown.history) {
    await new Step(list, change, ledgers).apply();
  }
  if (headOf(list) !== shown.head || list.position !== shown.position) {
    throw new ChainError(`the server keeps changes of ${before.user}'s devices back`);
  }
  return list;
}

/** One change, and the list that it is checked against and applied to. */
class Step {
  readonly #list: DeviceList;
  readonly #change: DeviceChange;
  readonly #ledgers: string[];
  readonly #name: string;
  readonly #kind: string;
  readonly #fields: ChangeFields;

  constructor(list: DeviceList, change: DeviceChange, ledgers: string[]) {
    [this.#list, this.#change, this.#ledgers] = [list, change, ledgers];
    const [[kind, fields] = ["", {}]] = Object.entries(change.event);
    [this.#kind, this.#fields] = [kind, fields];
    this.#name = change.device.slice(change.device.indexOf("/") + 1);
  }

  async apply(): Promise<void> {
    const { device, position } = this.#change;
    if (!device.startsWith(`${this.#list.user}/`)) {
      throw this.#refused(`is of ${device}, another user's device`);
    }
    if (!Number.isSafeInteger(position) || position <= this.#list.position) {
      throw this.#outOfOrder();
    }
    const head = headOf(this.#list);
    await this.#applyKind(head);
    if (this.#kind !== "device_removed") {
      this.#list.headsBeforeRemovals = [];
    }
    if (this.#kind !== "key_rotated" && this.#kind !== "leaf_key_pinned") {
      this.#list.headBeforeRotation = null;
    }
    this.#list.position = position;
  }

  async #applyKind(head: string): Promise<void> {
    switch (this.#kind) {
      case "registered":
        return this.#register(head);
      case "key_rotated":
        return this.#rotate(head);
      case "device_removed":
        return this.#remove(head);
      case "leaf_key_pinned":
        return this.#pinLeafKey(head);
      case "credential_declared":
        return this.#declareCredential(head);
      case "recovery_key_set":
        return this.#setRecoveryKey(head);
      case "name_released":
        return this.#release();
      default:
        throw this.#outOfOrder();
    }
  }

  async #register(head: string): Promise<void> {
    const before = this.#list.devices[this.#name];
    if (before !== undefined && before.key !== null) {
      throw this.#outOfOrder();
    }
    const key = this.#freshKey(this.#fields.signature_key);
    const [origin, introduced] = await this.#originOf(key, head);
    if (origin === "recovered") {
      Object.values(this.#list.devices).forEach((listed) => (listed.introduced = false));
    }
    this.#list.begun = true;
    this.#list.devices[this.#name] = {
      changes: (before?.changes ?? 0) + 1,
      key,
      sinceMs: this.#change.at_ms,
      origin,
      introduced,
      leafKeys: {},
      formerKeys: [],
      credential: null,
    };
  }

  async #originOf(key: string, head: string): Promise<[Origin, boolean]> {
    const statement = this.#fields.statement;
    if (!statement) {
      const isFirst = !this.#list.begun && registered(this.#list).length === 0;
      return [isFirst ? "first" : "unsigned", isFirst];
    }
    if (this.#list.recoveryKey === statement.by) {
      await this.#signed("recover", key, statement, [...this.#list.headsBeforeRemovals, head]);
      return ["recovered", this.#list.recoveryIntroduced];
    }
    const by = registered(this.#list).find(([, listed]) => listed.key === statement.by);
    if (by === undefined) {
      throw this.#notTheUsers(statement);
    }
    await this.#signed("vouch", key, statement, [head]);
    return ["vouched", by[1].introduced];
  }

  async #rotate(head: string): Promise<void> {
    const listed = this.#speaking();
    const key = this.#freshKey(this.#fields.signature_key);
    const statement = this.#fields.statement;
    if (statement) {
      await this.#signedBy(listed, "rotate", key, statement, [head]);
    }
    this.#list.headBeforeRotation = [this.#name, head];
    this.#list.retired.push(listed.key as string);
    listed.formerKeys.push(...Object.values(listed.leafKeys), listed.key as string);
    // One key goes, and another comes.
    listed.changes += 2;
    listed.introduced &&= Boolean(statement);
    Object.assign(listed, { key, sinceMs: this.#change.at_ms, leafKeys: {} });
  }

  #remove(head: string): void {
    const listed = this.#speaking();
    this.#list.headsBeforeRemovals.push(head);
    this.#list.retired.push(listed.key as string);
    listed.changes += 1;
    Object.assign(listed, { key: null, leafKeys: {}, formerKeys: [], credential: null });
  }

  async #pinLeafKey(head: string): Promise<void> {
    const listed = this.#speaking();
    const { signature_scheme: scheme = 0, statement } = this.#fields;
    const key = this.#livingKey(this.#fields.signature_key);
    if (statement) {
      const [rotated, before] = this.#list.headBeforeRotation ?? ["", ""];
      const heads = rotated === this.#name ? [before, head] : [head];
      const agreed = `0x${scheme.toString(16).padStart(4, "0")} ${key}`;
      await this.#signedBy(listed, "leaf-key", agreed, statement, heads);
      const earlier = listed.leafKeys[scheme];
      listed.formerKeys.push(...(earlier === undefined ? [] : [earlier]));
      listed.leafKeys[scheme] = key;
    }
    listed.changes += 1;
  }

  async #declareCredential(head: string): Promise<void> {
    const listed = this.#speaking();
    const { credential, statement } = this.#fields;
    if (credential === undefined || !statement) {
      throw this.#outOfOrder();
    }
    await this.#signedBy(listed, "credential", toHex(blake3(fromBase64(credential))), statement, [head]);
    listed.credential = credential;
    listed.changes += 1;
  }

  async #setRecoveryKey(head: string): Promise<void> {
    const list = this.#list;
    const key = this.#freshKey(this.#fields.recovery_key);
    const statement = this.#fields.statement;
    if (!statement || (list.recoveryDevice !== null && list.recoveryDevice !== this.#name)) {
      throw this.#outOfOrder();
    }
    if (list.recoveryKey === null) {
      const listed = this.#speaking();
      await this.#signedBy(listed, "recovery-key", key, statement, [head]);
      list.recoveryIntroduced = listed.introduced;
    } else if (list.recoveryKey === statement.by) {
      await this.#signed("recovery-key", key, statement, [head]);
      list.retired.push(list.recoveryKey);
    } else {
      throw this.#notTheUsers(statement);
    }
    list.recoveryKey = key;
    list.recoveryDevice ??= this.#name;
    this.#count();
  }

  #release(): void {
    const list = this.#list;
    if ((list.devices[this.#name]?.key ?? null) !== null) {
      throw this.#outOfOrder();
    }
    list.retired.push(...(list.recoveryKey === null ? [] : [list.recoveryKey]));
    Object.assign(list, { recoveryKey: null, recoveryDevice: null, recoveryIntroduced: false });
    list.releases += list.begun ? 1 : 0;
    list.begun = false;
    this.#count();
  }

  #count(): void {
    const listed = this.#list.devices[this.#name];
    if (listed !== undefined) {
      listed.changes += 1;
    }
  }

  #speaking(): ListedDevice {
    const listed = this.#list.devices[this.#name];
    if (listed === undefined || listed.key === null) {
      throw this.#outOfOrder();
    }
    return listed;
  }

  // A key that no device has, and that was not removed or replaced.
  #freshKey(key: string | undefined): string {
    const living = this.#livingKey(key);
    if (registered(this.#list).some(([, listed]) => listed.key === living)) {
      throw this.#refused("brings back a key that is in use");
    }
    return living;
  }

  #livingKey(key: string | undefined): string {
    if (typeof key !== "string") {
      throw this.#outOfOrder();
    }
    if (this.#list.recoveryKey === key || this.#list.retired.includes(key)) {
      throw this.#refused("brings back a key that was removed or replaced");
    }
    return key;
  }

  #signedBy(listed: ListedDevice, kind: string, agreed: string, statement: SignedStatement, heads: string[]) {
    if (listed.key !== statement.by) {
      throw this.#notTheUsers(statement);
    }
    return this.#signed(kind, agreed, statement, heads);
  }

  async #signed(kind: string, agreed: string, statement: SignedStatement, heads: string[]): Promise<void> {
    const { by, head, until, proof } = statement;
    if (!heads.includes(head)) {
      throw this.#refused("was agreed to on another list: a change before it is left out or was added");
    }
    if (until <= this.#change.at_ms) {
      throw this.#refused("was agreed to by a statement that had ended");
    }
    for (const ledger of this.#ledgers) {
      const lines = statementLines(kind, [ledger, this.#change.device, by, agreed, head, Math.floor(until / 1000)]);
      if (await hasSigned(fromBase64Url(by), utf8(lines), fromBase64Url(proof))) {
        return;
      }
    }
    throw this.#refused("is not signed by the key that its statement names");
  }

  #notTheUsers({ by }: SignedStatement): ChainError {
    return this.#refused(`was agreed to by ${by}, which was no key of the user then`);
  }

  #outOfOrder(): ChainError {
    return this.#refused("does not follow from those before it");
  }

  #refused(why: string): ChainError {
    return new ChainError(`the change at position ${this.#change.position} of ${this.#change.device} ${why}`);
  }
}
