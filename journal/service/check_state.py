"""The second half of a check: each atom as its changes have left it, and the collections as their atoms have.

The record is read by atoms, and the state beside it. The changes of an atom are those that name it; each says which
one it follows, and the atom which is its last. The rule: where the two do not agree, the change or the atom is told
that is alone with what it says, and a change of a suspect commit may be of another atom than it names.
"""

import msgspec

from journal.core import digest
from journal.core.replay import Impossible, Replay, Stored
from journal.service.check_record import Ahead
from journal.service.findings import Findings, Progress
from journal.store import checking
from journal.store.checking import AtomRow, Broken, ChangeRow, Place
from journal.store.database import Connection
from journal.store.heads import Head


async def check_state(connection: Connection, head: Head, until: int, findings: Findings, progress: Progress) -> None:
    """Check atoms and collections against the changes up to `until`."""
    atoms = await Ahead(checking.atoms(connection, head), progress.atom).begin()
    changes = await Ahead(checking.changes_by_atom(connection, head, until), progress.change_again).begin()
    state = _State(connection, head, findings)
    while (place := _first(atoms.next, changes.next)) is not None:
        row = await atoms.take() if atoms.next is not None and atoms.next.place == place else None
        atom = _Atom(place, state.name(place), head.horizon, None if row is None else row.revision)
        while changes.next is not None and changes.next.place == place:
            await state.take(atom, await changes.take())
        await state.compare(atom, row)
    state.collections()


def _first(atom: AtomRow | None, change: ChangeRow | None) -> Place | None:
    if atom is None or change is None:
        return atom.place if atom else change.place if change else None
    return min(atom.place, change.place)


class _Atom:
    """An atom on the way through its changes. `last`: the revision of the last one, `before`: of that before it.

    `at`: the revision that is stored with it, None where it is not there.
    """

    __slots__ = ("at", "before", "horizon", "is_suspect", "last", "name", "place", "replay")

    def __init__(self, place: Place, name: str, horizon: int, at: int | None) -> None:
        self.place, self.name, self.horizon, self.at = place, name, horizon, at
        self.before: int | None = None
        self.last: int | None = None
        self.is_suspect = False
        self.replay = Replay(horizon)

    def is_at(self, revision: int) -> bool:
        """Whether what comes next is to follow this revision: any that is not above the horizon, to begin with."""
        return 0 <= revision <= self.horizon if self.last is None else revision == self.last

    def was_at(self, revision: int) -> bool:
        """The same before its last change."""
        return self.last is not None and (revision <= self.horizon if self.before is None else revision == self.before)


class _Total(msgspec.Struct):
    """What a collection's atoms add up to; `is_sure`: unless one was found of which nothing is known."""

    atoms: int = 0
    digest: int = 0
    is_sure: bool = True

    def add(self, leaf: int) -> None:
        """An atom that lives."""
        self.atoms += 1
        self.digest ^= leaf


class _State:
    def __init__(self, connection: Connection, head: Head, findings: Findings) -> None:
        self.connection, self.head, self.findings = connection, head, findings
        self.names = {collection.id: collection.name for collection in head.collections.values()}
        self.totals = {number: _Total() for number in self.names}

    def name(self, place: Place) -> str:
        """How an atom is named."""
        return f"{self.names.get(place[0], place[0])}/{place[1].decode(errors='replace')}"

    async def take(self, atom: _Atom, row: ChangeRow) -> None:
        """The next change that names this atom."""
        if isinstance(row.change, Broken):
            self.findings.tell_broken(row.change)
        if not await self._is_of(atom, row):
            return
        atom.before, atom.last = atom.last, row.revision
        atom.is_suspect = atom.is_suspect or row.revision in self.findings.suspect
        if isinstance(row.change, Broken):
            atom.replay = Replay(row.revision)
            return
        try:
            atom.replay.take(row.change, is_client_known=row.is_client_known)
        except Impossible as error:
            self.findings.tell("change", row.revision, str(error))
            atom.replay = Replay(row.revision)

    async def _is_of(self, atom: _Atom, row: ChangeRow) -> bool:
        """Whether the change is of the atom that it names, and told if what it follows is not as it should be."""
        findings, revision = self.findings, row.revision
        if atom.is_at(row.prev):
            if row.prev == 0:
                atom.replay = Replay()
            return True
        if row.prev in findings.missing:
            atom.replay = Replay(row.prev)
            return True
        stranger = self._stranger(atom, row.prev)
        if stranger is not None:
            self._tell_stranger(atom, stranger, f"change {revision} of that follows {row.prev}")
            atom.replay = Replay(stranger if row.prev else 0)
            return True
        is_suspect = revision in findings.suspect
        followed = await self._named(row.prev)
        if followed is not None and followed.place != atom.place:
            if row.prev in findings.suspect and (not is_suspect or atom.is_at(followed.prev)):
                detail = f"it names {self.name(followed.place)}, and change {revision} of {atom.name} follows it"
                findings.tell("change", row.prev, detail)
                atom.replay = Replay(row.prev)
                return True
            if is_suspect:
                self._tell_stranger(atom, revision, f"it follows {row.prev} of {self.name(followed.place)}")
                return False
        elif is_suspect and row.prev <= self.head.horizon:
            self._tell_stranger(atom, revision, f"it follows {row.prev}, not {atom.last}")
            return False
        should = atom.last if atom.last is not None else f"at most {self.head.horizon}" if self.head.horizon else 0
        findings.tell("change", revision, f"its prev is {row.prev}, should be {should}: it is of {atom.name}")
        if atom.last is None:
            atom.replay = Replay(revision)
        return True

    def _stranger(self, atom: _Atom, revision: int) -> int | None:
        """The atom's last change, if it may be of another: what is at `revision` knows nothing of it, nor the atom."""
        if atom.last not in self.findings.suspect or atom.last == atom.at or not atom.was_at(revision):
            return None
        return atom.last

    def _tell_stranger(self, atom: _Atom, revision: int, why: str) -> None:
        self.findings.tell("change", revision, f"it names {atom.name}, and {why}")

    async def _named(self, revision: int) -> checking.Named | None:
        if revision <= self.head.horizon:
            return None
        return await checking.named_at(self.connection, self.head, revision)

    async def compare(self, atom: _Atom, row: AtomRow | None) -> None:
        """The atom as its changes have left it with the one that is stored."""
        total = self.totals.get(atom.place[0])
        if total is None:
            if row is not None:
                self.findings.tell("collection", atom.place[0], f"there is none of this number, and it has {atom.name}")
        elif row is None:
            self._lacks(atom, total)
        elif row.stored is None:
            self.findings.tell("atom", atom.name, "fk or fr is no list")
            total.is_sure = False
        else:
            await self._compare(atom, row.stored, total)

    def _lacks(self, atom: _Atom, total: _Total) -> None:
        if atom.last is None:
            return
        if atom.is_suspect and atom.before is None:
            self._tell_stranger(atom, atom.last, "there is no such atom")
            return
        self.findings.tell("atom", atom.name, f"it is not there, and its last change is {atom.last}")
        if atom.replay.is_living:
            total.add(self._leaf(atom.place, atom.last))

    async def _compare(self, atom: _Atom, stored: Stored, total: _Total) -> None:
        is_by_record = stored.revision == atom.last
        wrong = []
        if not is_by_record and await self._is_explained(atom, stored.revision):
            atom.replay = Replay(stored.revision)
        elif not is_by_record and atom.last is not None:
            wrong.append(f"its revision is {stored.revision}, should be {atom.last}")
            is_by_record = True
        elif not is_by_record and stored.revision > self.head.horizon:
            above = f" above the horizon, {self.head.horizon}" if self.head.horizon else ""
            self.findings.tell("atom", atom.name, f"its revision is {stored.revision}, and it has no change{above}")
            total.is_sure = total.is_sure and self.head.horizon == 0
            return
        wrong += atom.replay.differences(stored)
        if wrong:
            self.findings.tell("atom", atom.name, "; ".join(wrong))
        revision, is_living = stored.revision, not stored.is_deleted
        if is_by_record and atom.last is not None:
            revision = atom.last
            if atom.replay.is_living is not None and not atom.is_suspect:
                is_living = atom.replay.is_living
        if is_living:
            total.add(self._leaf(atom.place, revision))

    async def _is_explained(self, atom: _Atom, revision: int) -> bool:
        """Whether the atom is right to be at another revision than that of its last change: what is wrong is told."""
        if revision in self.findings.missing:
            return True
        stranger = self._stranger(atom, revision)
        if stranger is not None:
            self._tell_stranger(atom, stranger, f"that is at {revision}")
            return True
        if revision not in self.findings.suspect:
            return False
        named = await self._named(revision)
        if named is None or named.place == atom.place:
            return False
        self.findings.tell("change", revision, f"it names {self.name(named.place)}, and {atom.name} is at it")
        return True

    def _leaf(self, place: Place, revision: int) -> int:
        return digest.leaf(self.names[place[0]], place[1].decode(errors="replace"), revision)

    def collections(self) -> None:
        """The collections, once all atoms were seen."""
        for collection in self.head.collections.values():
            total = self.totals[collection.id]
            if not total.is_sure:
                continue
            wrong = []
            if collection.atoms != total.atoms:
                wrong.append(f"atoms is {collection.atoms}, should be {total.atoms}")
            if collection.digest != total.digest:
                wrong.append(f"digest is {digest.told(collection.digest)}, should be {digest.told(total.digest)}")
            if wrong:
                self.findings.tell("collection", collection.name, "; ".join(wrong))
