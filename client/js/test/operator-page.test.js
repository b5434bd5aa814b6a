// The operator's page of a real server with devices, in real browser tabs.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { openBrowser, skip } from "./chromium.js";
import { afterwards, end, folderFor, PROGRAMS, readyDevice, within } from "./harness.js";

const TOKEN = "0123456789abcdef0123456789abcdef";
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];

// Starts a server, and returns its two addresses. It ends after the test.
async function startKeypool(t, ...flags) {
  const data = await folderFor(t);
  const listen = [
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--disk-low-water",
    "0",
    "--ballast",
    "0",
  ];
  const child = spawn(join(PROGRAMS, "keypool-server"), ["--data", data, ...listen, ...flags], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  afterwards(t, () => end(child));
  const said = { address: /^listening on (\S+)/, admin: /^metrics +(\S+)\/metrics/ };
  const found = {};
  const read = async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      for (const [name, form] of Object.entries(said)) {
        found[name] ??= form.exec(line)?.[1];
      }
      if (found.address && found.admin) return found;
    }
    throw new Error("the server has ended");
  };
  return within(read(), "the server starts");
}

// A server with two devices, one of which has invited the other.
async function startWithDevices(t, ...flags) {
  const server = await startKeypool(t, ...flags);
  const alice = await readyDevice(t, server, "alice");
  const bob = await readyDevice(t, server, "bob");
  const { id } = await alice.createGroup("team");
  await alice.invite(id, ["bob"]);
  return { ...server, bob };
}

// A tab that fails the test when the browser complains.
async function openTab(t, context, url) {
  const tab = await context.newPage();
  const complaints = [];
  tab.on("console", (said) => ["error", "warning"].includes(said.type()) && complaints.push(said.text()));
  tab.on("pageerror", (error) => complaints.push(error.message));
  afterwards(t, () => assert.deepEqual(complaints, []));
  await tab.goto(url);
  return tab;
}

test("each view can be read, wide and narrow, light and dark", { skip }, async (t) => {
  const { admin } = await startWithDevices(t);
  const axe = await readFile(AXE, "utf8");
  const context = await openBrowser(t, await folderFor(t));
  const tab = await openTab(t, context, `${admin}/page/pool?name=bob`);
  const package_ = await tab.getAttribute(".strip a", "href");
  const views = ["/", "/page/pools", "/page/pools?level=empty", "/page/pool?name=bob", "/page/history?name=bob&at=5"];
  views.push(
    "/page/search",
    package_,
    "/page/search?q=5",
    "/page/confirm?action=release-name&user=bob",
    "/page/confirm?action=block-user&user=bob",
    "/page/sign-in",
  );
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1200, 320]) {
      await tab.emulateMedia({ colorScheme });
      await tab.setViewportSize({ width, height: 700 });
      for (const view of views) {
        await tab.goto(admin + view);
        const here = `${view}, ${colorScheme}, ${width} px`;
        const tooWide = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
        assert.equal(await tab.evaluate(tooWide), 0, here);
        await tab.evaluate(axe);
        const { violations } = await tab.evaluate((values) => axe.run({ runOnly: values }), RULES);
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`);
        assert.deepEqual(found, [], here);
      }
    }
  }
});

test("the figures of an open overview follow the log", { skip }, async (t) => {
  const server = await startWithDevices(t);
  const context = await openBrowser(t, await folderFor(t));
  const tab = await openTab(t, context, `${server.admin}/`);
  const figure = (name, text) => tab.locator(`[data-live=${name}]`, { hasText: new RegExp(`^${text}$`) }).waitFor();
  await figure("healthy", 2);
  await readyDevice(t, server, "carol");
  await figure("healthy", 3);
});

test("the slider moves through a history by keyboard, and links do without JavaScript", { skip }, async (t) => {
  const { admin } = await startWithDevices(t);
  const tab = await openTab(t, await openBrowser(t, await folderFor(t)), `${admin}/page/history?name=bob&at=5`);
  await tab.focus("#at");
  await tab.keyboard.press("ArrowRight");
  await tab.waitForURL(/at=6/);
  assert.match(await tab.title(), /^bob\/main at event 6/);

  const plain = await openBrowser(t, await folderFor(t), { javaScriptEnabled: false });
  const still = await openTab(t, plain, `${admin}/page/history?name=bob&at=5`);
  await still.getByRole("link", { name: "Back" }).click();
  assert.match(await still.title(), /^bob\/main at event 4/);
  await still.goto(`${admin}/`);
  assert.match(await still.textContent("main"), /takes requests/);
});

test("an operator signs in with the token, and removes a device", { skip }, async (t) => {
  const file = join(await folderFor(t), "token");
  await writeFile(file, TOKEN);
  const { admin: loopback, bob } = await startWithDevices(t, "--admin-token-file", file);
  const admin = loopback.replace("127.0.0.1", "keypool.test");
  const tab = await openTab(t, await openBrowser(t, await folderFor(t)), `${admin}/page/pool?name=bob`);
  await tab.getByLabel("The token").fill(TOKEN);
  await tab.getByRole("button", { name: "Sign in" }).click();
  await tab.waitForURL(`${admin}/`);
  await tab.goto(`${admin}/page/pool?name=bob`);
  await tab.getByRole("button", { name: "Remove bob/main" }).click();
  await tab.getByRole("button", { name: "Remove bob/main" }).click();
  await tab.getByText("Done: bob/main is removed").waitFor();
  await assert.rejects(bob.refresh());
});
