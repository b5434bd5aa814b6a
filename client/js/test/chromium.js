// Chromium, where it is installed, for tests in real browser tabs.

import { accessSync } from "node:fs";

import { chromium } from "playwright-core";

import { afterwards, DEADLINE_MS } from "./harness.js";

// Flags that keep Chromium from asking for anything but the page. A page at `keypool.test` is on this machine, and on a
// connection that the browser does not trust.
const FLAGS = [
  "--host-resolver-rules=MAP keypool.test 127.0.0.1",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const browser = ["chromium", "chromium-browser", "google-chrome"]
  .map((name) => `/usr/bin/${name}`)
  .find((path) => {
    try {
      accessSync(path);
      return true;
    } catch {
      return false;
    }
  });

// Why a test in tabs is skipped; `false` if it is not.
export const skip = browser === undefined && "there is no Chromium: apt-get install chromium";

// Opens a browser with a profile's folder. It is closed after the test.
export async function openBrowser(t, profile, more = {}) {
  const options = { executablePath: browser, headless: true, args: FLAGS, viewport: { width: 720, height: 760 } };
  const context = await chromium.launchPersistentContext(profile, { ...options, ...more });
  afterwards(t, () => context.close());
  context.setDefaultTimeout(DEADLINE_MS);
  return context;
}
