"""Treats devices badly: see ../tests/bindings/python.rs.

Its arguments are the folder of the generated module, the server's URL, and a folder for homes.
"""

import asyncio
import gc
import os
import sqlite3
import sys
import threading
import time
import unittest

MODULE, SERVER, HOMES = sys.argv[1:4]
sys.path.insert(0, MODULE)
import ed25519  # noqa: E402
import keypool_bindings  # noqa: E402
from keypool_bindings import (  # noqa: E402
    AppDatabase,
    AppKeystore,
    AppKeystoreError,
    Device,
    DeviceError,
    DeviceKey,
    DeviceOptions,
    InternalError,
    MailboxEventKind,
    StoredEntry,
    group_id,
)

# Only a hang takes longer, on the busiest machine.
PATIENCE_S = 60
# An address at which no server listens.
NOWHERE = "http://127.0.0.1:9"


def home(name):
    return os.path.join(HOMES, name)


async def opened(name, server=SERVER, **options):
    return await Device.open(home(name), name, "main", server, DeviceOptions(**options))


async def registered(name, **options):
    device = await opened(name, **options)
    await device.register()
    await device.refresh_key_packages()
    return device


class SqliteDatabase(AppDatabase):
    """A store in a table of the app's own SQLite database."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.connection = sqlite3.connect(path, check_same_thread=False)
        self.connection.execute("CREATE TABLE IF NOT EXISTS store (key BLOB PRIMARY KEY, value BLOB)")

    def get(self, key):
        with self.lock:
            row = self.connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
        return row and row[0]

    def scan(self, prefix):
        with self.lock:
            rows = self.connection.execute("SELECT key, value FROM store ORDER BY key").fetchall()
        return [StoredEntry(key=key, value=value) for key, value in rows if key.startswith(prefix)]

    def write(self, changes):
        with self.lock, self.connection:
            for change in changes:
                if change.value is None:
                    self.connection.execute("DELETE FROM store WHERE key = ?", (change.key,))
                else:
                    row = (change.key, change.value)
                    self.connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", row)


class Keystore(AppKeystore):
    """A keystore of the app's, which may be locked."""

    def __init__(self):
        self.secrets, self.locked = {}, False

    def unlocked(self):
        if self.locked:
            raise AppKeystoreError.Refused("the phone is locked")
        return self.secrets

    def generate(self, scheme):
        if scheme != 0x0807:
            raise AppKeystoreError.Refused(f"no keys of scheme {scheme:#06x}")
        secret = os.urandom(32)
        key = ed25519.public_key(secret)
        self.unlocked()[key] = secret
        return key

    def sign(self, key, payload):
        return ed25519.sign(self.unlocked()[key], payload)

    def delete(self, key):
        self.unlocked().pop(key, None)


class DeviceTest(unittest.IsolatedAsyncioTestCase):
    async def refused(self, code, call):
        with self.assertRaises(DeviceError) as raised:
            await call
        error = raised.exception
        self.assertEqual(error.code, code, error)
        self.assertTrue(error.message)
        return error

    async def test_signature_keys_stay_in_the_apps_keystore(self):
        keystore = Keystore()
        alice = await registered("keystore-alice", target=2)
        bob = await registered("keystore-bob", target=2, keystore=keystore)
        self.assertEqual(len(keystore.secrets), 1)
        group = group_id(b"keystore")
        await alice.create_group(group)
        self.assertEqual((await alice.invite(group, ["keystore-bob"])).missing, [])
        await bob.sync(wait_s=0)
        keystore.locked = True
        error = await self.refused("keystore_refused", bob.send(group, b"locked"))
        self.assertIn("the phone is locked", error.message)
        keystore.locked = False
        await bob.send(group, b"hello")
        await bob.rotate_key()
        self.assertEqual(len(keystore.secrets), 2)
        kinds = [event.kind for event in await alice.sync(wait_s=0)]
        told = [kind.bytes for kind in kinds if isinstance(kind, MailboxEventKind.MESSAGE)]
        self.assertEqual(told, [b"hello"])
        del bob
        gc.collect()
        await self.refused("keystore_missing", opened("keystore-bob"))

    async def test_fifty_calls_at_once_are_all_carried_out(self):
        device = await registered("fifty")
        names = [group_id(f"group {number}".encode()) for number in range(50)]
        calls = [device.create_group(name) for name in names]
        await asyncio.gather(*calls, *(device.status() for _ in range(50)))
        self.assertEqual(sorted(await device.groups()), sorted(names))

    async def test_threads_with_loops_of_their_own_share_a_device(self):
        device, done = await registered("threads"), []

        def work(number):
            asyncio.run(device.create_group(group_id(f"group {number}".encode())))
            done.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE_S)
        self.assertEqual(sorted(done), list(range(50)))
        self.assertEqual(len(await device.groups()), 50)

    async def test_the_event_loop_runs_on_during_a_call(self):
        key = DeviceKey.from_passphrase("a tenth of a second and more of computing")
        turns, opening = 0, asyncio.ensure_future(opened("loop", device_key=key))
        while not opening.done():
            await asyncio.sleep(0)
            turns += 1
        await opening
        self.assertGreater(turns, 20)

    async def test_a_sync_that_is_cancelled_loses_nothing(self):
        alice, bob = await registered("cancelling-alice"), await registered("cancelling-bob")
        group = group_id(b"cancelled")
        await alice.create_group(group)
        waiting = asyncio.ensure_future(bob.sync(wait_s=30))
        await bob.status()
        waiting.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waiting
        await alice.invite(group, ["cancelling-bob"])
        for number in range(20):
            await alice.send(group, f"{number}".encode())
            syncing = asyncio.ensure_future(bob.sync())
            # In the middle, at another place each time.
            for _ in range(number):
                await asyncio.sleep(0.001)
            syncing.cancel()
            await asyncio.wait([syncing], timeout=PATIENCE_S)
        events = [event.kind for event in await bob.sync()]
        self.assertIsInstance(events[0], MailboxEventKind.JOINED)
        texts = [kind.bytes for kind in events if isinstance(kind, MailboxEventKind.MESSAGE)]
        self.assertEqual(texts, [f"{number}".encode() for number in range(20)])
        await bob.close_home()

    async def test_a_device_that_is_dropped_during_a_call_ends_it_in_order(self):
        device = await registered("dropped")
        call = asyncio.ensure_future(device.create_group(group_id(b"dropped")))
        await asyncio.sleep(0)
        del device
        gc.collect()
        await call
        device = await self.reopened("dropped")
        self.assertEqual(await device.groups(), [group_id(b"dropped")])

    async def reopened(self, name):
        """The device, once the call that held its home has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await opened(name)
            except DeviceError as error:
                if error.code != "home_in_use" or time.monotonic() > deadline:
                    raise
                self.assertTrue(error.retryable)

    async def test_a_process_that_ends_during_calls_ends_in_order(self):
        await (await registered("ending")).close_home()
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "end_early.py")
        for wait_s in ("0", "0.001", "0.01") * 10:
            command = [sys.executable, script, MODULE, SERVER, home("ending"), wait_s]
            ended = await asyncio.create_subprocess_exec(*command)
            self.assertEqual(await asyncio.wait_for(ended.wait(), PATIENCE_S), 0)

    async def test_threads_that_were_ended_start_again(self):
        device = await registered("again")
        waiting = asyncio.ensure_future(device.sync(wait_s=30))
        await device.status()
        await asyncio.to_thread(keypool_bindings.shut_down)
        await self.refused("cancelled", waiting)
        self.assertEqual((await device.status()).counts.available, 32)
        await device.close_home()

    async def test_two_devices_on_one_home_are_refused(self):
        device = await opened("one-home")
        await self.refused("home_in_use", opened("one-home"))
        await device.close_home()
        await opened("one-home")
        await self.refused("closed", device.groups())

    async def test_a_server_that_is_away_is_an_error_that_may_pass(self):
        device = await opened("away", server=NOWHERE)
        self.assertTrue((await self.refused("unreachable", device.status())).retryable)
        await device.create_group(group_id(b"alone"))
        self.assertEqual(len(await device.groups()), 1)

    async def test_wrong_arguments_are_errors(self):
        device = await opened("arguments")
        for wrong in (5, b"bytes", None, ["list"]):
            with self.assertRaises(TypeError):
                await device.create_group(wrong)
        for wrong in (-1, 2**64):
            with self.assertRaises(ValueError):
                await device.confirm(wrong)
        with self.assertRaises(TypeError):
            await device.send(group_id(b"group"), "text")
        with self.assertRaises(TypeError):
            await device.sync(1, 2)
        await self.refused("invalid_name", device.create_group("no base64!"))
        await self.refused("invalid_name", device.withdraw_from_server(["no reference"]))
        await self.refused("invalid_argument", device.register_vouched("no voucher"))
        await self.refused("invalid_name", Device.open(home("x"), "no name/", "main", SERVER))
        await self.refused("invalid_address", Device.open(home("y"), "y", "main", "no address"))
        await self.refused("invalid_options", opened("z", target=65))
        await self.refused("invalid_options", opened("z", ciphersuites=[77]))
        await self.refused("home_unusable", Device.open("/proc/nowhere", "y", "main", SERVER))
        with self.assertRaises(DeviceError):
            DeviceKey.from_bytes(bytes(31))
        self.assertNotIn("secret", repr(DeviceOptions(device_key=DeviceKey.from_passphrase("secret"))))

    async def test_a_panic_in_rust_is_an_error_and_the_process_lives_on(self):
        """The interface below the module: memory for a buffer of half the address space."""
        with self.assertRaisesRegex(InternalError, "overflow"):
            keypool_bindings._UniffiRustBuffer.alloc(2**63)
        device = await opened("after-a-panic")
        self.assertEqual(await device.groups(), [])

    async def test_a_wrong_answer_of_the_apps_database_is_an_error(self):
        class Wrong(SqliteDatabase):
            def get(self, key):
                return "text in place of bytes"

        database = Wrong(os.path.join(HOMES, "wrong.sqlite"))
        await self.refused("store_unreadable", opened("wrong-store", app_database=database))

    async def test_a_store_in_the_apps_own_database_survives_a_restart(self):
        path = os.path.join(HOMES, "app.sqlite")
        device = await registered("app-store", app_database=SqliteDatabase(path))
        await device.create_group(group_id(b"kept"))
        await device.close_home()
        self.assertNotIn("store", os.listdir(home("app-store")))
        device = await opened("app-store", app_database=SqliteDatabase(path))
        self.assertEqual(await device.groups(), [group_id(b"kept")])
        self.assertEqual((await device.status()).counts.available, 32)

    async def test_an_exception_of_the_apps_database_is_an_error(self):
        database = SqliteDatabase(os.path.join(HOMES, "failing.sqlite"))
        device = await opened("failing-store", app_database=database)
        database.connection.close()
        error = await self.refused("store_unreadable", device.create_group(group_id(b"lost")))
        self.assertIn("closed database", error.message)


if __name__ == "__main__":
    os.makedirs(HOMES, exist_ok=True)
    unittest.main(argv=sys.argv[:1], verbosity=2)
