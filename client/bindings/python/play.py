"""Plays the devices of the scenario that are in Python: see ../scenario.json and ../tests/scenario.rs.

Its arguments are the folder of the generated module, the server's URL, and a folder for homes. It reads a step a line
and answers each with a line.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, sys.argv[1])
from keypool_bindings import (  # noqa: E402
    Device,
    DeviceError,
    DeviceOptions,
    MailboxEventKind,
    PeerStatus,
    group_bytes,
    group_id,
)


def name_of(group):
    return group_bytes(group).decode()


def seen(event):
    """An event as the scenario has it."""
    kind = event.kind
    if isinstance(kind, MailboxEventKind.JOINED):
        return {"kind": "joined", "group": name_of(kind.group), "from": kind.inviter}
    if isinstance(kind, MailboxEventKind.MESSAGE):
        text = kind.bytes.decode()
        return {"kind": "message", "group": name_of(kind.group), "from": kind.sender, "text": text}
    if isinstance(kind, MailboxEventKind.CHANGED):
        change = kind[0]
        return {"kind": "changed", "group": name_of(change.group), "from": change.sender}
    return {"kind": "other"}


async def play(device, verb, args):
    """Carries out a step on a device that is open."""
    group = group_id(args["group"].encode()) if "group" in args else None
    user = args.get("user")
    if verb == "close":
        return await device.close_home()
    if verb == "register":
        reply = await device.register()
        return {"user": reply.user, "device": reply.device}
    if verb == "refresh":
        refresh = await device.refresh_now()
        return {"created": refresh.created, "available": refresh.available}
    if verb == "status":
        counts = (await device.status()).counts
        return {"available": counts.available, "reserved": counts.reserved, "spent": counts.spent}
    if verb == "create_group":
        return await device.create_group(group)
    if verb == "invite":
        invited = await device.invite(group, args["invitees"])
        return {"added": [added.device for added in invited.added], "missing": len(invited.missing)}
    if verb == "resume":
        resumed = await device.resume_outbox()
        resumed += await device.resume_invitations()
        resumed += await device.resume_updates()
        return {"resumed": len(resumed)}
    if verb == "send":
        return {"sent": await device.send(group, args["text"].encode()) is not None}
    if verb == "sync":
        events = await device.sync()
        if events:
            await device.confirm(events[-1].position)
        return [seen(event) for event in events]
    if verb == "groups":
        return [name_of(group) for group in await device.groups()]
    if verb == "members":
        return sorted(member.name for member in await device.members(group))
    if verb == "update_keys":
        return await device.update_keys(group)
    if verb == "reserve":
        reply = await device.reserve(group, args["invitee"])
        return {"keypackage_ref": reply.keypackage_ref, "reservation_id": reply.reservation_id}
    if verb == "spend":
        claim = args["reservation"]
        spent = await device.spend(group, claim["keypackage_ref"], claim["reservation_id"])
        return {"late": spent.late, "replayed": spent.replayed}
    if verb == "rotate_key":
        return await device.rotate_key()
    if verb == "safety_number":
        return await device.safety_number(user)
    if verb == "verify":
        return await device.verify_peer(user)
    if verb == "peer":
        peer = await device.peer(user)
        return {"verified": isinstance(peer.status, PeerStatus.VERIFIED)}
    if verb == "audit":
        return {"is_sound": (await device.audit()).is_sound}
    raise ValueError(f"{verb} is no verb")


async def main(server, homes):
    devices = {}
    for line in sys.stdin:
        step = json.loads(line)
        name, verb, args = step["device"], step["verb"], step["args"]
        try:
            if verb == "open":
                home = os.path.join(homes, name)
                options = DeviceOptions(target=args["target"], ciphersuites=args.get("ciphersuites"))
                devices[name] = await Device.open(home, step["user"], step["name"], server, options)
                answer = {"ok": None}
            else:
                answer = {"ok": await play(devices[name], verb, args)}
        except DeviceError as error:
            answer = {
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "request_id": error.request_id,
                    "retryable": error.retryable,
                }
            }
        print(json.dumps(answer), flush=True)


asyncio.run(main(*sys.argv[2:]))
