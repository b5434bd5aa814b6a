// Statements: a key of the user agrees to a change of the user's devices (docs/api.md, "Statements").

import { statementLines } from "./directory.js";
import { hasCode } from "./errors.js";
import type { Server } from "./server.js";
import { proofOf, type DeviceKey } from "./signing.js";

/** The state of a user's device list that statements are made on. */
export interface Grounds {
  ledger: string;
  /** The head of the device list, hexadecimal. */
  head: string;
  /** The end of statements that are made on it, in Unix seconds. */
  until: number;
}

/** A statement as requests have it, beside the key that has signed it. */
export interface Signed {
  head: string;
  until: number;
  proof: string;
}

// For how long a statement is good.
const GOOD_FOR_S = 300;
// How often a request is made again because the user's devices have changed meanwhile.
const ATTEMPTS_MAX = 3;

/** Asks the server for the state of a user's devices. `nowS` is the time in Unix seconds. */
export async function groundsOf(server: Server, user: string, nowS: number): Promise<Grounds> {
  const { ledger, head } = await server.get(`/users/${user}/devices` as "/users/{user}/devices");
  return { ledger, head, until: nowS + GOOD_FOR_S };
}

/** Signs a statement about a device, `user/device`. `agreed` is its sixth line. */
export async function signStatement(
  { ledger, head, until }: Grounds,
  key: DeviceKey,
  { kind, device, agreed }: { kind: string; device: string; agreed: string },
): Promise<Signed> {
  const lines = statementLines(kind, [ledger, device, key.id, agreed, head, until]);
  return { head, until, proof: await proofOf(key, lines) };
}

/** Does some work that needs a statement, and again while the statement was stale. */
export async function whileStale<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (!hasCode(error, "statement_stale") || attempt === ATTEMPTS_MAX) {
        throw error;
      }
    }
  }
}
