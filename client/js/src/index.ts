/** A device of keypool: see README.md. The stores are in `keypool-client/node` and `keypool-client/browser`. */

export type { Audit, Finding } from "./audit.js";
export type { AppTypes } from "./capabilities.js";
export type { ClockOffset } from "./clock.js";
export { Device } from "./device.js";
export { KeypoolError, type LocalCode, type ServerCode } from "./errors.js";
export type { DeviceEvent, Invited, InvitedDevice, MissingDevice, NumberedEvent } from "./events.js";
export { MESSAGE_BYTES_MAX, type Sent } from "./messages.js";
export type { AwaitedDevice, DeviceOptions, DeviceStatus, Group, GroupOptions } from "./options.js";
export type { RegisterOptions, SyncOptions } from "./options.js";
export type { Member, Peer, Trust } from "./peers.js";
export type { PoolChange, PoolOptions, Refresh, RejectedPackage } from "./pool.js";
export type { Reservation, Spent } from "./reservations.js";
export { safetyNumber } from "./safety-number.js";
export type { Fetch } from "./server.js";
export { SealedStore, type Changes, type Store } from "./store.js";
