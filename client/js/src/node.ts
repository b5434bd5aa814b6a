// The store of a device on Node: a folder with a file for each value.

import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import { KeypoolError } from "./errors.js";
import { FolderLock } from "./folder-lock.js";
import { damaged, Turns, type Changes, type Store } from "./store.js";

// The file that holds changes which are decided and perhaps not applied.
const JOURNAL = "journal";
// The folder of the values.
const VALUES = "values";
// The turns of writes, beside the locks of callers.
const WRITING = "\u0000writing";
// The end of the name of a file that is not whole yet.
const PARTIAL = ".partial";

// A name, and its new value or none.
type Written = readonly [string, string | null];

/**
 * A store in a folder, for one process at a time: a second one is refused with `store_in_use` and told which process
 * has it. Files are readable for their owner only and not sealed: see `SealedStore`.
 *
 * A write of several values stands in a journal, durably, before it is applied; opening the store applies what a crash
 * has left.
 */
export class FileStore implements Store {
  readonly #folder: string;
  readonly #lock: FolderLock;
  readonly #turns = new Turns();
  #isClosed = false;
  // Why a write has failed.
  #failure: unknown;

  private constructor(folder: string, lock: FolderLock) {
    this.#folder = folder;
    this.#lock = lock;
  }

  /**
   * Opens a folder, and makes it if there is none. Throws a `KeypoolError` with the code `store_in_use` if another
   * process or another store of this process has it.
   */
  static async open(folder: string): Promise<FileStore> {
    await mkdir(join(folder, VALUES), { recursive: true, mode: 0o700 });
    const store = new FileStore(folder, await FolderLock.take(folder));
    try {
      await store.#recover();
    } catch (error) {
      await store.close();
      throw error;
    }
    return store;
  }

  /** Returns a value. */
  async get(name: string): Promise<string | undefined> {
    this.#refuseIfFailed();
    return readIfThere(this.#path(name));
  }

  /** Returns the names that begin with a prefix, sorted. */
  async list(prefix: string): Promise<string[]> {
    this.#refuseIfFailed();
    const files = await readdir(join(this.#folder, VALUES));
    const names = files.filter((file) => !file.endsWith(PARTIAL)).map(nameOf);
    return names.filter((name) => name.startsWith(prefix)).sort();
  }

  /**
   * Writes all changes or none. After a write that has failed, nobody knows which: every call is refused with
   * `store_damaged` until the store is opened again, which finishes the write or finds none of it.
   */
  write(changes: Changes): Promise<void> {
    const all = [...changes].map(([name, value]) => [name, value ?? null] as const);
    return this.#turns.take(WRITING, async () => {
      if (this.#isClosed) {
        throw new KeypoolError("store_in_use", `the store in ${this.#folder} is closed`, "Open it again.");
      }
      this.#refuseIfFailed();
      try {
        await this.#writeAll(all);
      } catch (cause) {
        this.#failure = cause;
        this.#refuseIfFailed();
      }
    });
  }

  async #writeAll(all: Written[]): Promise<void> {
    // One value alone takes the place of another whole, or not at all.
    if (all.length > 1) {
      await this.#replace(join(this.#folder, JOURNAL), JSON.stringify(all));
      await syncFolder(this.#folder);
    }
    await this.#apply(all);
  }

  #refuseIfFailed(): void {
    if (this.#failure !== undefined) {
      const fact = `the store in ${this.#folder} could not be written`;
      throw new KeypoolError("store_damaged", fact, "See to the disk, then open the store again.", {
        cause: this.#failure,
      });
    }
  }

  /** Does some work while nobody else does under the same lock. The folder is this process's already. */
  exclusive<T>(lock: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#turns.take(lock, work, signal);
  }

  /** Waits for writes, and leaves the folder to others. */
  async close(): Promise<void> {
    await this.#turns.take(WRITING, async () => {
      if (!this.#isClosed) {
        this.#isClosed = true;
        await this.#lock.release();
      }
    });
  }

  async #recover(): Promise<void> {
    const journal = await readIfThere(join(this.#folder, JOURNAL));
    if (journal === undefined) {
      return;
    }
    let all: Written[];
    try {
      all = JSON.parse(journal);
    } catch (cause) {
      throw damaged(JOURNAL, cause);
    }
    await this.#apply(all);
  }

  // Applying the same changes again changes nothing.
  async #apply(all: Written[]): Promise<void> {
    for (const [name, value] of all) {
      await (value === null ? rm(this.#path(name), { force: true }) : this.#replace(this.#path(name), value));
    }
    await syncFolder(join(this.#folder, VALUES));
    if (all.length > 1) {
      await rm(join(this.#folder, JOURNAL), { force: true });
      await syncFolder(this.#folder);
    }
  }

  async #replace(path: string, value: string): Promise<void> {
    const file = await open(path + PARTIAL, "w", 0o600);
    try {
      await file.writeFile(value, "utf8");
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(path + PARTIAL, path);
  }

  #path(name: string): string {
    return join(this.#folder, VALUES, encodeURIComponent(name));
  }
}

function nameOf(file: string): string {
  return decodeURIComponent(file);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

// Makes the names of a folder durable. Windows has no such call, and needs none.
async function syncFolder(path: string): Promise<void> {
  if (process.platform === "win32") {
    return;
  }
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
