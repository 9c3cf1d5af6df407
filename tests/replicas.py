"""Replicas, a service, and all that can go wrong between them; and whether what was written is accounted for.

The service and its database serve all worlds; each world has a journal of its own. The one rule of the accounts: every
change made at a replica writes a value that is written nowhere else, so that the record says by itself who wrote what
over what.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import aiohttp
import asyncpg
import msgspec
import pytest
from aiohttp import web

from journal.client import Conflict, Replica, Unreachable
from journal.client.http import Http, Refused
from journal.config import Limits, Settings, Snapshots
from journal.core.model import Policy
from journal.web.app import application
from journal.web.connections import Runner
from tests.killing import Image, Watch
from tests.oracle import Held, Recorded, State, change_state, comparable, digest
from tests.role import as_service
from tests.shaky import Cut, Fault, Mute, Shaky

Json = dict[str, Any]
Key = tuple[str, str]
Kind = Literal["insert", "update", "put", "delete", "big"]
Keep = Literal["server", "client", "both"]
ATOM_BYTES = 2000
TABLES = (
    "atom", "audit", "change", "client", "collection", "commit", "floor", "head", "idempotency", "kept", "push",
    "registry", "conflict",
)  # fmt: skip
LONGEST_S = 30.0
MUTE_S = 0.03
OUTCOMES = ("applied", "merged", "conflict", "unchanged", "rejected")
REASONS = ("horizon", "epoch", "diverged", "future", "scope", "operator")


class Tally:
    """What happened in all worlds together, as it was told to replicas."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, name: str) -> None:
        """One more."""
        self.counts[f"{kind} {name}"] += 1

    def told(self) -> str:
        """All of it, a line each."""
        return "\n".join(f"{self.counts[name]:7} {name}" for name in sorted(self.counts))


class Stage:
    """The service on its port, stopped and started again, and the connection that sets journals back."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder, self.tally = dsn, folder, Tally()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.policies: tuple[Policy, ...] = ()
        self._journals = count(1)
        self._columns: dict[str, str] = {}
        self._runner: Runner | None = None
        (folder / "spool").mkdir()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def begin(self) -> None:
        """Before the first world."""
        self.admin = await asyncpg.connect(self.dsn)
        await self.admin.execute("create schema backup")
        for table in TABLES:
            await self.admin.execute(
                f"create table backup.{table} as select 0 as backup_number, * from journal.{table} limit 0"
            )
            names = await self.admin.fetch(
                "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum",
                f"journal.{table}",
            )
            self._columns[table] = ", ".join(f'"{row["attname"]}"' for row in names)
        await self.start()
        self.session = aiohttp.ClientSession()
        about = (await self.call("GET", "/v1"))[1]
        self.policies = tuple(about["policies"])

    async def end(self) -> None:
        """After the last world."""
        await self.session.close()
        await self.stop()
        await self.admin.close()

    async def start(self) -> None:
        """Serve."""
        settings = Settings(
            dsn=as_service(self.dsn), spool=self.folder / "spool", limits=Limits(atom_bytes=ATOM_BYTES),
            snapshots=Snapshots(kept_s=0.2), read_connections=4,
        )  # fmt: skip
        self._runner = Runner(application(settings), settings.walls, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Serve no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def call(self, method: str, path: str, body: Json | None = None) -> tuple[int, Any]:
        """A request past all proxies: status and answer."""
        headers = {"Prefer": "wait=20"}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            said = await response.read()
            if response.content_type == "application/x-ndjson":
                return response.status, [json.loads(line) for line in said.splitlines()]
            return response.status, json.loads(said) if said else None

    def journal(self) -> str:
        """A name that no world had."""
        return f"j{next(self._journals)}"

    async def keep(self, journal: str, copy: int) -> None:
        """Back a journal up."""
        number = await self._number(journal)
        texts = [
            f"insert into backup.{table} select {copy}, * from journal.{table} where journal_id = {number};"
            for table in TABLES
        ]
        await self.admin.execute("".join(texts))

    async def set_back(self, journal: str, copy: int) -> None:
        """Restore a journal's backup, with the service down meanwhile."""
        await self.stop()
        number = await self._number(journal)
        texts = ["set local session_replication_role = replica;"]
        for table, columns in self._columns.items():
            texts.append(
                f"delete from journal.{table} where journal_id = {number};"
                f"insert into journal.{table} ({columns}) overriding system value select {columns}"
                f" from backup.{table} where backup_number = {copy} and journal_id = {number};"
            )
        async with self.admin.transaction():
            await self.admin.execute("".join(texts))
        await self.start()

    async def state(self, journal: str) -> State:
        """What a journal's rows are."""
        rows = await self.admin.fetch(
            "select c.name, a.atom, a.data::text as data, a.revision from journal.atom a"
            " join journal.collection c on (c.journal_id, c.id) = (a.journal_id, a.collection_id)"
            " where a.journal_id = $1 and not a.deleted",
            await self._number(journal),
        )
        return {(row["name"], row["atom"]): Held(json.loads(row["data"]), row["revision"]) for row in rows}

    async def forget(self, journal: str) -> None:
        """A world is over."""
        number = await self._number(journal)
        await self.admin.execute(
            "".join(f"delete from backup.{table} where journal_id = {number};" for table in TABLES)
        )
        await self.call("DELETE", f"/v1/journals/{journal}")

    async def _number(self, journal: str) -> int:
        number: int = await self.admin.fetchval("select id from journal.journal where name = $1", journal)
        return number


@dataclass(frozen=True)
class Made:
    """A change as an application made it: `view` is what it saw of the atom then. `value` None: a delete."""

    order: int
    value: int | None
    key: Key
    op: str
    sets: frozenset[str]
    unsets: frozenset[str]
    policy: str
    view: Json | None
    transaction: int | None


@dataclass
class Commit:
    """A commit of the record."""

    revision: int
    client: str | None
    changes: list[Recorded]


@dataclass
class Backup:
    """What the record was, and where it ended."""

    record: list[Commit]
    position: int


class Phone:
    """A replica: its file, its way to the service, and what its application did."""

    def __init__(self, world: "World", name: str, wanted: frozenset[str] | None) -> None:
        self.world, self.name, self.wanted = world, name, wanted
        self.path = world.folder / f"{name}.db"
        self.shaky = Shaky()
        self.shaky.upstream = world.stage.port
        self.watch = Watch(self.path)
        self.replica: Replica | None = None
        self.made: list[Made] = []
        self.is_copied = False

    @property
    def it(self) -> Replica:
        assert self.replica is not None
        return self.replica

    async def open(self) -> None:
        """Open the file, which may be new."""
        assert self.replica is None
        self.shaky.disarm()
        replica = Replica.open(self.path, f"{self.shaky.url}/v1/journals/{self.world.j}", collections=self.wanted)
        await replica.__aenter__()
        self.replica = replica

    async def close(self) -> None:
        """As an application does."""
        if self.replica is not None:
            await self.replica.close()
            self.replica = None

    async def abandon(self, replica: Replica | None) -> None:
        """As a kill does: nothing is written any more that counts, and nobody is told anything."""
        self.replica = None
        self.shaky.cut()
        if replica is not None and replica._open is not None:
            await replica.stop()
            stack, replica._open = replica._open, None
            await stack.aclose()

    def query(self, text: str, *arguments: Any) -> list[Any]:
        """Rows of the file."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(text, arguments).fetchall()

    def clients(self) -> set[str]:
        """All ids that it pushed under, and has."""
        found = self.query("select client from push union select value from meta where name = 'client'")
        return {name for (name,) in found}


class World:
    """A journal with its replicas. Its coroutines are the steps."""

    def __init__(self, stage: Stage, folder: Path, page: int, patch: pytest.MonkeyPatch) -> None:
        self.stage, self.folder, self.j = stage, folder, stage.journal()
        for module in ("pulling", "syncing", "recovering"):
            patch.setattr(f"journal.client.{module}.PAGE", page)
        patch.setattr("journal.client.recovering.LOADED", max(1, page))
        patch.setattr("journal.client.download.PAUSES_S", (0.0, 0.0, 0.0, 0.0))
        self.tally = stage.tally
        self.phones: list[Phone] = []
        self.values = count(1)
        self.orders = count(1)
        self.transactions = count(1)
        self.mine: dict[int, list[tuple[Phone, Made]]] = defaultdict(list)
        self.sent: set[tuple[str, int]] = set()  # by which replica: a copy may send what its origin takes back unsent
        self.again: set[int] = set()  # values that a settled conflict wrote once more
        self.record: list[Commit] = []
        self.position = 0
        self.backups: list[Backup] = []
        self.restored = 0  # the order of the last restore

    def place(self, rest: str = "") -> str:
        """A path of the journal."""
        return f"/v1/journals/{self.j}{rest}"

    # Beginning and ending.

    async def begin(self, scopes: Iterable[frozenset[str] | None], *, is_synced: bool) -> None:
        """A journal with something in it, and its replicas."""
        await self.stage.call("PUT", self.place())
        await self.foreign([("a", "p"), ("b", "p"), ("a", "q")])
        for n, scope in enumerate(scopes):
            await self._add(f"phone{n}", scope)
        for phone in self.phones:
            await phone.open()
            if is_synced:
                await phone.it.sync()
        await self.backup()

    async def _add(self, name: str, scope: frozenset[str] | None) -> Phone:
        phone = Phone(self, name, scope)
        await phone.shaky.accept()
        HEARD[phone.shaky.url] = (self, phone)
        self.phones.append(phone)
        return phone

    async def end(self) -> None:
        """Whatever became of it."""
        for phone in self.phones:
            HEARD.pop(phone.shaky.url, None)
            await phone.close()
            await phone.shaky.close()
        await self.stage.forget(self.j)
        for path in self.folder.glob("phone*"):
            path.unlink()

    # What applications do.

    async def write(
        self, phone: Phone, key: Key, kind: Kind, policy: Policy, *, wide: bool, number: int | None
    ) -> None:
        """One change; what is there decides between an insert and an update, and a delete needs something."""
        collection = phone.it.collection(key[0], on_conflict=policy)
        view = await collection.get(key[1])
        value = next(self.values)
        names = ("x", "y") if wide else ("x",) if value % 2 else ("y",)
        data: Json = dict.fromkeys(names, value)
        unset: tuple[str, ...] = ()
        if kind == "big":
            data["big"] = "." * ATOM_BYTES
        op = "put" if kind == "big" else kind
        if op == "insert" and view is not None:
            op = "put"
        if op == "update" and view is None:
            op = "insert"
        if op == "delete" and view is None:
            assert await collection.delete(key[1]) is False
            return
        match op:
            case "insert":
                await collection.insert(key[1], data)
                expected: Json | None = data
            case "put":
                await collection.put(key[1], data)
                expected = data
            case "update":
                unset = () if wide or value % 3 else tuple({"x", "y", "big"} - data.keys())
                await collection.update(key[1], data, unset=unset)
                assert view is not None
                expected = {name: held for name, held in view.items() if name not in unset} | data
            case _:
                assert await collection.delete(key[1]) is True
                expected = None
        made = Made(
            next(self.orders), None if op == "delete" else value, key, op, frozenset(data) if op != "delete" else
            frozenset(), frozenset(unset), policy, view, number,
        )  # fmt: skip
        assert await collection.get(key[1]) == expected, f"{phone.name} does not read what it wrote: {made}"
        self._was_made(phone, made)
        self.tally.add("policy", policy)

    def _was_made(self, phone: Phone, made: Made) -> None:
        phone.made.append(made)
        if made.value is not None:
            self.mine[made.value].append((phone, made))

    async def transact(self, phone: Phone, changes: Iterable[tuple[Key, Kind]], policy: Policy) -> None:
        """Several changes together."""
        number = next(self.transactions)
        async with phone.it.transaction(on_conflict=policy):
            for key, kind in changes:
                await self.write(phone, key, kind, policy, wide=False, number=number)

    async def settle(self, phone: Phone, keep: Keep) -> None:
        """Settle the oldest conflict."""
        found = await phone.it.conflicts()
        if not found:
            return
        one: Conflict = found[0]
        if keep == "both" and one.mine is None:
            keep = "client"
        self.again |= {value for value in (one.mine or {}).values() if isinstance(value, int)}
        if phone.wanted is not None and one.collection not in phone.wanted:
            keep = "server"
        if keep == "server":
            await phone.it.settle(one, "server")
            return
        name = f"copy{next(self.values)}" if keep == "both" else one.atom
        key = (one.collection, name)
        view = await phone.it.collection(one.collection).get(name)
        await phone.it.settle(one, keep, atom=name if keep == "both" else None)
        after = await phone.it.collection(one.collection).get(name)
        if after == view:
            return
        values: list[int | None] = [*_values(after)] or [None]
        for value in values:
            sets, order = frozenset(after or ()), next(self.orders)
            op = "delete" if after is None else "put"
            unsets = frozenset((view or {}).keys() - sets)
            made = Made(order, value, key, op, sets, unsets, "server", view, None)
            phone.made.append(made)
            if value is not None:
                self.mine[value].append((phone, made))

    # Syncing, and what comes between.

    async def sync(self, phone: Phone) -> None:
        """Without any fault: it must work, and end at what the server has."""
        await asyncio.wait_for(phone.it.sync(), LONGEST_S)
        status = await phone.it.status()
        assert status.pending == 0, f"{phone.name} has synced and {status.pending} changes wait"
        mine = await self._digest_here(phone)
        theirs = await self._digest_there(phone.wanted)
        assert mine == theirs, f"{phone.name} has synced and is not what the server is"

    async def sync_with(
        self, phone: Phone, fault: Fault, meanwhile: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        """A sync that a fault of the network befalls; with a Hold, something is done while it is held up."""
        phone.shaky.arm(fault)
        syncing = asyncio.ensure_future(phone.it.sync())
        try:
            if isinstance(fault, Cut):
                await self._ended(syncing)
                return
            sprung = asyncio.ensure_future(phone.shaky.sprung.wait())
            await asyncio.wait([syncing, sprung], return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_S)
            sprung.cancel()
            if isinstance(fault, Mute):
                if not syncing.done():
                    await asyncio.wait([syncing], timeout=MUTE_S)
                    syncing.cancel()
                await self._ended(syncing)
                return
            if not syncing.done() and meanwhile is not None:
                await meanwhile()
            phone.shaky.go()
            await self._ended(syncing)
        finally:
            phone.shaky.go()
            phone.shaky.cut()

    async def _ended(self, syncing: "asyncio.Future[None]") -> None:
        """Wait for a sync that may fail for want of an answer, and for nothing else."""
        done, _ = await asyncio.wait([syncing], timeout=LONGEST_S)
        assert done, "a sync does not end"
        if syncing.cancelled():
            return
        error = syncing.exception()
        if error is not None and not isinstance(error, Unreachable):
            if isinstance(error, Refused) and error.status in (429, 503):
                return
            raise error

    async def stop_at(self, phone: Phone, statement: int, during: Literal["sync", "verify", "live"]) -> None:
        """Stop a sync as the n-th statement begins; the application goes on."""
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(self._during(phone, during))
        phone.watch.arm(statement, lambda: _soon(loop, task.cancel))
        try:
            await self._ended(task)
        finally:
            phone.watch.disarm()

    async def _during(self, phone: Phone, during: str, replica: Replica | None = None) -> None:
        it = replica or phone.it
        match during:
            case "sync":
                await it.sync()
            case "verify":
                await it.verify()
            case "close":
                await it.close()
            case "live":
                await it.start()
                try:
                    await asyncio.sleep(0.15)
                finally:
                    await it.stop()

    async def kill(self, phone: Phone, statement: int, during: str) -> None:
        """Kill the process as the n-th statement begins, or when what it does is done; then start it again."""
        loop = asyncio.get_running_loop()
        replica = phone.replica
        images: list[Image] = []

        def spring() -> None:
            images.append(Image(phone.path))
            _soon(loop, task.cancel)

        if during == "open":
            await phone.close()
            replica = Replica.open(phone.path, f"{phone.shaky.url}/v1/journals/{self.j}", collections=phone.wanted)
            opening = replica.__aenter__()

            async def work() -> None:
                await opening
        else:

            async def work() -> None:
                await self._during(phone, during, replica)

        phone.watch.arm(statement, spring)
        task = asyncio.ensure_future(work())
        try:
            await self._ended(task)
        finally:
            phone.watch.disarm()
        image = images[0] if images else Image(phone.path)
        await phone.abandon(replica)
        image.put_back()
        self.tally.add("killed", f"in the middle of {during}" if images else "idle")
        await phone.open()

    async def write_and_die(self, phone: Phone, statement: int, key: Key, kind: Kind, policy: Policy) -> None:
        """A kill in the middle of a write: it happened or it did not."""
        loop = asyncio.get_running_loop()
        replica, images = phone.it, list[Image]()
        was = len(phone.made)
        view = await replica.collection(key[0]).get(key[1])

        def spring() -> None:
            images.append(Image(phone.path))
            _soon(loop, task.cancel)

        phone.watch.arm(statement, spring)
        task = asyncio.ensure_future(self.write(phone, key, kind, policy, wide=True, number=None))
        try:
            await asyncio.wait([task], timeout=LONGEST_S)
        finally:
            phone.watch.disarm()
        error = None if task.cancelled() else task.exception()
        if error is not None and not images:
            raise error
        image = images[0] if images else Image(phone.path)
        await phone.abandon(replica)
        image.put_back()
        self.tally.add("killed", "in the middle of a write" if images else "idle")
        await phone.open()
        now = await phone.it.collection(key[0]).get(key[1])
        if len(phone.made) == was and now != view:  # it was recorded, and nobody was told
            values = sorted({v for v in (now or {}).values() if isinstance(v, int)} - set((view or {}).values()))
            op = "delete" if now is None else "put" if view is None else "update" if kind == "update" else "put"
            unsets = frozenset((view or {}).keys() - (now or {}).keys())
            sets = frozenset(name for name, held in (now or {}).items() if held in values)
            self._was_made(phone, Made(
                next(self.orders), values[0] if values else None, key, op, sets, unsets, policy, view, None
            ))  # fmt: skip
        elif len(phone.made) > was and now == view:
            made = phone.made[was]
            raise AssertionError(f"{phone.name} was told that this was written, and a kill undid it: {made}")

    async def reopen(self, phone: Phone, wanted: frozenset[str] | None) -> None:
        """Close it and open it for other collections."""
        await phone.close()
        phone.wanted = wanted
        await phone.open()

    async def copy(self, phone: Phone, *, with_sidecar: bool) -> None:
        """A copy of the open file goes on as a replica of its own."""
        number = len(self.phones)
        if number >= 4:
            return
        other = await self._add(f"phone{number}", phone.wanted)
        for end in ("", "-wal", "-shm", *(("-incarnation",) if with_sidecar else ())):
            source = phone.path.with_name(phone.path.name + end)
            if source.exists():
                shutil.copy2(source, other.path.with_name(other.path.name + end))
        other.made = list(phone.made)
        for made in other.made:
            if made.value is not None:
                self.mine[made.value].append((other, made))
        phone.is_copied = other.is_copied = True
        await other.open()

    async def damage(self, phone: Phone, how: Literal["data", "revision", "gone", "ghost"], row: int) -> None:
        """What a failing disk does, and `verify` after it."""
        rows = phone.query(
            "select b.id, b.data from base b join collection c on c.generation = b.generation order by c.name, b.atom"
        )
        if rows:
            number, data = rows[row % len(rows)]
            match how:
                case "data":
                    damaged = json.dumps(json.loads(data) | {"x": "damaged"})
                    phone.query("update base set data = ? where id = ?", damaged, number)
                case "revision":
                    phone.query("update base set revision = revision + 1 where id = ?", number)
                case "gone":
                    phone.query("delete from base where id = ?", number)
                case "ghost":
                    phone.query(
                        "insert or ignore into base (generation, atom, revision, data)"
                        " select generation, 'ghost', 1, '{}' from base where id = ?",
                        number,
                    )
        await asyncio.wait_for(phone.it.verify(), LONGEST_S)

    async def live(self, phone: Phone, key: Key, policy: Policy) -> None:
        """Sync in the background for a while, with a change of our own and one of somebody else's."""
        await phone.it.start()
        try:
            await self.transact(phone, [(key, "update")], policy)  # nothing is pulled between its look and its change
            await asyncio.sleep(0.05)
            await self.foreign([key])
            await asyncio.sleep(0.05)
        finally:
            await phone.it.stop()

    # What others, and operators, do.

    async def foreign(self, keys: Iterable[Key], *, is_gone: bool = False) -> None:
        """Somebody who pushes without a replica, over everything."""
        changes: list[Json] = []
        for collection, atom in keys:
            change: Json = {"op": "delete" if is_gone else "put", "collection": collection, "atom": atom}
            value = next(self.values)
            changes.append(change if is_gone else change | {"data": {"x" if value % 2 else "y": value, "z": value}})
        status, said = await self.stage.call(
            "POST", self.place("/changes"), {"on_conflict": "client", "changes": changes}
        )
        assert status == 200, said

    async def resync(self, whom: Phone | str | None) -> None:
        """One client, one collection, or everyone."""
        asked: Json = {"reason": "chance"}
        if isinstance(whom, Phone):
            asked["client"] = (await whom.it.status()).client
        elif whom is not None:
            asked["collections"] = [whom]
        status, said = await self.stage.call("POST", self.place("/resync"), asked)
        assert status == 200, said

    async def compact(self, keep_revisions: int) -> None:
        """Raise the horizon, whoever is behind."""
        await self.read_record()
        asked = {"keep_revisions": keep_revisions, "force": True}
        status, said = await self.stage.call("POST", self.place("/compact"), asked)
        assert status == 200, said
        assert said["state"] == "done", said

    async def forget(self, phone: Phone) -> None:
        """Forget a client."""
        client = (await phone.it.status()).client
        status, said = await self.stage.call("DELETE", self.place(f"/clients/{client}"))
        assert status in (204, 404), said

    async def restart(self) -> None:
        """The service goes and comes back."""
        await self.stage.stop()
        await self.stage.start()

    async def backup(self) -> None:
        """What a restore goes back to."""
        await self.read_record()
        await self.stage.keep(self.j, len(self.backups))
        self.backups.append(Backup(list(self.record), self.position))

    async def restore(self, which: int, *, is_told: bool, going_on: int) -> None:
        """A backup comes back; the operator says so or not, and others go on or not."""
        await self.read_record()
        which %= len(self.backups)
        await self.stage.set_back(self.j, which)
        backup = self.backups[which]
        self.record, self.position, self.restored = list(backup.record), backup.position, next(self.orders)
        if is_told:
            status, said = await self.stage.call("POST", self.place("/restored"), {"spread_s": 0})
            assert status == 200, said
            self.position = said["head"]
        for n in range(going_on):
            await self.foreign([("b", f"after{n}")])

    # The accounts.

    def asks(self, phone: Phone, path: tuple[str, ...], body: object) -> None:
        """A replica is about to ask something."""
        if path[-1] in ("changes", "sync") and isinstance(body, dict):
            changes = json.loads(msgspec.json.encode(body.get("changes", [])))
            values = {v for c in changes for v in c.get("data", {}).values() if isinstance(v, int)}
            self.sent |= {(phone.name, value) for value in values}
            self.tally.add("sent under", str(body.get("on_conflict", "server")))

    def answered(self, phone: Phone, path: tuple[str, ...], said: Json) -> None:
        """A replica was answered."""
        for outcome in said.get("outcomes") or ():
            self.tally.add("outcome", outcome["status"])
        if said.get("replayed"):
            self.tally.add("push", "replayed")
        if said.get("code") == "resync_required":
            self.tally.add("reason", said["reason"])
            self.tally.add("reconcile", said["reconcile"])
        elif "code" in said:
            self.tally.add("problem", said["code"])
        if isinstance(said.get("resync"), dict):
            self.answered(phone, path, said["resync"])

    async def read_record(self) -> None:
        """The record as far as it goes now."""
        while True:
            status, said = await self.stage.call("GET", self.place(f"/changes?since={self.position}&limit=1000"))
            assert status == 200, said
            for commit in said["commits"]:
                changes = [
                    Recorded(
                        commit["first"] + n, c["op"], (c["collection"], c["atom"]), c.get("data"),
                        frozenset(c.get("unset", ())), commit["client"],
                    )
                    for n, c in enumerate(commit["changes"])
                ]  # fmt: skip
                self.record.append(Commit(commit["revision"], commit["client"], changes))
            self.position = said["until"]
            if not said["more"]:
                return

    async def heal(self) -> None:
        """Nothing goes wrong any more, and all sync until nothing moves."""
        for phone in self.phones:
            if phone.replica is None:
                await phone.open()
        for _ in range(2):
            for phone in self.phones:
                await self.sync_at_last(phone)
        for phone in self.phones:
            await phone.close()
            await phone.open()
        for phone in self.phones:
            await self.sync_at_last(phone)

    async def sync_at_last(self, phone: Phone) -> None:
        await asyncio.wait_for(phone.it.sync(), LONGEST_S)

    async def check(self) -> None:
        """What is promised (docs/properties.md)."""
        await self.read_record()
        status, lines = await self.stage.call("GET", self.place("/snapshot"))
        assert status == 200, lines
        packed: State = {(n["collection"], n["atom"]): Held(n["data"], n["revision"]) for n in lines[1:-1]}
        assert lines[-1]["digest"] == digest(packed)
        assert _told(self.replayed(lines[0]["revision"])) == _told(packed), "the record does not add up to the snapshot"
        there = await self.stage.state(self.j)
        assert _told(self.replayed()) == _told(there), "the record does not add up to what the server has"
        for phone in self.phones:
            await self._check_data(phone, there)
        self._check_accounts()
        self._check_once()
        self._check_overwrites()
        self._check_transactions()

    def replayed(self, until: int | None = None) -> State:
        """What the record adds up to."""
        state: State = {}
        for commit in self.record:
            for change in commit.changes:
                if until is None or change.revision <= until:
                    change_state(state, change)
        return state

    async def _check_data(self, phone: Phone, there: State) -> None:
        """P10: equal to the server, nothing waiting, nothing left over."""
        wanted = {k: held for k, held in there.items() if phone.wanted is None or k[0] in phone.wanted}
        assert _told(self._base(phone)) == _told(wanted), f"{phone.name} is not what the server is"
        left: list[str] = []
        for table, where in (
            ("ahead", "true"), ("local", "true"), ("change", "passed = 0"), ("push", "answered is null"),
            ("base", "generation not in (select generation from collection)"),
        ):  # fmt: skip
            found = phone.query(f"select * from {table} where {where}")
            left += [f"{table} {row}" for row in found]
        assert not left, f"{phone.name} has left: {left}"
        assert await self._digest_here(phone) == digest(wanted)
        status = await phone.it.status()
        assert (status.pending, status.error) == (0, None)
        seen: State = {}
        for name in await phone.it.collections():
            if phone.wanted is None or name in phone.wanted:
                async for atom, data in phone.it.collection(name):
                    seen[name, atom] = Held(data, wanted[name, atom].revision)
        assert _told(seen) == _told(wanted)

    def _base(self, phone: Phone) -> State:
        rows = phone.query(
            "select c.name, b.atom, b.data, b.revision from base b join collection c on c.generation = b.generation"
        )
        return {(c, a): Held(json.loads(d), r) for c, a, d, r in rows if phone.wanted is None or c in phone.wanted}

    async def _digest_here(self, phone: Phone) -> str:
        total = 0
        for name, kept in phone.query("select name, digest from collection"):
            if phone.wanted is None or name in phone.wanted:
                total ^= kept & (2**64 - 1)
        return f"{total:016x}"

    async def _digest_there(self, wanted: frozenset[str] | None) -> str:
        status, said = await self.stage.call("GET", self.place("/collections"))
        assert status == 200
        total = 0
        for collection in said["collections"]:
            if wanted is None or collection["name"] in wanted:
                total ^= int(collection["digest"], 16)
        return f"{total:016x}"

    def _check_accounts(self) -> None:
        """P9: every change is in the record, or kept as a conflict, or was superseded here before it was sent."""
        recorded = {v for commit in self.record for c in commit.changes for v in _values(c.data)}
        for phone in self.phones:
            kept: set[int] = set()
            gone: set[Key] = set()
            for collection, atom, op, data in phone.query("select collection, atom, op, data from conflict"):
                kept |= _values(None if data is None else json.loads(data))
                if op == "delete":
                    gone.add((collection, atom))
            of_atom: dict[Key, list[Made]] = defaultdict(list)
            for made in phone.made:
                of_atom[made.key].append(made)
            for made in phone.made:
                later = [one for one in of_atom[made.key] if one.order > made.order]
                if made.value is None:
                    self._check_delete(phone, made, later, recorded, gone)
                elif made.value in recorded or made.value in kept or self._has_unset(phone, made):
                    continue
                elif (phone.name, made.value) in self.sent or not _is_superseded(made, later):
                    raise AssertionError(f"{phone.name} has lost what its application did: {made}")

    def _has_unset(self, phone: Phone, made: Made) -> bool:
        """Whether a merge left of a change only what it took away."""
        clients = phone.clients()
        return made.policy == "merge" and any(
            change.key == made.key and change.unset and change.unset <= made.unsets and not change.data
            for commit in self.record
            if commit.client in clients
            for change in commit.changes
        )

    def _check_delete(self, phone: Phone, made: Made, later: list[Made], recorded: set[int], gone: set[Key]) -> None:
        """A delete: once what it saw was there, the atom is deleted by somebody, or the delete is kept.

        A restored server is offered in any order what several replicas did: a delete may come before what it deleted,
        and is answered `unchanged`.
        """
        values = _values(made.view) & recorded
        if later or made.key in gone or not values or self.restored > made.order:
            return
        is_there = False
        for commit in self.record:
            for change in commit.changes:
                if change.key == made.key:
                    is_there = is_there or bool(_values(change.data) & values)
                    if is_there and change.op == "delete":
                        return
        raise AssertionError(f"{phone.name} has lost a delete: {made}")

    def _check_once(self) -> None:
        """P6: no client's change is recorded twice; nor is one of a file that was never copied, under any id."""
        seen: Counter[tuple[int, str | None]] = Counter()
        for commit in self.record:
            for change in commit.changes:
                for value in _values(change.data) - self.again:
                    if value in self.mine:
                        seen[value, commit.client] += 1
        twice = {found: times for found, times in seen.items() if times > 1}
        assert not twice, f"recorded twice by the same client: {twice}"

    def _check_transactions(self) -> None:
        """What is one transaction here is one commit there, or nothing."""
        commits = [{v for c in commit.changes for v in _values(c.data)} for commit in self.record]
        for phone in self.phones:
            together: dict[int, set[int]] = defaultdict(set)
            for made in phone.made:
                if made.transaction is not None and made.value is not None:
                    together[made.transaction].add(made.value)
            for number, values in together.items():
                if values & self.again or not any(values & commit for commit in commits):
                    continue
                assert any(values <= commit for commit in commits), f"transaction {number} was torn: {values}"

    def _check_overwrites(self) -> None:
        """P9a: what is recorded under server, merge or both overwrites nothing that its writer had not seen."""
        ids: dict[str, list[Phone]] = defaultdict(list)
        for phone in self.phones:
            for name in phone.clients():
                ids[name].append(phone)
        state: State = {}
        before: set[int] = set()
        for commit in self.record:
            writers = ids.get(commit.client or "", [])
            start = dict(state)
            for change in commit.changes:
                held = start.get(change.key)
                mates = {c.revision for c in commit.changes if c.key == change.key and c.revision < change.revision}
                if writers and held is not None and not mates:
                    self._check_overwrite(change, held, writers, before)
                change_state(state, change)
            before |= {v for c in commit.changes for v in _values(c.data)}

    def _check_overwrite(self, change: Recorded, held: Held, writers: list[Phone], before: set[int]) -> None:
        if change.op == "delete":
            mades = [(p, m) for p in writers for m in p.made if m.value is None and m.key == change.key]
        elif not change.data:  # what a merge left of it says no value
            mades = [(p, m) for p in writers for m in p.made if m.key == change.key and change.unset <= m.unsets]
        else:
            mades = [(p, m) for v in _values(change.data) for p, m in self.mine.get(v, ()) if p in writers]
        if any(made.policy in ("client", "newest") for _, made in mades):
            return
        assert mades, f"nobody made {change}"
        touched = set(change.data or ()) | change.unset
        if change.op != "update":
            touched |= held.data.keys()
        for name in touched:
            now = held.data.get(name)
            assert any(now in _seen(phone, made, name, before) for phone, made in mades), (
                f"{change} overwrote {name}={now}, which {mades[0][0].name} had not seen: {mades}"
            )


def _seen(phone: Phone, made: Made, name: str, before: set[int]) -> set[Any]:
    """The values of a field that a change may be said to have been made on: what was seen then, and, as long as the
    changes of its own that made it so are not recorded, what those were made on.
    """
    seen = {(made.view or {}).get(name)}
    for one in reversed([one for one in phone.made if one.key == made.key and one.order < made.order]):
        if one.value is not None and one.value in before:
            break
        seen.add((one.view or {}).get(name))
    return seen


def _is_superseded(made: Made, later: list[Made]) -> bool:
    """Whether what a change set is set or taken away again by one that may have been put together with it."""
    left = set(made.sets) - {"big"}  # which says nothing of whose it is
    for one in later:
        if one.op in ("put", "insert", "delete"):
            return True
        left -= one.sets | one.unsets
    return not left


def _values(data: Json | None) -> set[int]:
    return {value for value in (data or {}).values() if isinstance(value, int)}


def _told(state: State) -> dict[Key, tuple[Any, int]]:
    return {key: (comparable(held.data), held.revision) for key, held in sorted(state.items())}


def _soon(loop: asyncio.AbstractEventLoop, do: Callable[[], object]) -> None:
    loop.call_soon_threadsafe(do)


HEARD: dict[str, tuple[World, Phone]] = {}


def hear(patch: pytest.MonkeyPatch) -> None:
    """Have worlds told what their replicas ask and are answered."""
    call = Http._call

    async def heard(self: Http, method: str, path: tuple[str, ...], *arguments: Any, **more: Any) -> tuple[int, bytes]:
        found = HEARD.get(self.url)
        if found is None:
            return await call(self, method, path, *arguments, **more)
        world, phone = found
        world.asks(phone, path, more.get("body"))
        try:
            status, said = await call(self, method, path, *arguments, **more)
        except Refused as error:
            world.answered(phone, path, error.problem)
            raise
        if path[-1] in ("changes", "sync"):
            world.answered(phone, path, json.loads(said))
        return status, said

    patch.setattr(Http, "_call", heard)


@asynccontextmanager
async def staged(dsn: str, folder: Path) -> AsyncIterator[Stage]:
    """The service for all worlds."""
    stage = Stage(dsn, folder)
    await stage.begin()
    try:
        yield stage
    finally:
        await stage.end()
