// The device: the one object that an app uses.

import { auditLedger, type Audit } from "./audit.js";
import { fromBase64, fromBase64Url, random, toBase64Url, toHex, utf8 } from "./bytes.js";
import { appTypes, requiring } from "./capabilities.js";
import { ServerClock, type ClockOffset, type KnownTime } from "./clock.js";
import { joinedGroup, release, resumeCommits, updateKeys } from "./commits.js";
import { groupName, groupRecords, idInBody, isFinal, memberGroup, recordOf, type Context } from "./context.js";
import { headOf } from "./directory.js";
import { KeypoolError } from "./errors.js";
import { storedEvent, type Invited, type NumberedEvent } from "./events.js";
import { invite, resumeInvitations } from "./invite.js";
import { acknowledge, compareHome, fetchMail, receive } from "./mailbox.js";
import { acceptMembers, finishLeaving, freshenKeys, leave, membersOf, remove, send, type Sent } from "./messages.js";
import { newGroup } from "./mls.js";
import type { AwaitedDevice, DeviceOptions, DeviceStatus, Group, GroupOptions } from "./options.js";
import type { RegisterOptions, SyncOptions } from "./options.js";
import { flushOutbox } from "./outbox.js";
import { forgetPeer, lookUp, peerRecord, safetyNumberOf, toPeer, verifyPeer, type Member, type Peer } from "./peers.js";
import { availableIn, makeDatedPackage, packagesOf, poolHistory, poolSettings, refreshPool } from "./pool.js";
import type { PoolChange, PoolOptions, Refresh } from "./pool.js";
import { deviceRecord, voucherOf, vouchFor, type DeviceRecord } from "./registration.js";
import { claimOf, reserve, type Reservation, type Spent } from "./reservations.js";
import { beginRotation, reloadKey, resumeRotation } from "./rotation.js";
import { freshKey, Server } from "./server.js";
import { DeviceKey } from "./signing.js";
import { ledgerId } from "./note.js";
import { Staged } from "./store.js";
import { CIPHERSUITE, usableSuites, type Ciphersuite } from "./suites.js";

const ID_BYTES = 8;

/**
 * A device of a user. Each call reads the store and writes it as one, under a lock of the store, so tabs may share a
 * store. Every call throws a `KeypoolError`; after an error the same call may be made again.
 */
export class Device {
  readonly #opened: Context;
  readonly #pool: Required<PoolOptions>;
  readonly #ledgerKey: string | undefined;
  readonly #name: string;
  // Whether this store was compared with what the server knows of it since it was opened.
  #compared = false;
  #isClosed = false;

  private constructor(context: Context, options: DeviceOptions, device: string) {
    this.#opened = context;
    this.#name = device;
    this.#pool = poolSettings(options.pool ?? {}, context.capabilities.ciphersuites);
    this.#ledgerKey = options.ledgerKey;
  }

  /** Opens a device. A new store gets a new key. Throws `store_of_another` if the store has another device. */
  static async open(options: DeviceOptions): Promise<Device> {
    const { user, device = "main", store } = options;
    const ciphersuites = usableSuites(options.ciphersuites ?? [CIPHERSUITE]);
    const capabilities = { ciphersuites, ...appTypes(options.capabilities) };
    poolSettings(options.pool ?? {}, ciphersuites);
    return store.exclusive("state", async () => {
      const staged = new Staged(store);
      const record = await deviceRecord(staged, { user, device, server: options.server });
      const key = await DeviceKey.fromSecret(fromBase64(record.secret));
      const clock = new ServerClock(options.now ?? Date.now);
      const known = await staged.get<KnownTime>("clock");
      if (known !== undefined) {
        clock.restore(known);
      }
      await staged.commit();
      const fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
      const server = new Server(options.server, key, clock, fetch);
      const context = { store, server, key, capabilities, clock, user, name: `${user}/${device}` };
      return new Device(context, options, device);
    });
  }

  /** `user/device`. */
  get name(): string {
    return this.#opened.name;
  }

  /** The public key, base64url without padding: what `vouch` on another device takes. */
  get key(): string {
    return this.#opened.key.id;
  }

  /** Registers the device at the server. Repeating it changes nothing. */
  async register(options: RegisterOptions = {}): Promise<void> {
    const voucher = options.voucher === undefined ? {} : { voucher: voucherOf(options.voucher) };
    const token = options.token === undefined ? {} : { authorization: `Bearer ${options.token}` };
    await this.#alone(async () => {
      await resumeRotation(this.#context);
      const { user, server } = this.#context;
      await server.post("/devices", { user, device: this.#name, ...voucher }, token);
    });
  }

  /** Vouches for another device of this user, by its name and key. Returns the word that it registers with. */
  vouch(device: string, key: string): Promise<string> {
    return this.#alone(() => vouchFor(this.#context, device, key));
  }

  /**
   * Compares the pool with the server's, deletes what has expired, and fills the pool if the server has few packages to
   * hand out. Call it at start, after each joined group, and every few minutes.
   */
  refresh(): Promise<Refresh> {
    return this.#alone(async () => {
      await this.#resume();
      const status = await this.#context.server.get("/keypackages/status");
      await this.#proveTime();
      const outcome = await refreshPool(this.#context, this.#pool, status);
      const unintroducedDevices = await this.#watchOwnDevices(status.device_list_head);
      return { ...outcome, clock: await this.#tellClock(), unintroducedDevices };
    });
  }

  /**
   * Replaces the device's key, and returns the new one. New packages take the place of all live ones, and the next `sync`
   * replaces the keys in each group. A Welcome for a package from before is still opened.
   */
  rotateKey(): Promise<string> {
    return this.#alone(async () => {
      await beginRotation(this.#context, this.#pool.target);
      await resumeRotation(this.#context);
      return this.#context.key.id;
    });
  }

  /** Makes a group with this device in it. */
  createGroup(name: string, options: GroupOptions = {}): Promise<Group> {
    return this.#alone(async () => {
      await this.#resume();
      const id = options.id ?? toBase64Url(utf8(`${name}~${toHex(random(ID_BYTES))}`));
      const ciphersuite = this.#suiteOfGroup(options);
      const staged = new Staged(this.#context.store);
      await refuseKnown(staged, id);
      const extensions = requiring(options.required, this.#context.capabilities);
      const [, own] = await makeDatedPackage(this.#context, staged, { ciphersuite, lastResort: false });
      staged.put(recordOf("group", id), joinedGroup(await newGroup(fromBase64Url(id), own, extensions), false));
      staged.put(recordOf("making", id), { id, key: freshKey() });
      await staged.commit();
      await this.#finishMaking();
      return { id, name: groupName(id), epoch: 0, active: true };
    });
  }

  /** The groups of this device, also those it was removed from. */
  async groups(): Promise<Group[]> {
    const records = await groupRecords(new Staged(this.#context.store));
    return records.map(({ id, epoch, active }) => ({ id, name: groupName(id), epoch, active }));
  }

  /** The members of a group, and how far their keys are trusted. */
  async members(group: string): Promise<Member[]> {
    const staged = new Staged(this.#context.store);
    return membersOf(staged, (await memberGroup(staged, group)).state);
  }

  /** Invites users, each with all devices, or single devices `user/device`, to a group. They may be offline. */
  invite(group: string, names: string[]): Promise<Invited> {
    return this.#alone(async () => {
      await this.#resume();
      await this.#compare();
      return invite(this.#context, group, names);
    });
  }

  /**
   * Reserves a package of a user, or of one device `user/device`, for a group, and checks it: for apps that make their
   * Commits with another MLS library. `invite` does all of this by itself.
   */
  reserve(group: string, name: string): Promise<Reservation> {
    return this.#alone(() => reserve(this.#context, group, name, this.#context.capabilities.ciphersuites));
  }

  /** Gives a claim on a package more time: right before the Commit is posted, five times at most. Returns its end. */
  renew(reservation: Pick<Reservation, "reference" | "id">): Promise<Date> {
    return this.#alone(async () => {
      const reply = await this.#context.server.post("/keypackages/renew", claimOf(reservation));
      return new Date(reply.reservation_expires_at * 1000);
    });
  }

  /** Gives a reserved package back. */
  release(reservation: Pick<Reservation, "reference" | "id">): Promise<void> {
    return this.#alone(() => release(this.#context, [claimOf(reservation)]));
  }

  /** Spends a reserved package: its Commit was accepted. Throws `reservation_lost` if another inviter was given it. */
  spend(group: string, reservation: Pick<Reservation, "reference" | "id">): Promise<Spent> {
    return this.#alone(async () => {
      const body = { ...claimOf(reservation), group_id: idInBody(group) };
      const { late, replayed } = await this.#context.server.post("/keypackages/spend", body);
      return { late, replayed };
    });
  }

  /**
   * Waits for packages of users or devices that an invitation has missed with `pool_exhausted`: the event `available`
   * names a device once it has uploaded some. Returns the state of each.
   */
  awaitPackages(names: string[]): Promise<AwaitedDevice[]> {
    return this.#alone(async () => {
      const targets = names
        .map((name) => name.split("/"))
        .map(([user = "", device]) => ({ user, ...(device && { device }) }));
      const { devices } = await this.#context.server.post("/keypackages/await", { targets });
      return devices.map(({ user, device, status, code }) => {
        return { name: device ? `${user}/${device}` : user, status, ...(code && { code }) };
      });
    });
  }

  /** Removes members, named as for `invite`. */
  remove(group: string, names: string[]): Promise<void> {
    return this.#changing(() => remove(this.#context, group, names));
  }

  /** Replaces the keys of this device in a group. After joining, `sync` does so by itself. */
  updateKeys(group: string): Promise<void> {
    return this.#changing(() => updateKeys(this.#context, group));
  }

  /** Leaves a group. */
  leave(group: string): Promise<void> {
    return this.#changing(() => leave(this.#context, group));
  }

  /** Sends a message. Without an answer of the server the message is kept, and sent by the next call of any kind. */
  send(group: string, content: string | Uint8Array): Promise<Sent> {
    return this.#changing(() => send(this.#context, group, content), true);
  }

  /** Accepts the keys of all members of a group, also of those that contradict the directory. */
  acceptMembers(group: string): Promise<void> {
    return this.#alone(() => acceptMembers(this.#context, group));
  }

  /**
   * Takes in the items of the mailbox and hands each event to the app, in order. An event is deleted when the handler
   * has returned, so a crash shows it again. Only one tab waits at a time; the others take their turn. The handler may
   * call every method but `sync`.
   */
  async sync(onEvent: (event: NumberedEvent) => void | Promise<void>, options: SyncOptions = {}): Promise<void> {
    const { waitSeconds = 0, signal } = options;
    await this.#context.store.exclusive(
      "sync",
      async () => {
        await this.#alone(() => this.#resume());
        await this.#deliver(onEvent);
        for (let [more, waitS] = [true, waitSeconds]; more; waitS = 0) {
          const mail = await fetchMail(this.#context, waitS, signal);
          more = mail.more && mail.items.length > 0;
          await this.#alone(() => this.#receive(mail, more));
          await this.#deliver(onEvent);
        }
      },
      signal,
    );
  }

  /** The state of the pool at the server, and of this device. */
  status(): Promise<DeviceStatus> {
    return this.#alone(async () => {
      const { server, store } = this.#context;
      const status = await server.get("/keypackages/status");
      const ciphersuites = this.#context.capabilities.ciphersuites.map((ciphersuite) => {
        return { ciphersuite, available: availableIn(status, ciphersuite) };
      });
      return {
        available: ciphersuites.reduce((sum, { available }) => sum + available, 0),
        ciphersuites,
        reserved: status.reserved,
        spent: status.spent,
        lastResort: status.last_resort,
        health: status.pool_health,
        privateKeys: (await packagesOf(new Staged(store))).size,
        queued: (await store.list("outbox/")).length,
        groups: await this.groups(),
      };
    });
  }

  /** The changes of this device's pool by the server's history, the oldest first. */
  history(): Promise<PoolChange[]> {
    return this.#alone(() => poolHistory(this.#context));
  }

  /** A user's keys, looked up; `undefined` for a user who has never had a device. */
  peer(user: string): Promise<Peer | undefined> {
    return this.#alone(async () => {
      const record = await this.#lookedUp(user);
      return record === undefined ? undefined : toPeer(record);
    });
  }

  /**
   * The safety number of this user and another: 60 digits that the two compare in person. `undefined` for a user
   * without a trusted device.
   */
  safetyNumber(user: string): Promise<string | undefined> {
    return this.#alone(async () => {
      const other = await this.#lookedUp(user);
      const own = await this.#lookedUp(this.#context.user);
      return own === undefined || other === undefined ? undefined : safetyNumberOf(own, other);
    });
  }

  /** Notes that a person has compared the safety number, and that it is the same. */
  async verifyPeer(user: string): Promise<void> {
    await this.#alone(async () => {
      const staged = new Staged(this.#context.store);
      const record = await peerRecord(staged, user);
      if (record === undefined || record.doubt !== undefined) {
        const fact = record === undefined ? `${user} was never looked up` : `the keys of ${user} have changed`;
        throw new KeypoolError("invalid_argument", fact, "Show peer(), then compare the safety number.");
      }
      verifyPeer(staged, record, this.#context.clock.nowMs());
      await staged.commit();
    });
  }

  /** Takes the keys of now as the user's: once the person was asked in another way. */
  acceptPeer(user: string): Promise<Peer | undefined> {
    return this.#alone(async () => {
      const staged = new Staged(this.#context.store);
      forgetPeer(staged, user);
      await staged.commit();
      const record = await this.#lookedUp(user);
      return record === undefined ? undefined : toPeer(record);
    });
  }

  /**
   * Audits the server: that its ledger and the history of this device's pool have only grown since the last audit, and
   * that no package was handed out twice. Tell the user if it is not sound.
   */
  audit(): Promise<Audit> {
    return this.#alone(async () => {
      await this.#proveTime();
      const record = await new Staged(this.#context.store).get<DeviceRecord>("device");
      return auditLedger(this.#context, this.#ledgerKey ?? record?.ledgerKey ?? "");
    });
  }

  /** Closes the store. Every later call throws `closed`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opened.store.close();
  }

  get #context(): Context {
    if (this.#isClosed) {
      throw new KeypoolError("closed", `the device ${this.name} was closed`, "Open it again.");
    }
    return this.#opened;
  }

  async #alone<T>(work: () => Promise<T>): Promise<T> {
    return this.#context.store.exclusive("state", async () => {
      await reloadKey(this.#context);
      return work();
    });
  }

  #suiteOfGroup({ ciphersuite }: GroupOptions): Ciphersuite {
    const [first] = this.#context.capabilities.ciphersuites as [Ciphersuite];
    const suite = this.#context.capabilities.ciphersuites.find((one) => one === (ciphersuite ?? first));
    if (suite === undefined) {
      const fact = `this device does not use the ciphersuite ${ciphersuite}`;
      throw new KeypoolError("invalid_argument", fact, "Name it among the `ciphersuites` when the device is opened.");
    }
    return suite;
  }

  #changing<T>(work: () => Promise<T>, offline = false): Promise<T> {
    return this.#alone(async () => {
      try {
        await this.#resume();
      } catch (error) {
        // A message can be sealed while the server is away, unless a Commit is open.
        const isOpen = (await this.#context.store.list("commit/")).length > 0;
        if (!offline || isOpen || isFinal(error) || !this.#compared) {
          throw error;
        }
      }
      await this.#compare();
      return work();
    });
  }

  // Finishes the requests that a crash or a lost answer has left open.
  async #resume(): Promise<void> {
    await resumeRotation(this.#context);
    await this.#finishMaking();
    await resumeCommits(this.#context);
    await flushOutbox(this.#context);
    await resumeInvitations(this.#context);
    await finishLeaving(this.#context);
  }

  async #receive(mail: Awaited<ReturnType<typeof fetchMail>>, more: boolean): Promise<void> {
    await flushOutbox(this.#context);
    await receive(this.#context, mail);
    this.#compared = true;
    await this.#proveTime();
    if (!more) {
      await freshenKeys(this.#context);
    }
    await this.#keepClock();
  }

  // Before the first thing is sealed: a store that is an older copy would use keys again.
  async #compare(): Promise<void> {
    if (!this.#compared) {
      await compareHome(this.#context, await fetchMail(this.#context, 0));
      await acknowledge(this.#context);
      this.#compared = true;
    }
  }

  async #finishMaking(): Promise<void> {
    const { store, server } = this.#context;
    for (const name of await store.list("making/")) {
      const staged = new Staged(store);
      const { id, key } = (await staged.get<{ id: string; key: string }>(name)) as { id: string; key: string };
      staged.delete(name);
      try {
        await server.post("/groups", { group_id: idInBody(id) }, { key });
        await staged.commit();
      } catch (error) {
        if (isFinal(error)) {
          staged.delete(recordOf("group", id));
          await staged.commit();
        }
        throw error;
      }
    }
  }

  async #deliver(onEvent: (event: NumberedEvent) => void | Promise<void>): Promise<void> {
    for (const name of await this.#context.store.list("event/")) {
      const event = await new Staged(this.#context.store).get<object>(name);
      if (event !== undefined) {
        await onEvent({ ...storedEvent(event), id: name.slice("event/".length) } as NumberedEvent);
        await this.#alone(() => this.#context.store.write(new Map([[name, undefined]])));
      }
    }
  }

  async #lookedUp(user: string) {
    const staged = new Staged(this.#context.store);
    await lookUp(staged, this.#context.server, [user], this.#context.clock.nowMs());
    await staged.commit();
    return peerRecord(staged, user);
  }

  async #watchOwnDevices(head: string | undefined): Promise<string[]> {
    const { user, store } = this.#context;
    const known = await peerRecord(new Staged(store), user);
    const record = known !== undefined && headOf(known.list) === head ? known : await this.#lookedUp(user);
    const devices = record === undefined ? [] : Object.entries(record.list.devices);
    const strange = devices.filter(([device, { key, introduced }]) => key && !introduced && device !== this.#name);
    return strange.map(([device]) => device);
  }

  async #proveTime(): Promise<void> {
    const { server, clock, store } = this.#context;
    const staged = new Staged(store);
    const record = (await staged.get<DeviceRecord>("device")) as DeviceRecord;
    const pinned = this.#ledgerKey ?? record.ledgerKey ?? (await server.ledgerKey());
    if (record.ledgerKey !== pinned && ledgerId(pinned) !== "") {
      staged.put("device", { ...record, ledgerKey: pinned });
      await staged.commit();
    }
    if (clock.isInDoubt()) {
      await server.proveTime(pinned);
    }
  }

  async #tellClock(): Promise<ClockOffset | undefined> {
    const offset = this.#context.clock.tell();
    await this.#keepClock();
    return offset;
  }

  async #keepClock(): Promise<void> {
    const { store, clock } = this.#context;
    const staged = new Staged(store);
    const known = clock.known();
    if (JSON.stringify(await staged.get<KnownTime>("clock")) !== JSON.stringify(known)) {
      staged.put("clock", known);
      await staged.commit();
    }
  }
}

// A group is never made in the place of another one of this device.
async function refuseKnown(staged: Staged, id: string): Promise<void> {
  const isId = /^[A-Za-z0-9_-]{1,342}$/.test(id);
  if (!isId || (await staged.get(recordOf("group", id))) !== undefined) {
    const fact = isId ? `this device has a group ${groupName(id)} already` : `"${id}" is no id of a group`;
    throw new KeypoolError("invalid_argument", fact, "Draw another id at random, and write it as base64url.");
  }
}
