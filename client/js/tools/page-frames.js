// How smoothly a browser shows views of the operator's page, for docs/benchmarks.md:
// `node tools/page-frames.js ADMIN-ADDRESS SECONDS PATH…` prints the frames a second and the longest of each view.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { openBrowser } from "../test/chromium.js";

// Counts frames for some seconds, and how often a figure of the page changes meanwhile.
function frames(seconds) {
  return new Promise((resolve) => {
    const times = [];
    let changes = 0;
    new MutationObserver((list) => (changes += list.length)).observe(document.body, { childList: true, subtree: true });
    const frame = (now) => {
      times.push(now);
      if (now - times[0] < seconds * 1000) return requestAnimationFrame(frame);
      const gaps = times.slice(1).map((time, place) => time - times[place]);
      gaps.sort((one, other) => one - other);
      const at = (part) => gaps[Math.min(gaps.length - 1, Math.floor(part * gaps.length))];
      resolve({ frames: gaps.length / seconds, p50: at(0.5), p99: at(0.99), longest: at(1), changes });
    };
    requestAnimationFrame(frame);
  });
}

const [admin, seconds, ...paths] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), "keypool-frames-"));
const context = await openBrowser({ after() {} }, profile);
try {
  for (const path of paths) {
    const tab = await context.newPage();
    const begun = Date.now();
    await tab.goto(admin + path);
    const loaded = Date.now() - begun;
    const counted = await tab.evaluate(frames, Number(seconds));
    const fixed = (value) => value.toFixed(1);
    console.log(
      `${path}: shown after ${loaded} ms, ${fixed(counted.frames)} frames/s, a frame ${fixed(counted.p50)} ms,` +
        ` p99 ${fixed(counted.p99)} ms, longest ${fixed(counted.longest)} ms, ${counted.changes} changes`,
    );
    await tab.close();
  }
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
