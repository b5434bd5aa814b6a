// The server's time: this device's clock, corrected by the `Keypool-Time` of each answer.

/** How far this device's clock is off. */
export interface ClockOffset {
  /** By how many seconds the device's clock is ahead of the server's; negative if it is behind. */
  deviceAheadSeconds: number;
  /**
   * Whether this device goes by the server's time. If not, the difference is over a day and the server has not
   * shown its time by its key: the device's clock has to be set.
   */
  corrected: boolean;
}

/** A device's knowledge of its server's time, as the store keeps it. */
export interface KnownTime {
  /** How far the server's clock is ahead of the device's, in milliseconds, as far as it is believed. */
  aheadMs: number;
  /** How far it was when the ledger's key had signed it, in milliseconds. */
  verifiedMs: number;
  /** How far it is by the last answer, in milliseconds, where that is not believed. */
  doubtedMs?: number;
  /** The difference that the app was told of last, in milliseconds. */
  toldMs: number;
}

// A difference that answers on their way explain.
const NOISE_MS = 10_000;
// A difference that is worth telling a person.
const TOLD_MS = 60_000;
// A difference that is believed without a signature.
const BELIEVED_MS = 24 * 3_600_000;

/** The clock of a server, as a device knows it (docs/decisions/0020-one-clock.md). */
export class ServerClock {
  readonly #device: () => number;
  #known: KnownTime = { aheadMs: 0, verifiedMs: 0, toldMs: 0 };

  /** A clock over the device's own, which returns Unix milliseconds. */
  constructor(device: () => number) {
    this.#device = device;
  }

  /** The time in Unix milliseconds. */
  nowMs(): number {
    return this.#device() + this.#known.aheadMs;
  }

  /** The time in Unix seconds. */
  nowS(): number {
    return Math.floor(this.nowMs() / 1000);
  }

  /** Takes in the server's unsigned time, in Unix milliseconds, from an answer. */
  hear(serverMs: number): void {
    const aheadMs = serverMs - this.#device();
    if (!Number.isFinite(aheadMs)) {
      return;
    }
    if (Math.abs(aheadMs - this.#known.verifiedMs) > BELIEVED_MS) {
      this.#known.doubtedMs = aheadMs;
      return;
    }
    delete this.#known.doubtedMs;
    if (Math.abs(aheadMs - this.#known.aheadMs) > NOISE_MS) {
      this.#known.aheadMs = aheadMs;
    }
  }

  /** Takes in the server's time that its ledger's key has signed, in Unix milliseconds. */
  verify(serverMs: number): void {
    const aheadMs = serverMs - this.#device();
    this.#known = { aheadMs, verifiedMs: aheadMs, toldMs: this.#known.toldMs };
  }

  /** Whether the server says a time that is believed only once its key has signed it. */
  isInDoubt(): boolean {
    return this.#known.doubtedMs !== undefined;
  }

  /** Returns the offset of the device's clock that the app is to be told of, once. */
  tell(): ClockOffset | undefined {
    const aheadMs = this.#known.doubtedMs ?? this.#known.aheadMs;
    if (Math.abs(aheadMs - this.#known.toldMs) <= TOLD_MS) {
      return undefined;
    }
    this.#known.toldMs = aheadMs;
    if (Math.abs(aheadMs) <= TOLD_MS) {
      return undefined;
    }
    return { deviceAheadSeconds: Math.round(-aheadMs / 1000), corrected: !this.isInDoubt() };
  }

  /** The knowledge, for the store. */
  known(): KnownTime {
    return { ...this.#known };
  }

  /** Goes on with the knowledge from the store. */
  restore(known: KnownTime): void {
    this.#known = { ...known };
  }
}
