"""`watch`: stays at the list, syncs, and tells what changes. What another program does to the same file is told too."""

import asyncio
from datetime import datetime
from pathlib import Path

from rich.text import Text

from examples.todo import shown
from journal.client import Changed, Replica, Status

LOOK_S = 0.25


async def watch(file: Path, url: str, token: str | None, collection: str) -> None:
    """Until it is cancelled."""
    async with Replica.open(file, url, collections=[collection], token=token) as replica:
        items = replica.collection(collection)
        known = {atom: data async for atom, data in items}
        shown.note(f"{file}: {shown.count(len(known), 'item')}; Ctrl-C ends this")
        async with asyncio.TaskGroup() as group:
            group.create_task(_tell_how_it_stands(replica))
            async for change in replica.follow(collection):
                if change.atom is None:  # too much at once to be told one by one
                    known = {atom: data async for atom, data in items}
                    _line(Text(f"much has changed: {shown.count(len(known), 'item')} now"))
                    continue
                if change.data != known.get(change.atom):  # else it was told before: that it is recorded now, say
                    _tell(change, change.atom, known.get(change.atom))
                if change.data is None:
                    known.pop(change.atom, None)
                else:
                    known[change.atom] = change.data


async def _tell_how_it_stands(replica: Replica) -> None:
    """Conflicts too: `conflict=` would be told only of those that this program's own syncs kept."""
    told, conflicts = "", 0
    while True:
        status = await replica.status()
        now = _standing(status)
        if now and now != told:
            _line(Text(now, "yellow"))
            told = now
        if status.conflicts > conflicts:
            _line(Text(f"{shown.count(status.conflicts, 'conflict')} to settle: `conflicts`", "red"))
        conflicts = status.conflicts
        await asyncio.sleep(LOOK_S)


def _standing(status: Status) -> str:
    match status.state:
        case "following":
            return "in step with the journal"
        case "offline":
            return f"offline: {status.error} (tried again by itself; `sync` tries at once)"
        case "unauthenticated" | "forbidden":
            return f"not let in: {status.error}"
        case "standby":
            return "another program syncs this file"
    return ""


def _tell(change: Changed, atom: str, before: shown.Data | None) -> None:
    where = "here" if change.is_local else "there"
    _line(Text.assemble((f"{where:5}  ", "dim"), (atom, "bold"), "  ", shown.difference(before, change.data)))


def _line(text: Text) -> None:
    shown.out.print(Text.assemble((f"{datetime.now().astimezone():%H:%M:%S}  ", "dim"), text), soft_wrap=True)
