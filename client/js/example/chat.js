// A chat in one page. Messages are gone when the page is closed; keys and groups stay in the browser.
// `?server=https://keys.example` names the server, which must name this page's origin with --cors-origin.

import { Device, KeypoolError } from "keypool-client";
import { IndexedDbStore } from "keypool-client/browser";

const server = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:8080";
const element = (id) => document.getElementById(id);
const value = (id) => element(id).value.trim();
const tell = (text) => (element("status").textContent = text);
const REFRESH_MS = 5 * 60_000;
const AGAIN_MS = 3_000;

let device;

function write(text, isEvent = false) {
  const line = document.createElement("li");
  line.textContent = text;
  line.classList.toggle("event", isEvent);
  element("log").append(line);
}

async function showGroups(chosen = value("group")) {
  const groups = (await device.groups()).filter(({ active }) => active);
  element("group").replaceChildren(...groups.map(({ id, name }) => new Option(name, id, false, id === chosen)));
}

const names = async (id) => (await device.groups()).find((group) => group.id === id)?.name;

// The sentence for an event.
async function show(event) {
  const group = "group" in event ? await names(event.group) : undefined;
  const sentences = {
    message: () => `${group}: ${event.sender.name}${event.sender.trust === "contradicts" ? " (!)" : ""}: ${event.text}`,
    joined: () => `${event.inviter.name} has brought you into ${group}`,
    answer: () => `${event.device} has ${event.outcome} ${group}`,
    changed: () => `${event.by.name} has changed ${group}`,
    removed: () => `${event.by.name} has removed you from ${group}`,
    invited: () => `${event.invited.map((one) => one.device).join(", ")} are in ${group}`,
    unreadable: () => `something in ${group} cannot be read: ${event.reason}`,
  };
  write((sentences[event.kind] ?? (() => `${event.kind} ${group ?? ""}`))(), event.kind !== "message");
  if (event.kind === "joined") {
    await showGroups(event.group);
    await keepPool();
  }
}

async function keepPool() {
  await device.refresh();
  const { available } = await device.status();
  tell(`${device.name} is online, with ${available} packages for invitations.`);
}

async function listen() {
  for (;;) {
    try {
      await device.sync(show, { waitSeconds: 20 });
    } catch (error) {
      tell(problem(error));
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

const problem = (error) => (error instanceof KeypoolError ? `${error.message}. ${error.hint}` : String(error));

// Does what a form asks for, and says why if that fails.
function on(form, work) {
  element(form).addEventListener("submit", async (submit) => {
    submit.preventDefault();
    const button = element(form).querySelector("button");
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      tell(problem(error));
    } finally {
      button.disabled = false;
    }
  });
}

on("start", async () => {
  tell("Starting …");
  const user = value("user");
  device = await Device.open({ store: await IndexedDbStore.openSealed(user), server, user });
  await device.register();
  await keepPool();
  setInterval(() => keepPool().catch((error) => tell(problem(error))), REFRESH_MS);
  element("start").hidden = true;
  element("chat").hidden = false;
  await showGroups();
  void listen();
});

on("create", async () => {
  const { id, name } = await device.createGroup(value("name"));
  element("create").reset();
  await showGroups(id);
  write(`${name} is made`, true);
});

on("invite", async () => {
  const { invited, missing } = await device.invite(value("group"), [value("invitee")]);
  element("invite").reset();
  invited.forEach((one) => write(`${one.device} was invited`, true));
  missing.forEach(({ name, code, reason }) => write(`${name} was not invited: ${code} ${reason ?? ""}`, true));
});

on("compare", async () => {
  element("number").value = (await device.safetyNumber(value("peer"))) ?? "There is no device to compare with.";
});

on("send", async () => {
  const text = value("text");
  const { queued } = await device.send(value("group"), text);
  element("send").reset();
  write(`you: ${text}${queued ? " (waits for the server)" : ""}`);
});
