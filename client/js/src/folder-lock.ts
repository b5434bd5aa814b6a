// The lock of a folder: one process at a time has it, and a process that was killed does not keep it.

import { link, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { join } from "node:path";

import { KeypoolError } from "./errors.js";

const PREFIX = "lock-";
const FREE = "free";

/**
 * The lock of a folder. Locks are numbered files; the last one says who has the folder. The next number is made by
 * `link`, which only one process can do, so two that find a dead lock do not both take it. A released lock stays as a
 * file that says so: a number is never used twice.
 */
export class FolderLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** Takes the lock; throws a `KeypoolError` with the code `store_in_use` if somebody has it. */
  static async take(folder: string): Promise<FolderLock> {
    const mine = join(folder, `taking-${randomUUID()}`);
    await writeFile(mine, await holder(process.pid), { mode: 0o600 });
    try {
      for (;;) {
        const last = (await numbers(folder)).at(-1) ?? 0;
        await refuseIfHeld(folder, last);
        const path = join(folder, PREFIX + (last + 1));
        if ((await linked(mine, path)) && (await isLast(folder, last + 1, path))) {
          await removeBefore(folder, last + 1);
          return new FolderLock(path);
        }
      }
    } finally {
      await rm(mine, { force: true });
    }
  }

  /** Releases the lock. */
  async release(): Promise<void> {
    await writeFile(this.#path, FREE);
  }
}

async function numbers(folder: string): Promise<number[]> {
  const files = await readdir(folder);
  const all = files.filter((file) => /^lock-\d{1,15}$/.test(file)).map((file) => Number(file.slice(PREFIX.length)));
  return all.sort((one, other) => one - other);
}

async function refuseIfHeld(folder: string, number: number): Promise<void> {
  const text = await readFile(join(folder, PREFIX + number), "utf8").catch(() => FREE);
  const pid = Number(text.split(" ")[0]);
  if (text === FREE || !Number.isInteger(pid) || text !== (await holder(pid))) {
    return;
  }
  const who = pid === process.pid ? "this process" : `process ${pid}`;
  throw new KeypoolError(
    "store_in_use",
    `the store in ${folder} is in use by ${who}`,
    "Close it there first: a device runs in one place at a time.",
  );
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") {
      return false;
    }
    throw error;
  }
}

// A process that was slow may make a number again whose file others have removed: theirs is higher then.
async function isLast(folder: string, number: number, path: string): Promise<boolean> {
  if ((await numbers(folder)).at(-1) === number) {
    return true;
  }
  await rm(path, { force: true });
  return false;
}

async function removeBefore(folder: string, number: number): Promise<void> {
  const before = (await numbers(folder)).filter((other) => other < number);
  await Promise.all(before.map((other) => rm(join(folder, PREFIX + other), { force: true })));
}

// A process and, where Linux tells, the moment it was started at: a number is given to others later. A process that is
// gone has neither.
async function holder(pid: number): Promise<string> {
  if (process.platform === "linux") {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    const started = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return started === undefined ? "" : `${pid} ${started}`;
  }
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") {
      return "";
    }
  }
  return String(pid);
}
