// A device of client/js for the end-to-end tests: `node main.js ADDRESS USER` registers it, and then it does what
// lines of standard input say, and prints what comes for it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Device } from "../../js/dist/index.js";
import { FileStore } from "../../js/dist/node.js";

const [server, user] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${line}\n`);

const folder = await mkdtemp(join(tmpdir(), "keypool-e2e-"));
const store = await FileStore.open(folder);
const pool = { target: 10, lowWatermark: 0, lastResort: false };
const device = await Device.open({ store, server, user, pool });
await device.register();
say(`${device.name} is registered by ${device.key}`);

const nameOf = async (id) => (await device.groups()).find((group) => group.id === id).name;
const idOf = async (name) => (await device.groups()).find((group) => group.name === name).id;

const commands = {
  async refresh() {
    for (const reference of (await device.refresh()).uploaded) {
      say(`made ${reference}`);
    }
    say("uploaded");
  },
  async create(name) {
    await device.createGroup(name);
    say(`${name} is made`);
  },
  async invite(name, who) {
    const { invited } = await device.invite(await idOf(name), [who]);
    invited.forEach(({ reference }) => say(`invited ${who} by ${reference}`));
  },
  async say(name, ...words) {
    await device.send(await idOf(name), words.join(" "));
    say("said");
  },
  async number(who) {
    say(`number: ${await device.safetyNumber(who)}`);
  },
  async pool() {
    for (const { change, reference, by } of await device.history()) {
      say([change, reference, by && `by ${by}`].filter(Boolean).join(" "));
    }
    const { available, reserved, spent } = await device.status();
    say(`pool: ${available} available, ${reserved} reserved, ${spent} spent`);
  },
};

// The sentence for an event.
async function sentence(event) {
  const group = "group" in event ? await nameOf(event.group).catch(() => event.group) : "";
  const sentences = {
    joined: () => `joined ${group} by ${event.reference}`,
    message: () => `${event.sender.name}: ${event.text}`,
    changed: () => `${group} is in epoch ${event.epoch}`,
    answer: () => `${event.device} has ${event.outcome} ${group}`,
  };
  return (sentences[event.kind] ?? (() => `error: ${JSON.stringify(event)}`))();
}

const end = new AbortController();
async function readMail() {
  while (!end.signal.aborted) {
    await device.sync(async (event) => say(await sentence(event)), { waitSeconds: 20, signal: end.signal });
  }
}
const reading = readMail().catch((error) => {
  if (!end.signal.aborted) {
    say(`error: ${error.message}`);
  }
});

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = line.trim().split(" ");
  await (commands[command]?.(...rest) ?? Promise.reject(new Error(`no ${command} here`))).catch((error) => {
    say(`error: ${error.message}`);
  });
}
end.abort();
await reading;
await device.close();
await rm(folder, { recursive: true });
