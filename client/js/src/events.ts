// The events of a device, for the app.

import { fromBase64, toBase64 } from "./bytes.js";
import type { Member, Trust } from "./peers.js";

/** A device that was added by an invitation. */
export interface InvitedDevice {
  /** `user/device`. */
  device: string;
  /** The reference of its package. */
  reference: string;
  /** Whether that is the package of last resort: its keys are shared with other invitations. */
  lastResort: boolean;
}

/** A user or device that an invitation has left out. */
export interface MissingDevice {
  /** `user` or `user/device`. */
  name: string;
  /**
   * The server's code, as `pool_exhausted`; or `already_member`, `keys_changed` (the keys do not follow from those seen
   * before: compare them, then `acceptPeer`), or `package_rejected` with the failed check as the `reason`.
   */
  code: string;
  reason?: string;
}

/** The outcome of an invitation. */
export interface Invited {
  group: string;
  invited: InvitedDevice[];
  missing: MissingDevice[];
}

/**
 * An event of a device. Groups are ids. Each is kept until the app's handler has returned, so one may come again after
 * a crash: with the same `id`.
 */
export type DeviceEvent =
  /** A Welcome was opened. `reference` is the package that it used up. */
  | { kind: "joined"; group: string; inviter: Member; members: Member[]; reference: string }
  /** The inviter's key is not the user's by the directory: the group was not joined. Somebody may use the name. */
  | { kind: "invitationRefused"; group: string; inviter: Member }
  /** A message. `text` is the bytes as UTF-8, where they are. */
  | { kind: "message"; group: string; sender: Member; bytes: Uint8Array; text: string | undefined; at: Date }
  /** The sender of a message is another one than the server said. The message tells the truth. */
  | { kind: "otherSender"; group: string; sender: string; serverSaid: string }
  /** A Commit of another member. */
  | { kind: "changed"; group: string; epoch: number; by: Member; added: Member[]; removed: string[] }
  /** This device was removed from a group. */
  | { kind: "removed"; group: string; by: Member }
  /** A member has proposed a change, as its own leaving: the next Commit of any member does it. */
  | { kind: "proposed"; group: string; by: Member }
  /** The answer of a device that this one has invited. */
  | { kind: "answer"; group: string; device: string; outcome: string; reason: string | undefined }
  /** An invitation that a crash or a broken line had left unfinished has ended. */
  | ({ kind: "invited" } & Invited)
  /** An invitation that was left unfinished was refused. */
  | { kind: "notInvited"; group: string; names: string[]; code: string; message: string }
  /** A message that waited in the outbox was refused. */
  | { kind: "notSent"; group: string; code: string; message: string }
  /** An item of the mailbox cannot be opened, ever. */
  | { kind: "unreadable"; group: string; sender: string | undefined; reason: string }
  /** The mailbox had no room: messages of `sender` were lost or, without one, Commits too. */
  | { kind: "notKept"; group: string; sender: string | undefined }
  /** A device that an invitation has waited for has packages again. */
  | { kind: "available"; device: string }
  /** The store is an older copy of itself: its groups may only be read. */
  | { kind: "setBack" };

/** An event with its id. */
export type NumberedEvent = DeviceEvent & { id: string };

export type { Member, Trust };

/** An event as the store has it: bytes are base64, times Unix milliseconds. */
export function eventToStore(event: DeviceEvent): object {
  return event.kind === "message" ? { ...event, bytes: toBase64(event.bytes), at: event.at.getTime() } : event;
}

/** An event from the store. */
export function storedEvent(stored: object): DeviceEvent {
  const event = stored as { kind: string; bytes: string; at: number };
  const isMessage = event.kind === "message";
  return (isMessage ? { ...event, bytes: fromBase64(event.bytes), at: new Date(event.at) } : event) as DeviceEvent;
}
