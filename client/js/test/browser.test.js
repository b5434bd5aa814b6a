// The page of example/ in real browser tabs, from another origin than the server's.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { openBrowser, skip } from "./chromium.js";
import { afterwards, DEADLINE_MS, folderFor, startServer } from "./harness.js";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

// Serves the files of this package. Returns the origin.
async function servePages(t) {
  const pages = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://pages").pathname);
    try {
      const bytes = await readFile(join(PACKAGE, path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  pages.listen(0, "127.0.0.1");
  await once(pages, "listening");
  afterwards(t, () => {
    pages.closeAllConnections();
    pages.close();
  });
  return `http://127.0.0.1:${pages.address().port}`;
}

// A tab with somebody's chat.
async function openTab(context, url, user) {
  const tab = await context.newPage();
  const errors = [];
  tab.on("pageerror", (error) => errors.push(error));
  await tab.goto(url);
  await tab.getByLabel("Your name").fill(user);
  await tab.getByRole("button", { name: "Start" }).click();
  await tab.getByText(`${user}/main is online`).waitFor();
  return Object.assign(tab, { errors });
}

async function submit(tab, label, text, button) {
  await tab.getByLabel(label, { exact: true }).fill(text);
  await tab.getByRole("button", { name: button, exact: true }).click();
}

const shows = (tab, text) => tab.getByRole("log").getByText(text, { exact: true }).waitFor();

// Whether a database has a value that is no seal, and whether its key can be taken out of the browser.
async function readDatabase(name) {
  const outcome = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  const database = await outcome(indexedDB.open(name));
  const values = await outcome(database.transaction("values").objectStore("values").getAll());
  database.close();
  const [keys, texts] = [
    values.filter((one) => one instanceof CryptoKey),
    values.filter((one) => typeof one === "string"),
  ];
  if (keys.length !== 1 || texts.length < 30) {
    throw new Error(`${keys.length} keys, ${texts.length} values`);
  }
  return { isReadable: texts.some((text) => text.includes("{")), isExtractable: keys[0].extractable };
}

// Keeps a picture of a tab where KEYPOOL_SCREENSHOTS names a folder.
async function picture(tab, name) {
  const folder = process.env.KEYPOOL_SCREENSHOTS;
  if (folder !== undefined) {
    await mkdir(folder, { recursive: true });
    await tab.screenshot({ path: join(folder, `${name}.png`) });
  }
}

test("two people talk in browser tabs, one of which was closed when it was invited", { skip }, async (t) => {
  const origin = await servePages(t);
  const server = await startServer(t, "--cors-origin", origin);
  const url = `${origin}/example/index.html?server=${encodeURIComponent(server.address)}`;
  const profile = await folderFor(t);
  let context = await openBrowser(t, profile);

  const closed = await openTab(context, url, "bob");
  await closed.getByText("bob/main is online, with 32 packages").waitFor();
  await picture(closed, "1-bob-is-ready");
  await closed.close();

  const alice = await openTab(context, url, "alice");
  await submit(alice, "New group", "friday", "Make");
  await shows(alice, "friday is made");
  await submit(alice, "Invite", "bob", "Invite");
  await shows(alice, "bob/main was invited");
  await submit(alice, "Invite", "zoe", "Invite");
  await shows(alice, "zoe was not invited: unknown_user");
  await submit(alice, "Message", "hello, Bob", "Send");
  await shows(alice, "you: hello, Bob");
  await picture(alice, "2-alice-has-invited-bob");

  const bob = await openTab(context, url, "bob");
  await shows(bob, "alice/main has brought you into friday");
  await shows(bob, "friday: alice/main: hello, Bob");
  await submit(bob, "Message", "hello, Alice", "Send");
  await shows(alice, "bob/main has joined friday");
  await shows(alice, "friday: bob/main: hello, Alice");

  const numbers = [];
  for (const [tab, peer] of [
    [alice, "bob"],
    [bob, "alice"],
  ]) {
    await submit(tab, "Compare keys with", peer, "Compare");
    await tab
      .getByLabel("Safety number")
      .getByText(/^(\d{5} ){11}\d{5}$/)
      .waitFor();
    numbers.push(await tab.getByLabel("Safety number").textContent());
  }
  assert.equal(numbers[0], numbers[1]);
  await picture(alice, "3-alice-talks");
  await picture(bob, "4-bob-talks");

  // A second tab of Alice's shares the store, and takes over when the first one is closed.
  const second = await openTab(context, url, "alice");
  await submit(second, "Message", "from the second tab", "Send");
  await shows(bob, "friday: alice/main: from the second tab");
  await submit(alice, "Message", "from the first tab", "Send");
  await shows(bob, "friday: alice/main: from the first tab");
  // Both seal at the same time, and never with the same key: Bob can open all of it.
  for (const round of [1, 2, 3]) {
    await Promise.all([alice, second].map((tab, at) => submit(tab, "Message", `${at} in round ${round}`, "Send")));
    await shows(bob, `friday: alice/main: 0 in round ${round}`);
    await shows(bob, `friday: alice/main: 1 in round ${round}`);
  }
  assert.equal(await bob.getByText("cannot be read").count(), 0);
  assert.deepEqual(await second.evaluate(readDatabase, "keypool-alice"), { isReadable: false, isExtractable: false });
  await alice.close();
  await submit(bob, "Message", "who is there?", "Send");
  await shows(second, "friday: bob/main: who is there?");
  await picture(second, "5-second-tab");

  // The whole browser is closed and started again: keys and groups are there.
  assert.deepEqual([...second.errors, ...bob.errors], []);
  await context.close();
  context = await openBrowser(t, profile);
  const [again, friend] = [await openTab(context, url, "alice"), await openTab(context, url, "bob")];
  await submit(friend, "Message", "good morning", "Send");
  await shows(again, "friday: bob/main: good morning");
  await picture(again, "6-after-a-restart");
});

// Two devices of a ciphersuite in one page, one of which takes another key. Returns what the other one reads.
async function talkInPage({ server, ciphersuite }) {
  const { Device } = await import("keypool-client");
  const { IndexedDbStore } = await import("keypool-client/browser");
  const open = async (user) => {
    const store = await IndexedDbStore.openSealed(`${user}-in-${ciphersuite}`);
    const device = await Device.open({ store, server, user: `${user}${ciphersuite}`, ciphersuites: [ciphersuite] });
    await device.register();
    await device.refresh();
    return device;
  };
  const [alice, bob] = [await open("alice"), await open("bob")];
  const { id } = await alice.createGroup("friday");
  await alice.invite(id, [`bob${ciphersuite}`]);
  await bob.sync(() => {});
  await bob.rotateKey();
  await bob.sync(() => {});
  await bob.send(id, "still me");
  const texts = [];
  await alice.sync((event) => void (event.kind === "message" && texts.push(`${event.sender.trust}: ${event.text}`)));
  return texts;
}

test("devices of every ciphersuite talk in a browser, also after another key", { skip }, async (t) => {
  const origin = await servePages(t);
  const server = await startServer(t, "--cors-origin", origin);
  const context = await openBrowser(t, await folderFor(t));
  const tab = await context.newPage();
  await tab.goto(`${origin}/example/index.html`);
  for (const ciphersuite of [1, 2, 3]) {
    assert.deepEqual(await tab.evaluate(talkInPage, { server: server.address, ciphersuite }), ["known: still me"]);
  }
});

test("a tab whose server does not know the page's origin says what to do", { skip }, async (t) => {
  const origin = await servePages(t);
  const server = await startServer(t);
  const context = await openBrowser(t, await folderFor(t));
  const tab = await context.newPage();
  await tab.goto(`${origin}/example/index.html?server=${encodeURIComponent(server.address)}`);
  await tab.getByLabel("Your name").fill("alice");
  await tab.getByRole("button", { name: "Start" }).click();
  await tab
    .getByRole("status")
    .getByText(/no answer from .* Check the connection/)
    .waitFor();
});
