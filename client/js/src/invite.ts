// Invitations: reserve a package of each device, check it, add it by a Commit, and spend it with that Commit.

import { requirementsOf } from "./capabilities.js";
import { commitChange, release, type Claim } from "./commits.js";
import { idInBody, isFinal, keepEvent, memberGroup, recordOf, writableGroup, type Context } from "./context.js";
import { registered } from "./directory.js";
import { hasCode } from "./errors.js";
import type { Invited, MissingDevice } from "./events.js";
import { receiveWaiting } from "./mailbox.js";
import { ciphersuiteOf, leavesOf } from "./mls.js";
import { judge, lookUp, peerRecord } from "./peers.js";
import { check, giveBack, type Checked, type Target } from "./reservations.js";
import { freshKey } from "./server.js";
import { Staged } from "./store.js";

/** An invitation that has begun. */
interface Invitation {
  group: string;
  names: string[];
  /** The secret id of the reservation: the same one again has the same packages. */
  reservation: string;
}

// How often a Commit is made again after another member was faster.
const ROUNDS_MAX = 3;

/**
 * Invites users (all their devices) and devices. Throws a `KeypoolError`: after a refusal nobody is invited; where no
 * answer came, `resumeInvitations` goes on.
 */
export async function invite(context: Context, group: string, names: string[]): Promise<Invited> {
  const staged = new Staged(context.store);
  await writableGroup(staged, group);
  const invitation = { group, names, reservation: freshKey() };
  staged.put(recordOf("invitation", group), invitation);
  await staged.commit();
  return goOn(context, invitation);
}

/** Goes on with the invitations that a crash or a lost answer has left unfinished. */
export async function resumeInvitations(context: Context): Promise<void> {
  for (const name of await context.store.list("invitation/")) {
    const invitation = await new Staged(context.store).get<Invitation>(name);
    if (invitation !== undefined) {
      await resume(context, invitation);
    }
  }
}

async function resume(context: Context, invitation: Invitation): Promise<void> {
  const { group, names } = invitation;
  const staged = new Staged(context.store);
  try {
    await keepEvent(staged, { kind: "invited", ...(await goOn(context, invitation)) });
  } catch (error) {
    if (!isFinal(error) && !hasCode(error, "unknown_here", "invalid_argument")) {
      throw error;
    }
    await keepEvent(staged, { kind: "notInvited", group, names, code: error.code, message: error.message });
  }
  await staged.commit();
}

async function goOn(context: Context, invitation: Invitation): Promise<Invited> {
  let claims: Claim[] = [];
  try {
    const { targets, missing } = await targetsOf(context, invitation);
    const { checked, rejected, absent } = await reserveAgain(context, invitation, targets);
    claims = checked.map(({ claim }) => claim);
    missing.push(...rejected, ...absent);
    return await add(context, invitation, checked, missing);
  } catch (error) {
    if (isFinal(error) || hasCode(error, "unknown_here", "invalid_argument")) {
      await end(context, invitation);
      await release(context, claims);
    }
    throw error;
  }
}

async function end(context: Context, { group }: Invitation): Promise<void> {
  const staged = new Staged(context.store);
  staged.delete(recordOf("invitation", group));
  await staged.commit();
}

async function membersOf(context: Context, group: string): Promise<Set<string>> {
  const staged = new Staged(context.store);
  const { state } = await memberGroup(staged, group);
  const members = await Promise.all([...leavesOf(state).values()].map((leaf) => judge(staged, leaf)));
  return new Set(members.map(({ name }) => name));
}

// The devices to invite, by the directory, which is held to what was seen of it before.
async function targetsOf(context: Context, { group, names }: Invitation) {
  const staged = new Staged(context.store);
  const users = names.map((name) => name.split("/")[0] as string);
  await lookUp(staged, context.server, users, context.clock.nowMs());
  await staged.commit();
  const members = await membersOf(context, group);
  const [targets, missing]: [Map<string, Target>, MissingDevice[]] = [new Map(), []];
  for (const name of new Set(names)) {
    const found = await devicesOf(staged, name, members);
    if (Array.isArray(found)) {
      found.forEach((target) => targets.set(`${target.user}/${target.device}`, target));
    } else {
      missing.push({ name, ...found });
    }
  }
  targets.delete(context.name);
  return { targets, missing };
}

// The devices behind a name that are no members, or the reason why there are none.
async function devicesOf(staged: Staged, name: string, members: Set<string>) {
  const [user, only] = name.split("/") as [string, string | undefined];
  const record = await peerRecord(staged, user);
  if (record?.doubt !== undefined) {
    return { code: "keys_changed", reason: record.doubt };
  }
  const all = record === undefined ? [] : registered(record.list).map(([device, listed]) => ({ user, device, listed }));
  const named = all.filter(({ device }) => (only ?? device) === device);
  const outside = named.filter(({ device }) => !members.has(`${user}/${device}`));
  if (outside.length === 0) {
    return { code: named.length > 0 ? "already_member" : "unknown_user" };
  }
  return outside;
}

// Reserves packages; a reservation from before a crash may have lapsed, and is made again once.
async function reserveAgain(context: Context, invitation: Invitation, targets: Map<string, Target>) {
  const first = await reserve(context, invitation, targets);
  const lost = first.absent.filter(({ code }) => code === "reservation_lost").map(({ name }) => name);
  if (lost.length === 0) {
    return first;
  }
  const renewed = { ...invitation, reservation: freshKey() };
  const staged = new Staged(context.store);
  staged.put(recordOf("invitation", invitation.group), renewed);
  await staged.commit();
  const again = await reserve(context, renewed, new Map([...targets].filter(([name]) => lost.includes(name))));
  return {
    checked: [...first.checked, ...again.checked],
    rejected: [...first.rejected, ...again.rejected],
    absent: [...first.absent.filter(({ name }) => !lost.includes(name)), ...again.absent],
  };
}

async function reserve(context: Context, { group, reservation }: Invitation, targets: Map<string, Target>) {
  const [checked, rejected]: [Checked[], MissingDevice[]] = [[], []];
  if (targets.size === 0) {
    return { checked, rejected, absent: [] };
  }
  const named = [...targets.values()].map(({ user, device }) => ({ user, device }));
  const { state } = await memberGroup(new Staged(context.store), group);
  const ciphersuites = [ciphersuiteOf(state)];
  const required = requirementsOf(state);
  const needs = { ciphersuites, ...(required === undefined ? {} : { required }) };
  const body = { group_id: idInBody(group), reservation_id: reservation, targets: named, ...needs };
  const reply = await context.server.post("/keypackages/reserve-many", body);
  const asked = new Map(targets);
  for (const offered of reply.reservations) {
    const name = `${offered.user}/${offered.device}`;
    const target = asked.get(name);
    // The server may name a device twice, or one that nobody asked for.
    asked.delete(name);
    const outcome = target === undefined ? "identity" : await check(context, offered, target, ciphersuites);
    if (typeof outcome === "string") {
      rejected.push({ name, code: "package_rejected", reason: outcome });
      await giveBack(context, offered, outcome);
    } else {
      checked.push(outcome);
    }
  }
  const absent = reply.missing.map(({ user, device, code, requirement }) => {
    const reason = Object.entries(requirement ?? {}).map(([kind, type]) => `${kind} ${type}`)[0];
    return { name: device ? `${user}/${device}` : user, code, ...(reason === undefined ? {} : { reason }) };
  });
  return { checked, rejected, absent };
}

// Adds devices; after another member's Commit the mailbox is read, and another Commit made.
async function add(
  context: Context,
  invitation: Invitation,
  reserved: Checked[],
  missing: MissingDevice[],
): Promise<Invited> {
  const { group } = invitation;
  let checked = reserved;
  for (let round = 1; checked.length > 0; round += 1) {
    try {
      return await addBy(context, group, checked, missing);
    } catch (error) {
      if (!hasCode(error, "epoch_taken") || round === ROUNDS_MAX) {
        throw error;
      }
    }
    await receiveWaiting(context);
    const members = await membersOf(context, group);
    const added = checked.filter(({ device }) => members.has(device));
    await release(
      context,
      added.map(({ claim }) => claim),
    );
    missing.push(...added.map(({ device }) => ({ name: device, code: "already_member" })));
    checked = checked.filter(({ device }) => !members.has(device));
  }
  await end(context, invitation);
  return { group, invited: [], missing };
}

async function addBy(context: Context, group: string, checked: Checked[], missing: MissingDevice[]): Promise<Invited> {
  const devices = checked.map(({ device, claim, lastResort }) => {
    return { device, reference: claim.keypackage_ref, lastResort };
  });
  const invited = { group, invited: devices, missing };
  const proposals = checked.map(({ keyPackage }) => ({ proposalType: "add" as const, add: { keyPackage } }));
  await commitChange(context, group, { proposals, spend: checked.map(({ claim }) => claim), invited });
  return invited;
}
