// Signed notes (C2SP `signed-note`) with Ed25519: the ledger's key, and the time that it signs.

import { equal, fromBase64, owned, toHex, utf8, type Bytes } from "./bytes.js";
import { hasSigned } from "./signing.js";

// The number of Ed25519 among the kinds of signatures.
const ED25519 = 1;
// The beginning of a signature line: an em dash and a space.
const DASH = "\u2014 ";

/** The public half of a key that signs notes. */
interface NoteKey {
  name: string;
  id: Bytes;
  key: Bytes;
}

async function noteKey(text: string): Promise<NoteKey | undefined> {
  const [name, hash, ...rest] = text.trim().split("+");
  const bytes = decoded(rest.join("+"));
  if (!name || bytes?.length !== 33 || bytes[0] !== ED25519) {
    return undefined;
  }
  const named = new Uint8Array([...utf8(`${name}\n`), ...bytes]);
  const id = new Uint8Array(await crypto.subtle.digest("SHA-256", named)).slice(0, 4);
  return hash === toHex(id) ? { name, id, key: bytes.slice(1) } : undefined;
}

function decoded(text: string): Bytes | undefined {
  try {
    return fromBase64(text);
  } catch {
    return undefined;
  }
}

/** The identity of a ledger in statements, `NAME+HASH`: the beginning of its key's text. */
export function ledgerId(key: string): string {
  return key.trim().split("+").slice(0, 2).join("+");
}

/** Returns the text of a note that a key has signed; `undefined` if the key has not signed it. */
export async function signedText(note: string, keyText: string): Promise<string | undefined> {
  const key = await noteKey(keyText);
  const end = note.lastIndexOf("\n\n");
  if (key === undefined || end < 0) {
    return undefined;
  }
  const text = note.slice(0, end + 1);
  const mine = `${DASH}${key.name} `;
  for (const line of note.slice(end + 2).split("\n")) {
    const bytes = line.startsWith(mine) ? decoded(line.slice(mine.length)) : undefined;
    const isMine = bytes?.length === 68 && equal(bytes.subarray(0, 4), key.id);
    if (isMine && (await hasSigned(key.key, utf8(text), owned(bytes.subarray(4))))) {
      return text;
    }
  }
  return undefined;
}

/**
 * Returns the time in Unix milliseconds that a ledger's key has stated for a question; `undefined` if the note is
 * no statement for this nonce, or the key has not signed it.
 */
export async function statedTimeMs(note: string, keyText: string, nonce: string): Promise<number | undefined> {
  const lines = (await signedText(note, keyText))?.split("\n");
  const isAnswer = lines?.length === 4 && lines[0] === "keypool-time-v1" && lines[1] === nonce;
  const millis = isAnswer && /^\d{1,15}$/.test(lines[2] as string) ? Number(lines[2]) : undefined;
  return millis;
}
