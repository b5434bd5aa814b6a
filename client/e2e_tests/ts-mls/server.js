// The server, asked over HTTP: JSON there and back, each request signed.

import { randomUUID } from "node:crypto";

import { digest, signatureOf } from "./signing.js";

// What the server has refused, with its code (docs/api.md).
export class Refused extends Error {
  constructor(problem) {
    super(`${problem.code}: ${problem.detail}`);
    this.code = problem.code;
  }
}

export class Server {
  constructor(address, key) {
    this.address = address;
    this.key = key;
  }

  // `signal` breaks it off.
  get(path, signal) {
    return this.ask("GET", path, {}, undefined, signal);
  }

  // A request that changes something has a key of its own, by which a repetition of it is known.
  post(path, content) {
    const body = JSON.stringify(content);
    const headers = {
      "content-type": "application/json",
      "content-digest": digest(body),
      "idempotency-key": randomUUID(),
    };
    return this.ask("POST", path, headers, body);
  }

  async ask(method, path, headers, body, signal) {
    const url = this.address + path;
    const now = Math.floor(Date.now() / 1000);
    const signature = signatureOf(this.key, method, url, headers, now);
    const answer = await fetch(url, { method, headers: { ...headers, ...signature }, body, signal });
    const said = await answer.json();
    if (!answer.ok) {
      throw new Refused(said);
    }
    return said;
  }
}
