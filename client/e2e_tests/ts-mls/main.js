// A device on ts-mls for the end-to-end tests: `node main.js ADDRESS USER` registers it, and then it does what
// lines of standard input say, and prints what comes for it.

import { createInterface } from "node:readline";

import { Device } from "./device.js";

const [address, user] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${line}\n`);

const device = await Device.register(address, user, "main");
say(`${device.name} is registered by ${device.key.id}`);

const commands = {
  async upload(count) {
    for (const reference of await device.upload(Number(count))) {
      say(`made ${reference}`);
    }
    say("uploaded");
  },
  async create(name) {
    await device.create(name);
    say(`${name} is made`);
  },
  async invite(name, who) {
    say(`invited ${who} by ${await device.invite(name, who)}`);
  },
  async say(name, ...words) {
    await device.say(name, words.join(" "));
    say("said");
  },
  async pool() {
    (await device.pool()).forEach(say);
  },
};

// One thing at a time: each leaves the groups as the next one takes them up.
let last = Promise.resolve();
function inTurn(work) {
  last = last.then(work).catch((error) => say(`error: ${error.message}`));
  return last;
}

const end = new AbortController();
async function readMail() {
  while (!end.signal.aborted) {
    for (const item of await device.mail(end.signal)) {
      await inTurn(async () => say(await device.takeIn(item)));
    }
  }
}
readMail().catch((error) => {
  if (!end.signal.aborted) {
    say(`error: ${error.message}`);
    process.exit(1);
  }
});

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = line.trim().split(" ");
  await inTurn(() => commands[command]?.(...rest) ?? Promise.reject(new Error(`no ${command} here`)));
}
end.abort();
