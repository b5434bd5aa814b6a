// The effect of an item of the mailbox.

import type { MailboxRecord } from "./context.js";
import type { DeviceEvent } from "./events.js";

/** The effect of an item. */
export interface Effect {
  events: DeviceEvent[];
  /** Whether the device has joined the group. */
  accepted?: boolean;
  /** Why the device could not join the group. */
  failed?: MailboxRecord["failed"][number]["reason"];
}

/** An item that can never be opened. */
export class Unopenable extends Error {
  /** The reason that the inviter of a Welcome is told. */
  readonly reason: MailboxRecord["failed"][number]["reason"];

  constructor(reason: MailboxRecord["failed"][number]["reason"], message: string) {
    super(message);
    this.reason = reason;
  }
}
