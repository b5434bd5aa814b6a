// The store of a device in a browser: a database of IndexedDB.

import { KeypoolError } from "./errors.js";
import { SealedStore, type Changes, type Store } from "./store.js";

const VALUES = "values";
// The name of the key in the place of values: no value's name begins so.
const SEALING_KEY = "!key";
const VERSION = 1;

/**
 * A store in IndexedDB. Tabs of one origin share it: each takes turns under `navigator.locks`. Values are not sealed
 * unless it is opened by `openSealed`.
 */
export class IndexedDbStore implements Store {
  readonly #name: string;
  readonly #database: IDBDatabase;

  private constructor(name: string, database: IDBDatabase) {
    this.#name = name;
    this.#database = database;
  }

  /** Opens the database of this name, and makes it if there is none. Needs a secure context. */
  static async open(name: string): Promise<IndexedDbStore> {
    if (globalThis.navigator?.locks === undefined || globalThis.indexedDB === undefined) {
      throw new KeypoolError(
        "invalid_argument",
        "this page has no IndexedDB or no navigator.locks",
        "Serve the page over https, or from localhost.",
      );
    }
    const request = indexedDB.open(`keypool-${name}`, VERSION);
    request.onupgradeneeded = () => request.result.createObjectStore(VALUES);
    const database = await outcome(request);
    // Lets another tab delete the database.
    database.onversionchange = () => database.close();
    return new IndexedDbStore(name, database);
  }

  /**
   * Opens the database of this name, sealed with a key that is drawn once, lies beside the values, and that no script
   * can export. A copy of what the API returns is unreadable; a script of this origin may still ask for each value.
   */
  static async openSealed(name: string): Promise<SealedStore> {
    const store = await IndexedDbStore.open(name);
    return store.exclusive("key", async () => {
      const values = (mode: IDBTransactionMode): IDBObjectStore =>
        store.#database.transaction(VALUES, mode, { durability: "strict" }).objectStore(VALUES);
      const known: CryptoKey | undefined = await outcome(values("readonly").get(SEALING_KEY));
      if (known !== undefined) {
        return SealedStore.over(store, known);
      }
      const algorithm = { name: "AES-GCM", length: 256 };
      const drawn = await crypto.subtle.generateKey(algorithm, false, ["encrypt", "decrypt"]);
      await outcome(values("readwrite").put(drawn, SEALING_KEY));
      return SealedStore.over(store, drawn);
    });
  }

  /** Returns a value. */
  get(name: string): Promise<string | undefined> {
    return outcome(this.#database.transaction(VALUES).objectStore(VALUES).get(name));
  }

  /** Returns the names that begin with a prefix, sorted. */
  async list(prefix: string): Promise<string[]> {
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const names = await outcome(this.#database.transaction(VALUES).objectStore(VALUES).getAllKeys(range));
    return names.map(String).filter((name) => name !== SEALING_KEY);
  }

  /** Writes all changes or none. */
  write(changes: Changes): Promise<void> {
    const transaction = this.#database.transaction(VALUES, "readwrite", { durability: "strict" });
    const values = transaction.objectStore(VALUES);
    for (const [name, value] of changes) {
      value === undefined ? values.delete(name) : values.put(value, name);
    }
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /** Does some work while no other tab does under the same lock. */
  exclusive<T>(lock: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const options = signal === undefined ? {} : { signal };
    return navigator.locks.request(`keypool-${this.#name}/${lock}`, options, work) as Promise<T>;
  }

  /** Closes the database. */
  async close(): Promise<void> {
    this.#database.close();
  }
}

function outcome<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
