// The server over HTTP: JSON there and back, each request signed, and repeated under the same key.

import type { paths } from "./api.js";
import { random, toHex } from "./bytes.js";
import type { ServerClock } from "./clock.js";
import { hasCode, KeypoolError } from "./errors.js";
import { statedTimeMs } from "./note.js";
import { contentDigest, signatureHeaders, type DeviceKey } from "./signing.js";

/** The path below which the server has its API. */
const API_PREFIX = "/v1";
// How often a request is sent, and how long it waits between, when no answer comes.
const ATTEMPTS_MAX = 4;
const FIRST_PAUSE_MS = 200;
// For how long an answer is waited for.
const ANSWER_MAX_MS = 30_000;
const NONCE_BYTES = 16;

type Methods<M extends "get" | "post"> = {
  [P in keyof paths]: paths[P][M] extends undefined ? never : P;
}[keyof paths];
type Json<T> = T extends { content: { "application/json": infer Body } } ? Body : never;
type Responses<P extends keyof paths, M extends "get" | "post"> = paths[P][M] extends { responses: infer R }
  ? R
  : never;

/** The paths that answer a `GET`. */
export type GetPath = Methods<"get">;
/** The paths that answer a `POST`. */
export type PostPath = Methods<"post">;
/** The body of a `POST`. */
export type Body<P extends PostPath> = paths[P]["post"] extends { requestBody: infer B }
  ? Json<B>
  : Record<string, never>;
/** The answer of the server. */
export type Reply<P extends keyof paths, M extends "get" | "post"> = Json<
  Responses<P, M>[keyof Responses<P, M> & (200 | 201)]
>;

// The lists that an answer must have. Other fields are checked by their readers.
const LISTS: Partial<Record<GetPath | PostPath, string[]>> = {
  "/mailbox": ["items"],
  "/users/devices": ["users"],
  "/keypackages/events": ["events"],
  "/keypackages/upload": ["items"],
  "/keypackages/revoke": ["revoked"],
  "/keypackages/reconcile": ["only_here", "only_there"],
  "/keypackages/rotate": ["items"],
  "/keypackages/reserve-many": ["reservations", "missing"],
  "/keypackages/await": ["devices"],
};

/** A `fetch` of the app's own, for a proxy or a test. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

interface Outgoing {
  method: "GET" | "POST";
  path: string;
  headers: Record<string, string>;
  body?: string;
  signal?: AbortSignal;
  waitS?: number;
}

/** The server of a device. */
export class Server {
  /** The address: scheme, host and perhaps port. */
  readonly address: string;
  readonly #key: DeviceKey;
  readonly #clock: ServerClock;
  readonly #fetch: Fetch;

  constructor(address: string, key: DeviceKey, clock: ServerClock, fetch: Fetch) {
    this.address = originOf(address);
    this.#key = key;
    this.#clock = clock;
    this.#fetch = fetch;
  }

  /** The same server, to which another key speaks. */
  withKey(key: DeviceKey): Server {
    return new Server(this.address, key, this.#clock, this.#fetch);
  }

  /**
   * Sends a signed `GET`. `path` has its parameters in place, `query` is appended. `waitS` is how long the server may
   * hold the answer, in seconds; `signal` breaks it off. Throws a `KeypoolError`.
   */
  get<P extends GetPath>(
    path: P,
    query: Record<string, string | number> = {},
    options: { signal?: AbortSignal | undefined; waitS?: number } = {},
  ): Promise<Reply<P, "get">> {
    const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    const { signal, waitS } = options;
    const outgoing: Outgoing = { method: "GET", path: search.size > 0 ? `${path}?${search}` : path, headers: {} };
    return this.#ask({ ...outgoing, ...(signal ? { signal } : {}), ...(waitS ? { waitS } : {}) });
  }

  /**
   * Sends a signed `POST`. `key` is the idempotency key: the same one with the same body repeats a request. Throws a
   * `KeypoolError`.
   */
  async post<P extends PostPath>(
    path: P,
    content: Body<P>,
    options: { key?: string; group?: string; authorization?: string } = {},
  ): Promise<Reply<P, "post">> {
    const body = JSON.stringify(content);
    const headers: Record<string, string> = {
      "content-type": "application/json",
      "content-digest": await contentDigest(body),
      "idempotency-key": options.key ?? freshKey(),
      ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
    };
    const named = options.group === undefined ? path : path.replace("{group_id}", options.group);
    return this.#ask({ method: "POST", path: named, headers, body });
  }

  /** Returns the key of the server's ledger, `NAME+HASH+BASE64`. */
  async ledgerKey(): Promise<string> {
    return (await this.#text("/ledger/key")).trim();
  }

  /** Returns the signed text of the last checkpoint. */
  checkpoint(): Promise<string> {
    return this.#text("/ledger/checkpoint");
  }

  /**
   * Has the ledger's key sign the server's time where the clock is in doubt. `ledgerKey` is the key that the device
   * holds the server to. Returns whether the doubt is over.
   */
  async proveTime(ledgerKey: string): Promise<boolean> {
    const nonce = toHex(random(NONCE_BYTES));
    const timeMs = await statedTimeMs(await this.#text(`/ledger/time?nonce=${nonce}`), ledgerKey, nonce);
    if (timeMs !== undefined) {
      this.#clock.verify(timeMs);
    }
    return timeMs !== undefined;
  }

  async #text(path: string): Promise<string> {
    const response = await this.#respond(this.address + API_PREFIX + path, { method: "GET" }, ANSWER_MAX_MS);
    return response.text();
  }

  async #ask<T>(outgoing: Outgoing): Promise<T> {
    let datedS: number | undefined;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#once<T>(outgoing, datedS ?? this.#clock.nowS());
      } catch (error) {
        outgoing.signal?.throwIfAborted();
        const serverS = hasCode(error, "unauthenticated") ? error.serverTimeSeconds : undefined;
        if (serverS !== undefined && datedS === undefined) {
          datedS = serverS;
        } else if (attempt < ATTEMPTS_MAX && isWorthRepeating(error)) {
          await pause(FIRST_PAUSE_MS * 3 ** (attempt - 1));
        } else {
          throw error;
        }
      }
    }
  }

  async #once<T>({ method, path, headers, body, signal, waitS }: Outgoing, createdS: number): Promise<T> {
    const url = this.address + API_PREFIX + path;
    const signature = await signatureHeaders(this.#key, { method, url, headers }, createdS);
    const init: RequestInit = { method, headers: { ...headers, ...signature } };
    const wholeMs = ANSWER_MAX_MS + (waitS ?? 0) * 1000;
    const response = await this.#respond(url, body === undefined ? init : { ...init, body }, wholeMs, signal);
    const answer = await jsonOf(response);
    if (response.ok) {
      return checked(answer as Record<string, unknown>, path.split("?")[0] as GetPath) as T;
    }
    throw isProblem(answer) ? KeypoolError.ofProblem(answer) : noProblem(response);
  }

  async #respond(url: string, init: RequestInit, wholeMs: number, signal?: AbortSignal): Promise<Response> {
    const end = AbortSignal.timeout(wholeMs);
    const signals = signal === undefined ? end : AbortSignal.any([end, signal]);
    try {
      const response = await this.#fetch(url, { ...init, signal: signals, redirect: "error", cache: "no-store" });
      // Reads the whole answer here: a line that breaks in the middle is no answer either.
      const bytes = await response.arrayBuffer();
      this.#clock.hear(Number(response.headers.get("keypool-time") ?? Number.NaN));
      return new Response(bytes.byteLength > 0 ? bytes : null, response);
    } catch (cause) {
      throw new KeypoolError(
        "unanswered",
        `no answer from ${this.address} to ${init.method} ${new URL(url).pathname}`,
        "Check the connection, then call again: what was asked is not done twice.",
        { retryable: true, cause },
      );
    }
  }
}

/** Draws an idempotency key: a UUID of version 4. */
export function freshKey(): string {
  return crypto.randomUUID();
}

function originOf(address: string): string {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.pathname !== "/" || url.search || url.hash) {
    throw new KeypoolError(
      "invalid_argument",
      `"${address}" is no address of a server`,
      "Give a scheme, a host and perhaps a port, as in https://keys.example.",
    );
  }
  return url.origin;
}

function isWorthRepeating(error: unknown): boolean {
  if (!(error instanceof KeypoolError)) {
    return false;
  }
  const status = error.status ?? 0;
  return error.code === "unanswered" || status === 408 || (status >= 500 && error.code !== "answer_unreadable");
}

function pause(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

async function jsonOf(response: Response): Promise<unknown> {
  try {
    const answer: unknown = await response.json();
    if (typeof answer === "object" && answer !== null) {
      return answer;
    }
  } catch {
    // Said below, or by the status.
  }
  if (!response.ok) {
    return undefined;
  }
  throw unreadable("an answer is no JSON object");
}

function checked(answer: Record<string, unknown>, path: GetPath | PostPath): unknown {
  for (const name of LISTS[path] ?? []) {
    const list = answer[name];
    const kind = name === "revoked" ? "string" : "object";
    if (!Array.isArray(list) || list.some((one) => one === null || typeof one !== kind)) {
      throw unreadable(`the answer of ${path} has no list "${name}"`);
    }
  }
  return answer;
}

/** The error of an answer that is not of the form that the API document has. */
export function unreadable(fact: string): KeypoolError {
  const hint = "Check that the address is that of a keypool server, and that no proxy changes its answers.";
  return new KeypoolError("answer_unreadable", fact, hint);
}

type Problem = Parameters<typeof KeypoolError.ofProblem>[0];

function isProblem(answer: unknown): answer is Problem {
  const problem = answer as Partial<Problem> | undefined;
  return typeof problem?.code === "string" && typeof problem.title === "string";
}

// A refusal by something in between, such as a proxy.
function noProblem(response: Response): KeypoolError {
  const isPassing = response.status >= 500 || response.status === 408 || response.status === 429;
  return new KeypoolError(
    isPassing ? "unanswered" : "answer_unreadable",
    `the answer has the status ${response.status}, and is not the server's`,
    "Check the address, and the proxy in front of the server.",
    { status: response.status, retryable: isPassing },
  );
}
