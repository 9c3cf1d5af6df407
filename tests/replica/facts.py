"""What must hold of a replica's file and of the server's record, whatever happened in between."""

import contextlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from journal.client import Replica
from journal.client.pulled import whole_digest
from tests.harness import Harness, Json

State = dict[tuple[str, str], Any]


async def record(service: Harness, j: str = "j") -> list[Json]:
    """All changes of a journal, with their revision, client and push."""
    found, since = list[Json](), "0"
    while True:
        said = (await service.call("GET", f"{j}/changes", params={"since": since, "limit": "10000"})).json
        for commit in said["commits"]:
            known = {"client": commit["client"], "push": commit["push"], "commit": commit["first"]}
            for number, change in enumerate(commit["changes"]):
                found.append(change | known | {"revision": commit["first"] + number})
        if not said["more"]:
            return found
        since = said["cursor"]


async def at_server(service: Harness, j: str = "j") -> State:
    """The server's atoms as PostgreSQL has them: revision and data of each."""
    rows = await service.query(
        "select c.name, a.atom, a.revision, a.data::text as data from journal.atom a"
        " join journal.collection c on c.journal_id = a.journal_id and c.id = a.collection_id"
        " join journal.journal j on j.id = a.journal_id where j.name = $1 and not a.deleted",
        j,
    )
    return {(row["name"], row["atom"]): (row["revision"], json.loads(row["data"])) for row in rows}


async def in_base(replica: Replica) -> State:
    """The same as the file has it."""

    def read(db: sqlite3.Connection) -> State:
        rows = db.execute(
            "select c.name, b.atom, b.revision, b.data from collection c join base b on b.generation = c.generation"
        )
        return {(name, atom): (revision, json.loads(data)) for name, atom, revision, data in rows}

    return await replica._reader.read(read)


async def see_that_it_is_the_servers(replica: Replica, service: Harness, j: str = "j") -> None:
    """After a sync with nobody else about: nothing waits, base is the server's state, and nothing lies over it."""
    status = await replica.status()
    assert (status.pending, status.lag) == (0, 0)
    state, head = await at_server(service, j), await service.head(j)
    assert await in_base(replica) == state
    seen = {name: dict([pair async for pair in replica.collection(name)]) for name in await replica.collections()}
    assert {(name, atom): data for name, atoms in seen.items() for atom, data in atoms.items()} == {
        key: data for key, (_, data) in state.items()
    }
    over, unpassed, digest = await replica._reader.read(
        lambda db: (
            db.execute("select count(*) from local").fetchone()[0],
            db.execute("select count(*) from change where passed = 0").fetchone()[0],
            whole_digest(db, None),
        )
    )
    assert (over, unpassed, digest) == (0, 0, head["digest"])


def see_that_versions_hold(path: Path) -> None:
    """Trap 8, of a file at any moment: no version counts as synced that was not sent, none is above the newest."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("begin")
        wrong = db.execute(
            "select l.collection, l.atom, l.version, l.version_synced, c.version, c.status, c.push from local l"
            " join change c using (collection, atom) where c.passed = 0"
            " and (l.version_synced > l.version or c.version > l.version"
            " or c.version <= l.version_synced and (c.push is null or c.status is null)"
            " or c.status is not null and c.version > l.version_synced)"
        ).fetchall()
        uncovered = db.execute(
            "select collection, atom from change c where passed = 0 and not exists (select 1 from local l"
            " where l.collection = c.collection and l.atom = c.atom)"
        ).fetchall()
    assert (wrong, uncovered) == ([], [])


async def fates(service: Harness, *replicas: Replica, j: str = "j") -> tuple[Counter[str], set[str]]:
    """How often each field was set by what is in the record, and which fields conflicts would set.

    No push is in the record twice.
    """
    recorded, commits = Counter[str](), set[tuple[str, int, int]]()
    for change in await record(service, j):
        recorded.update((change.get("data") or {}).keys())
        if change["push"] is not None:
            commits.add((change["client"], change["push"], change["commit"]))
    assert len({(client, push) for client, push, _ in commits}) == len(commits)
    kept = {
        name
        for replica in replicas
        for conflict in await replica.conflicts()
        for name in (conflict.mine or {}).keys() - (conflict.made_on or {}).keys()
    }
    return recorded, kept


async def see_that_nothing_is_lost(replica: Replica, service: Harness, written: list[str], j: str = "j") -> None:
    """P9: each write, told by a field of its own, is in the record once, or in what is kept as a conflict; not both."""
    recorded, kept = await fates(service, replica, j=j)
    became = {name: (recorded[name], name in kept) for name in written}
    assert {name: fate for name, fate in became.items() if fate not in ((1, False), (0, True))} == {}
