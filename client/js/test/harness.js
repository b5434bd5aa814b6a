// The means of all tests: a real server on a free port, devices, their events, and a proxy that lies.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Device } from "keypool-client";
import { FileStore } from "keypool-client/node";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const PROGRAMS =
  process.env.KEYPOOL_PROGRAMS ?? join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "debug");
// A deadline that only a hang reaches.
export const DEADLINE_MS = 60_000;

const ends = new WeakMap();

// Has something done after the test, the last first.
export function afterwards(test, end) {
  if (!ends.has(test)) {
    ends.set(test, []);
    test.after(async () => {
      for (const one of ends.get(test).reverse()) {
        await one();
      }
    });
  }
  ends.get(test).push(end);
}

// A folder that is removed after the test.
export async function folderFor(test) {
  const folder = await mkdtemp(join(tmpdir(), "keypool-js-"));
  afterwards(test, () => rm(folder, { recursive: true, force: true }));
  return folder;
}

// Starts the server, whose clock `advance("2h")` moves. It ends after the test.
export async function startServer(test, ...flags) {
  const data = await folderFor(test);
  const listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
  // A test machine may have little room.
  listen.push("--disk-low-water", "0", "--ballast", "0");
  const child = spawn(join(PROGRAMS, "examples/test_server"), ["--data", data, ...listen, ...flags], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  afterwards(test, () => end(child));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const said = (await within(lines.next(), "the server starts")).value;
  return {
    address: said.replace("listening on ", ""),
    async advance(span) {
      child.stdin.write(`advance ${span}\n`);
      await within(lines.next(), "the server's clock moves");
    },
  };
}

// Ends a process that a test has started.
export async function end(child, signal = "SIGKILL") {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill(signal);
    await once(child, "exit");
  }
}

// The outcome of a promise that keeps the deadline.
export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Opens a device in a folder of its own, or in that of an earlier one. It is closed after the test.
export async function openDevice(test, server, name, options = {}) {
  const { folder = await folderFor(test), ...others } = options;
  const [user, device] = name.split("/");
  const store = await FileStore.open(folder);
  afterwards(test, () => store.close());
  const opened = await Device.open({ store, server: server.address, user, ...(device && { device }), ...others });
  return Object.assign(opened, { folder, store });
}

// A device that is registered and has packages.
export async function readyDevice(test, server, name, options) {
  const device = await openDevice(test, server, name, options);
  await device.register();
  await device.refresh();
  return device;
}

// Events that have come, and that no test has asked for yet, by device.
const waiting = new WeakMap();

// The next event of a kind, waiting for it. Others before it are added to `seen`.
export async function nextEvent(device, kind, seen = []) {
  const events = waiting.get(device) ?? [];
  waiting.set(device, events);
  const end = AbortSignal.timeout(DEADLINE_MS);
  while (!end.aborted) {
    const at = events.findIndex((event) => event.kind === kind);
    if (at >= 0) {
      const found = events.splice(0, at + 1);
      seen.push(...found);
      return found.at(-1);
    }
    await device.sync((event) => void events.push(event), { waitSeconds: 5, signal: end });
  }
  throw new Error(`no event ${kind}; there were ${events.map((event) => event.kind)}`);
}

// All events that are there now.
export async function eventsOf(device) {
  const events = waiting.get(device)?.splice(0) ?? [];
  await device.sync((event) => void events.push(event));
  return events;
}

// A proxy before the server, which a test may have change or drop answers. `change` is given the request's path and
// body and the answer as JSON; it returns the answer to give, or `null` to break the line instead of answering.
export async function startProxy(test, change) {
  const proxy = createServer(async (incoming, outgoing) => {
    const body = await bytesOf(incoming);
    const sent = request(proxy.target + incoming.url, { method: incoming.method, headers: incoming.headers });
    sent.end(body);
    const [answer] = await once(sent, "response");
    const bytes = await bytesOf(answer);
    const changed = await change({
      path: incoming.url.split("?")[0].replace("/v1", ""),
      body: body.length > 0 ? JSON.parse(body) : undefined,
      key: incoming.headers["idempotency-key"],
      status: answer.statusCode,
      answer: bytes.length > 0 && answer.headers["content-type"]?.includes("json") ? JSON.parse(bytes) : undefined,
    });
    if (changed === null) {
      incoming.socket.destroy();
      return;
    }
    const given = changed === undefined ? bytes : Buffer.from(JSON.stringify(changed));
    outgoing.writeHead(answer.statusCode, { ...answer.headers, "content-length": given.length });
    outgoing.end(given);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  afterwards(test, () => {
    proxy.closeAllConnections();
    proxy.close();
  });
  const name = `127.0.0.1:${proxy.address().port}`;
  // The server has to know the proxy's name: requests are signed for it.
  const server = await startServer(test, "--public-name", name);
  proxy.target = server.address;
  return { ...server, address: `http://${name}` };
}

async function bytesOf(stream) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part);
  }
  return Buffer.concat(parts);
}
