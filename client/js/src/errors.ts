// Errors: the fact, the next step, and a stable code.

import type { components } from "./api.js";

type Problem = components["schemas"]["Problem"];

/** The codes of refusals by the server: the table of docs/api.md has the meaning of each. */
export type ServerCode = components["schemas"]["Code"];

/**
 * The codes of errors that this library finds itself.
 *
 * - `unanswered`: no answer of the server arrived; it may have done what was asked.
 * - `answer_unreadable`: the answer is not of the form that the API document has.
 * - `store_in_use`: another process or tab has the store.
 * - `store_damaged`: a value of the store cannot be read, or is sealed under another key.
 * - `store_of_another`: the store belongs to another device or server.
 * - `store_set_back`: the store is an older copy of itself; sealing could use a key twice.
 * - `unknown_here`: the group is not on this device, or the device is no member any more.
 * - `commit_pending`: a Commit of the group waits for its answer.
 * - `package_rejected`: a package that the server has handed out failed the check that `check` names.
 * - `closed`: the device was closed.
 * - `untrusted_members`: the key of a member contradicts the directory.
 * - `invalid_argument`: an argument of the call cannot be used.
 */
export type LocalCode =
  | "unanswered"
  | "answer_unreadable"
  | "store_in_use"
  | "store_damaged"
  | "store_of_another"
  | "store_set_back"
  | "unknown_here"
  | "commit_pending"
  | "package_rejected"
  | "closed"
  | "untrusted_members"
  | "invalid_argument";

/** The further fields of an error. */
interface Details {
  requestId?: string;
  status?: number;
  retryable?: boolean;
  retryAfterSeconds?: number;
  serverTimeSeconds?: number;
  check?: string;
  items?: components["schemas"]["UploadItem"][];
  cause?: unknown;
}

/** An error of this library, or a refusal by the server. */
export class KeypoolError extends Error {
  /** The stable code: the reaction that a program can have. */
  readonly code: ServerCode | LocalCode;
  /** The next step, for a person. */
  readonly hint: string;
  /** The `X-Request-Id` of the refusal, which the operator can look up. */
  readonly requestId: string | undefined;
  /** The HTTP status of the refusal. */
  readonly status: number | undefined;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** After how many seconds the same call may succeed. */
  readonly retryAfterSeconds: number | undefined;
  /** The server's time in Unix seconds, where this device's clock is wrong. */
  readonly serverTimeSeconds: number | undefined;
  /** The check that a package has failed. */
  readonly check: string | undefined;
  /** The outcome of each package, of an upload that was refused as a whole. */
  readonly items: components["schemas"]["UploadItem"][] | undefined;

  constructor(code: ServerCode | LocalCode, message: string, hint: string, details: Details = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "KeypoolError";
    this.code = code;
    this.hint = hint;
    this.requestId = details.requestId;
    this.status = details.status;
    this.retryable = details.retryable ?? false;
    this.retryAfterSeconds = details.retryAfterSeconds;
    this.serverTimeSeconds = details.serverTimeSeconds;
    this.check = details.check;
    this.items = details.items;
  }

  /** The error of a refusal, from its body (RFC 9457). */
  static ofProblem(problem: Problem): KeypoolError {
    return new KeypoolError(problem.code, `${problem.title}: ${problem.detail}`, problem.hint, {
      status: problem.status,
      retryable: problem.retryable,
      ...(problem.request_id ? { requestId: problem.request_id } : {}),
      ...(problem.retry_after_s ? { retryAfterSeconds: problem.retry_after_s } : {}),
      ...(problem.server_time ? { serverTimeSeconds: problem.server_time } : {}),
      ...(problem.check ? { check: problem.check } : {}),
      ...(problem.items ? { items: problem.items } : {}),
    });
  }
}

/** Whether an error has one of these codes. */
export function hasCode(error: unknown, ...codes: (ServerCode | LocalCode)[]): error is KeypoolError {
  return error instanceof KeypoolError && codes.includes(error.code);
}
