"""Ends while calls run: end_early.py MODULE SERVER HOME WAIT_S. See test_device.py."""

import asyncio
import os
import sys

sys.path.insert(0, sys.argv[1])
from keypool_bindings import Device, group_id  # noqa: E402


async def main(server, home, wait_s):
    device = await Device.open(home, "ending", "main", server)
    calls = [asyncio.ensure_future(device.sync(wait_s=30))]
    for _ in range(20):
        calls.append(asyncio.ensure_future(device.status()))
        calls.append(asyncio.ensure_future(device.create_group(group_id(os.urandom(16)))))
    await asyncio.sleep(float(wait_s))


asyncio.run(main(*sys.argv[2:]))
