// A device in a process of its own, to be killed: `node actor.js JSON`. It does its steps, and halts for ever at a
// request, before it is sent or behind its answer; then it says so.

import { Device } from "keypool-client";
import { FileStore } from "keypool-client/node";

const { folder, address, user, steps, haltAt, haltBehind = false } = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(`${line}\n`);
const halt = () => {
  say("halted");
  setInterval(() => {}, 60_000);
  return new Promise(() => {});
};

async function halting(url, init) {
  const isIt = init.method === "POST" && new URL(url).pathname.endsWith(haltAt);
  if (isIt && !haltBehind) {
    return halt();
  }
  const answer = await fetch(url, init);
  return isIt ? halt() : answer;
}

const store = await FileStore.open(folder);
const device = await Device.open({ store, server: address, user, fetch: halting });
for (const [step, ...values] of steps) {
  await device[step](...(step === "sync" ? [({ kind }) => say(kind)] : values));
}
say("done");
