// The options of a device, and the answers that describe it.

import type { AppTypes } from "./capabilities.js";
import type { PoolOptions } from "./pool.js";
import type { Fetch } from "./server.js";
import type { Store } from "./store.js";

/** How a device is opened. */
export interface DeviceOptions {
  /** The store of this device alone: `FileStore` on Node, `IndexedDbStore` in a browser, or the app's own. */
  store: Store;
  /** The address of the server: scheme, host and perhaps port. */
  server: string;
  /** The user's name. */
  user: string;
  /** The device's name among the user's; `main` by default. */
  device?: string;
  /** The ciphersuites that packages are kept of, among 1, 2 and 3; the first one is that of new groups. 1 by default. */
  ciphersuites?: number[];
  /** The types of extensions and proposals that the app handles, beside the default ones: packages list them. */
  capabilities?: AppTypes;
  pool?: PoolOptions;
  /** The key of the server's ledger from the operator; by default the first one that the server shows. */
  ledgerKey?: string;
  /** A `fetch` of the app's own, for a proxy. */
  fetch?: Fetch;
  /** The device's clock in Unix milliseconds; `Date.now` by default. */
  now?: () => number;
}

/** How a device is registered. */
export interface RegisterOptions {
  /** The word of another device of the user, from `vouch`. */
  voucher?: string;
  /** The operator's token, where tokens are asked for. */
  token?: string;
}

/** How one call of `sync` waits. */
export interface SyncOptions {
  /** For how many seconds the server may hold its answer while nothing waits; 0 by default, 30 at most. */
  waitSeconds?: number;
  /** Breaks the waiting off. */
  signal?: AbortSignal;
}

/** How a group is made. */
export interface GroupOptions {
  /** The id, base64url of at most 256 bytes; by default the name and 16 random digits. Draw one at random. */
  id?: string;
  /** The ciphersuite, one of the device's; the first of these by default. */
  ciphersuite?: number;
  /** The types of extensions and proposals that each member has to handle, all of them among the `capabilities`. */
  required?: AppTypes;
}

/** A group of this device. */
export interface Group {
  /** The id, for calls: base64url of its bytes. */
  id: string;
  /** The name for people. */
  name: string;
  epoch: number;
  /** Whether this device is a member. */
  active: boolean;
}

/** A device or user whose packages are waited for. */
export interface AwaitedDevice {
  name: string;
  /** `waiting` for 14 days, `available` now, or `refused` with the `code` of reserving a package. */
  status: string;
  code?: string;
}

/** The state of a device. */
export interface DeviceStatus {
  /** How many packages the server can hand out, of all ciphersuites of this device. */
  available: number;
  reserved: number;
  spent: number;
  lastResort: number;
  health: string;
  /** The packages to hand out by ciphersuite. */
  ciphersuites: { ciphersuite: number; available: number }[];
  /** How many packages this device has private keys for. */
  privateKeys: number;
  /** How many messages wait to be posted. */
  queued: number;
  groups: Group[];
}
