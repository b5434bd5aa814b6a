// A device of keypool that runs ts-mls: its packages, its groups, and what comes for it.
//
// All of it is in memory: it is for tests. A device that lives on has to store a package's private keys
// before it uploads the package, and what a message has changed before it acknowledges the message.

import { randomUUID } from "node:crypto";
import {
  acceptAll,
  createApplicationMessage,
  createCommit,
  createGroup,
  decodeMlsMessage,
  defaultCapabilities,
  emptyPskIndex,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  processMessage,
} from "ts-mls";
import { greaseCapabilities } from "ts-mls/grease.js";
import { decodeKeyPackage, makeKeyPackageRef } from "ts-mls/keyPackage.js";

import { Server } from "./server.js";
import { DeviceKey } from "./signing.js";

// Suite 1: the signature key is Ed25519, as that of the requests.
const SUITE = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";
// What the device can do, where it says no more than it must.
const CAPABILITIES = {
  versions: ["mls10"],
  ciphersuites: [SUITE],
  extensions: [],
  proposals: [],
  credentials: ["basic"],
};
const HOUR_S = 60n * 60n;
// The server takes packages that live for 14 days and an hour at most. The hour is for clocks that differ.
const LIFETIME_S = 14n * 24n * HOUR_S;
// For how long the server may wait with its answer, in seconds.
const WAIT_S = 20;

const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const bytesOf = (text, form = "base64") => new Uint8Array(Buffer.from(text, form));
const text = (bytes) => Buffer.from(bytes).toString("utf8");

export class Device {
  static async register(address, user, device) {
    const made = new Device();
    made.name = `${user}/${device}`;
    made.key = new DeviceKey();
    made.suite = await getCiphersuiteImpl(getCiphersuiteFromName(SUITE));
    made.server = new Server(address, made.key);
    // Packages by reference, groups by id.
    made.packages = new Map();
    made.groups = new Map();
    // How far the mailbox has been read.
    made.read = 0;
    await made.server.post("/devices", { user, device });
    return made;
  }

  // Makes packages and uploads them. The server computes the references too: they must be the same.
  async upload(count) {
    const packages = [];
    for (let number = 0; number < count; number += 1) {
      packages.push(await this.makePackage(number === 0));
    }
    const keypackages = packages.map((made) => base64(inMessage(made.publicPackage)));
    const { items } = await this.server.post("/keypackages/upload", { keypackages });
    items.forEach((item, number) => {
      if (item.outcome !== "stored" || item.keypackage_ref !== packages[number].reference) {
        throw new Error(`package ${number} was not taken: ${JSON.stringify(item)}`);
      }
    });
    return packages.map((made) => made.reference);
  }

  // ts-mls mixes a tenth of the GREASE values (RFC 9420 section 13.5) into the capabilities by chance; one
  // package may have all of them.
  async makePackage(withAllGrease) {
    const capabilities = withAllGrease
      ? greaseCapabilities({ probabilityPerGreaseValue: 1 }, CAPABILITIES)
      : defaultCapabilities();
    const now = BigInt(Math.floor(Date.now() / 1000));
    const lifetime = { notBefore: now - HOUR_S, notAfter: now - HOUR_S + LIFETIME_S };
    const credential = { credentialType: "basic", identity: bytesOf(this.name, "utf8") };
    const keys = { signKey: this.key.signKey, publicKey: this.key.publicKey };
    const made = await generateKeyPackageWithKey(
      credential, capabilities, lifetime, [], keys, this.suite,
    );
    const reference = await this.referenceOf(made.publicPackage);
    this.packages.set(reference, made);
    return { ...made, reference };
  }

  async referenceOf(publicPackage) {
    return Buffer.from(await makeKeyPackageRef(publicPackage, this.suite.hash)).toString("hex");
  }

  // Makes a group with this device alone in it, here and at the server.
  async create(name) {
    const own = await this.makePackage(false);
    // It is in the group from the start: nobody else may use it.
    this.packages.delete(own.reference);
    const id = bytesOf(name, "utf8");
    await this.server.post("/groups", { group_id: base64(id) });
    this.groups.set(name, await createGroup(id, own.publicPackage, own.privatePackage, [], this.suite));
  }

  // Reserves a package of a user, adds it, and posts Commit, Welcome and its spending in one request.
  async invite(name, user) {
    const group_id = base64(bytesOf(name, "utf8"));
    const reserved = await this.server.post("/keypackages/reserve", {
      target_user: user, group_id, reservation_id: randomUUID(), ciphersuites: [1],
    });
    const keyPackage = await this.checked(user, reserved);
    const state = this.groups.get(name);
    const made = await createCommit(
      { state, cipherSuite: this.suite },
      { extraProposals: [{ proposalType: "add", add: { keyPackage } }], ratchetTreeExtension: true },
    );
    const welcome = { version: "mls10", wireformat: "mls_welcome", welcome: made.welcome };
    const { keypackage_ref, reservation_id } = reserved;
    await this.server.post(`/groups/${base64url(name)}/commits`, {
      epoch: Number(state.groupContext.epoch),
      commit: base64(encodeMlsMessage(made.commit)),
      welcomes: [base64(encodeMlsMessage(welcome))],
      spend: [{ keypackage_ref, reservation_id }],
    });
    this.groups.set(name, made.newState);
    return keypackage_ref;
  }

  // The package that was reserved, if it is what the server says: the server is not trusted. Its signatures
  // are checked by ts-mls.
  async checked(user, { keypackage, keypackage_ref, device }) {
    const keyPackage = packageIn(bytesOf(keypackage));
    if ((await this.referenceOf(keyPackage)) !== keypackage_ref) {
      throw new Error("the package is another than the server says");
    }
    const { credentialType, identity } = keyPackage.leafNode.credential;
    if (credentialType !== "basic" || text(identity) !== `${user}/${device}`) {
      throw new Error("the package is somebody else's");
    }
    return keyPackage;
  }

  // Seals a message and posts it.
  async say(name, words) {
    const sealed = await createApplicationMessage(
      this.groups.get(name), bytesOf(words, "utf8"), this.suite,
    );
    this.groups.set(name, sealed.newState);
    const { privateMessage } = sealed;
    const message = { version: "mls10", wireformat: "mls_private_message", privateMessage };
    await this.server.post(`/groups/${base64url(name)}/messages`, {
      message: base64(encodeMlsMessage(message)),
    });
  }

  // What waits in the mailbox, in order; what is empty is answered when something comes.
  async mail(signal) {
    const path = `/mailbox?after=${this.read}&wait=${WAIT_S}`;
    return (await this.server.get(path, signal)).items;
  }

  // Takes in something from the mailbox and acknowledges it, and accepts the group of a Welcome: until then
  // little of a group is kept. Returns what is to be said of it.
  async takeIn(item) {
    const { position, kind, group_id } = item;
    const said = await this.open(text(bytesOf(group_id)), item);
    this.read = position;
    const accepted = kind === "welcome" ? [group_id] : [];
    await this.server.post("/mailbox/acknowledge", { through: position, accepted });
    return said;
  }

  // Opens an item: a Welcome, an answer to one of this device's own, which has no bytes, or a message of MLS.
  async open(name, { kind, sender, bytes, answer }) {
    if (kind === "answer") {
      return `${sender} has ${answer.outcome} ${name}`;
    }
    const message = messageIn(bytesOf(bytes));
    return kind === "welcome"
      ? this.join(name, message.welcome)
      : this.process(name, message, sender);
  }

  // Joins by the package the Welcome is for, which is used up by that.
  async join(name, welcome) {
    const named = welcome.secrets.map(({ newMember }) => Buffer.from(newMember).toString("hex"));
    const reference = named.find((one) => this.packages.has(one));
    if (reference === undefined) {
      throw new Error("the Welcome is for no package of this device");
    }
    const { publicPackage, privatePackage } = this.packages.get(reference);
    const state = await joinGroup(welcome, publicPackage, privatePackage, emptyPskIndex, this.suite);
    if (text(state.groupContext.groupId) !== name) {
      throw new Error("the Welcome is for another group than the server says");
    }
    this.packages.delete(reference);
    this.groups.set(name, state);
    return `joined ${name} by ${reference}`;
  }

  // ts-mls does not tell which member a message is from: the name is the server's word for it.
  async process(name, message, sender) {
    const state = this.groups.get(name);
    const result = await processMessage(message, state, emptyPskIndex, acceptAll, this.suite);
    this.groups.set(name, result.newState);
    return result.kind === "applicationMessage"
      ? `${sender}: ${text(result.message)}`
      : `${name} is in epoch ${result.newState.groupContext.epoch}`;
  }

  // What the server says of the pool, and of each package what happened to it.
  async pool() {
    const { available, reserved, spent } = await this.server.get("/keypackages/status");
    const { events } = await this.server.get("/keypackages/events?after=0&limit=1000");
    const lines = events.map(({ event }) => {
      const [[what, { keypackage_ref, holder }]] = Object.entries(event);
      return [what, keypackage_ref, holder && `by ${holder}`].filter(Boolean).join(" ");
    });
    return [...lines, `pool: ${available} available, ${reserved} reserved, ${spent} spent`];
  }
}

function inMessage(keyPackage) {
  return encodeMlsMessage({ version: "mls10", wireformat: "mls_key_package", keyPackage });
}

// What a decoder makes of all the bytes; nothing if that is not what they are.
function wholly(decode, bytes) {
  const decoded = decode(bytes, 0);
  return decoded !== undefined && decoded[1] === bytes.length ? decoded[0] : undefined;
}

// A package comes as its owner has uploaded it: bare, or in an MLSMessage.
function packageIn(bytes) {
  return wholly(decodeKeyPackage, bytes) ?? messageIn(bytes).keyPackage;
}

function messageIn(bytes) {
  const message = wholly(decodeMlsMessage, bytes);
  if (message === undefined) {
    throw new Error("the bytes are no MLSMessage");
  }
  return message;
}

// A group's id in a path.
function base64url(name) {
  return Buffer.from(name, "utf8").toString("base64url");
}
