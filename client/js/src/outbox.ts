// The outbox: sealed messages that the server may or may not have, posted in order.

import { groupName, isFinal, keepEvent, nextName, notePosted, type Context } from "./context.js";
import { freshKey, type Reply } from "./server.js";
import { Staged } from "./store.js";

interface OutboxItem {
  group: string;
  /** The idempotency key: the same request again has the first answer. */
  key: string;
  /** The sealed message, base64. */
  message: string;
}

/** The answer to a message that was posted. */
export type Posted = Reply<"/groups/{group_id}/messages", "post">;

/** Puts a sealed message into the outbox, with the state of the group behind it in the same write. Returns its name. */
export async function putIntoOutbox(staged: Staged, group: string, message: string): Promise<string> {
  const name = await nextName(staged, "outbox");
  const item: OutboxItem = { group, key: freshKey(), message };
  staged.put(name, item);
  return name;
}

/**
 * Posts what is in the outbox, in order. Returns the answer to the message with the name `awaited`, and throws the
 * refusal of that one; the refusal of another is an event. Throws a `KeypoolError` if the server does not answer.
 */
export async function flushOutbox(context: Context, awaited?: string): Promise<Posted | undefined> {
  let answer: Posted | undefined;
  for (const name of await context.store.list("outbox/")) {
    const posted = await postItem(context, name, name === awaited);
    answer = name === awaited ? posted : answer;
  }
  return answer;
}

async function postItem(context: Context, name: string, isAwaited: boolean): Promise<Posted | undefined> {
  const staged = new Staged(context.store);
  const { group, key, message } = (await staged.get<OutboxItem>(name)) as OutboxItem;
  staged.delete(name);
  try {
    const posted = await context.server.post("/groups/{group_id}/messages", { message }, { key, group });
    await notePosted(staged, posted.position);
    await staged.commit();
    return posted;
  } catch (error) {
    if (!isFinal(error)) {
      throw error;
    }
    if (!isAwaited) {
      const text = `a message to ${groupName(group)} was refused: ${error.message}`;
      await keepEvent(staged, { kind: "notSent", group, code: error.code, message: text });
    }
    await staged.commit();
    if (isAwaited) {
      throw error;
    }
    return undefined;
  }
}
