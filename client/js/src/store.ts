// The store of a device: named texts, and changes that are written as one.

import { KeypoolError } from "./errors.js";
import { fromBase64, owned, random, textOf, toBase64, utf8, type Bytes } from "./bytes.js";

/**
 * Changes of a store by name: a text is the new value, `undefined` deletes the value.
 */
export type Changes = ReadonlyMap<string, string | undefined>;

/**
 * The durable store of one device. Names are printable ASCII of at most 200 characters; values are text.
 *
 * A store that fails throws; it never answers with less than was written.
 */
export interface Store {
  /** Returns a value; `undefined` if there is none. */
  get(name: string): Promise<string | undefined>;
  /** Returns the names that begin with a prefix, sorted. */
  list(prefix: string): Promise<string[]>;
  /** Writes all changes or none, also in a crash, and returns once they are durable. */
  write(changes: Changes): Promise<void>;
  /**
   * Does some work while nobody else works under the same lock on this store: no other call, tab or process. Locks of
   * different names do not wait for each other. `signal` ends the wait.
   */
  exclusive<T>(lock: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** Closes the store. */
  close(): Promise<void>;
}

/** Changes that are collected, read through, and written as one. */
export class Staged {
  readonly #store: Store;
  readonly #changes = new Map<string, string | undefined>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** Returns a record, as this operation has it; `undefined` if there is none. */
  async get<T>(name: string): Promise<T | undefined> {
    const value = this.#changes.has(name) ? this.#changes.get(name) : await this.#store.get(name);
    if (value === undefined) {
      return undefined;
    }
    try {
      return JSON.parse(value) as T;
    } catch (cause) {
      throw damaged(name, cause);
    }
  }

  /** Returns the names that begin with a prefix, as this operation has them, sorted. */
  async list(prefix: string): Promise<string[]> {
    const names = new Set(await this.#store.list(prefix));
    for (const [name, value] of this.#changes) {
      if (name.startsWith(prefix)) {
        value === undefined ? names.delete(name) : names.add(name);
      }
    }
    return [...names].sort();
  }

  /** Puts a record. */
  put(name: string, record: unknown): void {
    this.#changes.set(name, JSON.stringify(record));
  }

  /** Deletes a record. */
  delete(name: string): void {
    this.#changes.set(name, undefined);
  }

  /** Writes all changes or none. */
  async commit(): Promise<void> {
    if (this.#changes.size > 0) {
      await this.#store.write(this.#changes);
      this.#changes.clear();
    }
  }
}

/** The error of a value that cannot be read. */
export function damaged(name: string, cause: unknown): KeypoolError {
  return new KeypoolError(
    "store_damaged",
    `the value "${name}" of the device's store cannot be read`,
    "Put the store back from a backup, or open an empty one and register the device anew.",
    { cause },
  );
}

// The bytes of a nonce of AES-GCM.
const NONCE_BYTES = 12;

/**
 * A store whose values are sealed with AES-256-GCM under a key that the app keeps: a non-extractable `CryptoKey`, or
 * 32 bytes from the system's keychain. Names are not sealed. A value is bound to its name.
 */
export class SealedStore implements Store {
  readonly #inner: Store;
  readonly #key: CryptoKey;

  private constructor(inner: Store, key: CryptoKey) {
    this.#inner = inner;
    this.#key = key;
  }

  /** Seals a store under a key: a `CryptoKey` for AES-GCM, or 32 bytes. */
  static async over(inner: Store, key: CryptoKey | Uint8Array): Promise<SealedStore> {
    if (!(key instanceof Uint8Array)) {
      return new SealedStore(inner, key);
    }
    const usages: KeyUsage[] = ["encrypt", "decrypt"];
    return new SealedStore(inner, await crypto.subtle.importKey("raw", owned(key), "AES-GCM", false, usages));
  }

  /** Returns a value, opened. */
  async get(name: string): Promise<string | undefined> {
    const sealed = await this.#inner.get(name);
    return sealed === undefined ? undefined : this.#open(name, sealed);
  }

  /** Returns the names that begin with a prefix, sorted. */
  list(prefix: string): Promise<string[]> {
    return this.#inner.list(prefix);
  }

  /** Seals the new values, and writes all changes or none. */
  async write(changes: Changes): Promise<void> {
    const sealed = new Map<string, string | undefined>();
    for (const [name, value] of changes) {
      sealed.set(name, value === undefined ? undefined : await this.#seal(name, value));
    }
    await this.#inner.write(sealed);
  }

  /** Does some work under a lock of the store below. */
  exclusive<T>(lock: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#inner.exclusive(lock, work, signal);
  }

  /** Closes the store below. */
  close(): Promise<void> {
    return this.#inner.close();
  }

  async #seal(name: string, value: string): Promise<string> {
    const iv = random(NONCE_BYTES);
    const algorithm = { name: "AES-GCM", iv, additionalData: utf8(name) };
    const sealed = new Uint8Array(await crypto.subtle.encrypt(algorithm, this.#key, utf8(value)));
    return toBase64(new Uint8Array([...iv, ...sealed]));
  }

  async #open(name: string, text: string): Promise<string> {
    try {
      const bytes = fromBase64(text);
      const [iv, sealed]: Bytes[] = [bytes.slice(0, NONCE_BYTES), bytes.slice(NONCE_BYTES)];
      const algorithm = { name: "AES-GCM", iv: iv as Bytes, additionalData: utf8(name) };
      const opened = await crypto.subtle.decrypt(algorithm, this.#key, sealed as Bytes);
      return textOf(new Uint8Array(opened)) as string;
    } catch (cause) {
      throw damaged(name, cause);
    }
  }
}

/** Runs works one after the other, each under a name: the locks of a store within one process. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Does some work once all before it under the same name have ended. */
  async take<T>(name: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#last.get(name) ?? Promise.resolve();
    const mine = before.then(() => {
      signal?.throwIfAborted();
      return work();
    });
    this.#last.set(
      name,
      mine.catch(() => undefined),
    );
    return mine;
  }
}
