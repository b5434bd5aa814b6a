// Plays the devices of the scenario that are in TypeScript: see client/bindings/scenario.json and docs/bindings.md.
//
// Its arguments are the server's URL and a folder for homes. It reads a step a line and answers each with a line.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Device, KeypoolError } from "keypool-client";
import { FileStore } from "keypool-client/node";

const [server, homes] = process.argv.slice(2);
const devices = new Map();

// The scenario has groups by the text of their ids.
const idOf = (group) => Buffer.from(group).toString("base64url");
const nameOf = (id) => Buffer.from(id, "base64url").toString();

// An event as the scenario has it.
function seen(event) {
  if (event.kind === "joined") {
    return { kind: "joined", group: nameOf(event.group), from: event.inviter.name };
  }
  if (event.kind === "message") {
    return { kind: "message", group: nameOf(event.group), from: event.sender.name, text: event.text };
  }
  if (event.kind === "changed") {
    return { kind: "changed", group: nameOf(event.group), from: event.by.name };
  }
  return { kind: "other" };
}

const verbs = {
  close: (device) => device.close(),
  async register(device) {
    await device.register();
    const [user, name] = device.name.split("/");
    return { user, device: name };
  },
  async refresh(device) {
    const { created, available } = await device.refresh();
    return { created, available };
  },
  async status(device) {
    const { available, reserved, spent } = await device.status();
    return { available, reserved, spent };
  },
  async create_group(device, { group }) {
    await device.createGroup(group, { id: idOf(group) });
  },
  async invite(device, { group, invitees }) {
    const { invited, missing } = await device.invite(idOf(group), invitees);
    if (invited.length === 0) {
      // Where the bindings throw, this device returns who is missing.
      const text = missing.map(({ name, code }) => `${name} (${code})`).join(", ");
      throw new KeypoolError("nobody_invited", `nobody was invited: ${text}`, "Check the names.");
    }
    return { added: invited.map((added) => added.device), missing: missing.length };
  },
  async resume(device) {
    // Each call of this device goes on with what is open; what waits before is counted.
    return { resumed: (await device.status()).queued };
  },
  async send(device, { group, text }) {
    return { sent: !(await device.send(idOf(group), text)).queued };
  },
  async sync(device) {
    const events = [];
    await device.sync((event) => void events.push(seen(event)));
    return events;
  },
  async groups(device) {
    return (await device.groups()).map(({ id }) => nameOf(id));
  },
  async members(device, { group }) {
    return (await device.members(idOf(group))).map(({ name }) => name).sort();
  },
  update_keys: (device, { group }) => device.updateKeys(idOf(group)),
  async reserve(device, { group, invitee }) {
    const { reference, id } = await device.reserve(idOf(group), invitee);
    return { keypackage_ref: reference, reservation_id: id };
  },
  spend(device, { group, reservation }) {
    const { keypackage_ref: reference, reservation_id: id } = reservation;
    return device.spend(idOf(group), { reference, id });
  },
  rotate_key: (device) => device.rotateKey(),
  safety_number: (device, { user }) => device.safetyNumber(user),
  async verify(device, { user }) {
    await device.verifyPeer(user);
    return true;
  },
  async peer(device, { user }) {
    return { verified: (await device.peer(user))?.status === "verified" };
  },
  async audit(device) {
    return { is_sound: (await device.audit()).isSound };
  },
};

async function open({ device: home, user, name: device, args: { target, ciphersuites } }) {
  await mkdir(homes, { recursive: true });
  const store = await FileStore.open(join(homes, home));
  // As the bindings do, the pool is refilled at a quarter.
  const pool = { target, lowWatermark: Math.floor(target / 4) };
  const options = { store, server, user, device, pool, ...(ciphersuites && { ciphersuites }) };
  devices.set(home, await Device.open(options));
}

async function play(step) {
  const { device, verb, args } = step;
  const result = verb === "open" ? await open(step) : await verbs[verb](devices.get(device), args);
  return { ok: result ?? null };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await play(JSON.parse(line)).catch((error) => {
    if (!(error instanceof KeypoolError)) {
      throw error;
    }
    const { code, message, requestId, retryable } = error;
    return { error: { code, message, request_id: requestId ?? null, retryable } };
  });
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
