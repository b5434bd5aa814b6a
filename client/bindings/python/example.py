"""Ben invites Anna and writes to her: example.py MODULE SERVER HOMES."""

import asyncio
import os
import sys

sys.path.insert(0, sys.argv[1])
from keypool_bindings import Device, MailboxEventKind, group_id  # noqa: E402


async def main(server, homes):
    group, devices = group_id(os.urandom(16)), {}
    for user in ("anna", "ben"):
        devices[user] = await Device.open(os.path.join(homes, user), user, "main", server)
        await devices[user].register()
        await devices[user].refresh_key_packages()
    await devices["ben"].create_group(group)
    await devices["ben"].invite(group, ["anna"])
    await devices["ben"].send(group, b"pizza at eight?")
    for event in await devices["anna"].sync():
        if isinstance(event.kind, MailboxEventKind.MESSAGE):
            print(f"{event.kind.sender}: {event.kind.bytes.decode()}")
        await devices["anna"].confirm(event.position)


asyncio.run(main(*sys.argv[2:]))
