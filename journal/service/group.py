"""A group: pushes that are decided one after the other on what those before them left, and recorded together."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw

from journal.config import MIB, Limits
from journal.core import chain, decide, digest
from journal.core.cursor import Cursor
from journal.core.grants import Names, both
from journal.core.model import AtomState, Conflict, Current, Key, Outcome, Policy, Push, PushChange
from journal.errors import (
    Fault,
    JournalError,
    NotApplied,
    PushReused,
    PushTooOld,
    RequestError,
    ResyncRequired,
    Stale,
    TooLarge,
)
from journal.service.judge import admitted, floors_for, judge, judge_scope, resync
from journal.service.rounds import Page
from journal.service.tails import Tail, Tails
from journal.store import heads, record
from journal.store.database import Connection
from journal.store.heads import Collection, Commit, Head
from journal.store.record import AtomKey, Client, Decided, NewCommit, NewConflict, Recording
from journal.store.recovery import Floor
from journal.wire import PushAnswer

TOLD_BYTES = 64 * MIB  # of `current` in the outcomes of a push
_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, eq=False):
    """A push as it waits to be decided. `content` identifies it where it is numbered or bears a key.

    `page`: what is to be read after it, in a sync. Its cursor is judged as the base is, before anything is decided.
    `reads`, `writes`: the collections that its sender may read and write.
    `sent`: when it was sent by its sender's clock, in microseconds since 1970; `arrived`: by this process's own.
    `recorded`: from when to when its group was being recorded, likewise; `request_id`: what it came with.
    """

    journal: str
    changes: list[PushChange]
    on_conflict: Policy = "server"
    is_atomic: bool = False
    client: UUID | None = None
    number: int | None = None
    key: str | None = None
    base: Cursor | None = None
    page: Page | None = None
    reads: Names = None
    writes: Names = None
    content: bytes = b""
    at: datetime | None = None  # recorded as the commit's time, for histories that are imported
    size: int = 0  # bytes, so that a group stays within bounds
    sent: int | None = None
    arrived: float = msgspec.field(default_factory=time.monotonic)
    answer: "asyncio.Future[Decided] | None" = None
    request_id: str = ""
    recorded: tuple[float, float] | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it again can be told from sending another."""
        return self.number is not None or self.key is not None

    @property
    def judged(self) -> list[Cursor | int]:
        """What the journal must be able to go on from."""
        found: list[Cursor | int] = [] if self.base is None else [self.base]
        return found if self.page is None else [*found, self.page.since]

    @property
    def clients(self) -> list[UUID]:
        """Whom floors may be for."""
        of_page = None if self.page is None or self.page.client is None else UUID(self.page.client)
        return [name for name in {self.client, of_page} if name is not None]


class Group:
    """Pushes that are decided one after the other and recorded together.

    `before`: a sealed group whose recording is under way. This one is decided on what that one leaves, and is void
    if that is recorded otherwise.
    """

    def __init__(
        self, limits: Limits, tails: dict[str, Tail], *, is_locked: bool, before: "Group | None" = None
    ) -> None:
        self.limits, self.is_locked = limits, is_locked
        self._before, self._is_sealed = before, False
        self.states: dict[str, Standing] = {}
        self.recording = Recording(
            heads=[], commits=[], atoms={}, clients={}, pushes=[], keys=[], old_atoms=set(), conflicts=[]
        )
        self.answers: list[tuple[Asked, Decided | JournalError]] = []
        self._clock: tuple[int, float] | None = None  # the same moment by PostgreSQL's clock, and by this process's
        self.decided: dict[tuple[int, int, int], Decided | None] = {}
        self.decided_keys: dict[tuple[int, str], Decided] = {}
        self.outcomes: dict[str, int] = {}
        self.replayed = 0
        if before is not None:
            self.recording.old_atoms.update(before.recording.atoms)
            self.decided.update({push[:3]: push[3] for push in before.recording.pushes})
            self.decided_keys.update({key[:2]: key[2] for key in before.recording.keys})
        self.admit(tails)

    def admit(self, tails: dict[str, Tail]) -> None:
        """Let pushes to these journals in."""
        for name, tail in tails.items():
            if name not in self.states:
                self.states[name] = Standing(tail, None if self._before is None else self._before.states.get(name))

    async def take(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """Load what some pushes are to be decided on, and decide them."""
        await self.load(connection, asked)
        for one in asked:
            self.settle(one)

    async def load(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """What some pushes are to be decided on; their journals were let in."""
        await self._load_clients(connection, asked)
        await self._load_decided(connection, asked)
        await self._load_chains(connection, asked)
        keys: dict[AtomKey, None] = {}
        for one in asked:
            head = self.states[one.journal].head
            for change in one.changes:
                collection = head.collections.get(change.collection)
                if collection is not None:
                    keys[head.id, collection.id, change.atom] = None
        found = await record.atoms(connection, list(keys))
        self.recording.old_atoms.update(found)
        by_id = {state.head.id: state for state in self.states.values()}
        for (journal, collection_id, atom), state in found.items():
            by_id[journal].load_atom(collection_id, atom, state)
            if state.revision > by_id[journal].head.head:
                raise Stale  # another process recorded it; to decide on it, memory must stand there too
        await self._load_times(connection, asked, found)
        await self._load_conflicts(connection, asked)

    async def _load_times(
        self, connection: Connection, asked: Sequence[Asked], found: Mapping[AtomKey, AtomState]
    ) -> None:
        """When the atoms were last changed that `newest` may judge: those that moved on since what the sender knows."""
        wanted: dict[tuple[int, int], tuple[Standing, Key]] = {}
        for one in asked:
            state = self.states[one.journal]
            if not state.may_judge_by(one, "newest"):
                continue
            for change in one.changes:
                collection = state.head.collections.get(change.collection)
                if collection is None or not _needs_a_time(change, state.policy(one, change)):
                    continue
                atom = found.get((state.head.id, collection.id, change.atom))
                if atom is not None and not _is_known(change, atom):
                    wanted[state.head.id, atom.revision] = state, (change.collection, change.atom)
        if wanted:
            times, now = await record.times(connection, list(wanted))
            self._clock = now, time.monotonic()
            for place, at in times.items():
                state, key = wanted[place]
                state.times[key] = at

    async def _load_conflicts(self, connection: Connection, asked: Sequence[Asked]) -> None:
        """How many conflicts were kept, of journals where `both` may keep more."""
        wanted = {
            state.head.id: state
            for one in asked
            if (state := self.states[one.journal]).last_conflict is None and state.may_judge_by(one, "both")
        }
        for journal, last in (await record.conflicts_kept(connection, list(wanted))).items():
            wanted[journal].last_conflict = last

    async def _load_clients(self, connection: Connection, asked: Sequence[Asked]) -> None:
        wanted = {
            (self.states[one.journal].head.id, one.client): self.states[one.journal]
            for one in asked
            if one.client is not None and not self.states[one.journal].knows_client(one.client)
        }
        known, highest = await record.clients(connection, list(wanted))
        for (journal, name), state in wanted.items():
            state.highest_client = max(state.highest_client, highest[journal])
            client = known.get((journal, name))
            if client is not None:
                state.known[name] = client
                state.tail.remember_client(name, client)

    async def _load_decided(self, connection: Connection, asked: Sequence[Asked]) -> None:
        numbers = []
        for one in asked:
            state = self.states[one.journal]
            client = state.client(one.client)
            if one.number is not None and client is not None and one.number <= client.pushed:
                numbers.append((state.head.id, client.id, one.number))
        keys = [(self.states[one.journal].head.id, one.key) for one in asked if one.key is not None]
        numbers = [number for number in dict.fromkeys(numbers) if number not in self.decided]
        keys = [key for key in dict.fromkeys(keys) if key not in self.decided_keys]
        self.decided |= await record.decided_pushes(connection, numbers)
        self.decided_keys |= await record.decided_keys(connection, keys)

    async def _load_chains(self, connection: Connection, asked: Sequence[Asked]) -> None:
        places: dict[tuple[int, int], None] = {}
        based: dict[str, list[Asked]] = {}
        for one in asked:
            if not one.judged:
                continue
            state = self.states[one.journal]
            based.setdefault(one.journal, []).append(one)
            for at in one.judged:
                if isinstance(at, Cursor) and not state.knows_chain(at.revision) and at.revision <= state.head.head:
                    places[state.head.id, at.revision] = None
        by_id = {state.head.id: state for state in self.states.values()}
        for (journal, revision), there in (await record.chains_at(connection, list(places))).items():
            by_id[journal].chains[revision] = chain.told(there)
        for name, pushes in based.items():
            state = self.states[name]
            cursors = [at for one in pushes for at in one.judged]
            found = await floors_for(
                connection, state.head, cursors, [client for one in pushes for client in one.clients]
            )
            state.floors += [floor for floor in found if floor not in state.floors]

    def settle(self, asked: Asked) -> None:
        """Decide the next push on what those before it left."""
        try:
            answer: Decided | JournalError = self._answer(asked)
        except ResyncRequired as error:
            if not self.is_locked:
                raise Stale from error  # memory only ever says yes
            answer = error
        except RequestError as error:
            answer = error
        self.answers.append((asked, answer))

    def _answer(self, asked: Asked) -> Decided:
        state = self.states[asked.journal]
        replay = self._replay(asked, state)
        if replay is not None:
            self.replayed += 1
            return replay
        client = state.client(asked.client)
        if client is not None and asked.client is not None:
            admitted(asked.client, is_gone=client.is_gone)
        if asked.page is not None:
            _judge_page(asked.page, state)
        if asked.base is not None:
            judge(
                asked.base,
                state.head,
                state.chain_there(asked.base.revision),
                floors=state.floors,
                collections=both(asked.base.collections, asked.reads),
                client=asked.client,
            )
            if any(change.base is not None and change.base > state.head.head for change in asked.changes):
                raise resync(state.head, "future")
        number = client.id if client is not None else state.highest_client + 1 if asked.client is not None else None
        push = Push(
            asked.changes,
            asked.on_conflict,
            asked.is_atomic,
            number,
            asked.sent,
            self._by_postgresql(asked.arrived),
            asked.writes,
        )
        decision = decide.decide(
            push,
            state.atoms,
            head=state.revision,
            horizon=state.head.horizon,
            policies=state.policies,
            atom_bytes=self.limits.atom_bytes,
            times=state.times_of(asked) if state.may_judge_by(asked, "newest") else None,
            conflicts=state.last_conflict or 0,
        )
        _tellable(decision.outcomes)
        for outcome in decision.outcomes:
            self.outcomes[outcome.status] = self.outcomes.get(outcome.status, 0) + 1
        first = state.revision + 1 if decision.changes else None
        if decision.changes:
            self._commit(asked, state, decision, number)
        if decision.conflicts:
            self._keep(asked, state, decision.conflicts)
        answer = Decided(asked.content, *_body(decision, state, first))
        self._remember(asked, state, answer)
        return answer

    def _replay(self, asked: Asked, state: "Standing") -> Decided | None:
        """The first answer, where the push was decided before."""
        if asked.key is not None:
            decided_key = self.decided_keys.get((state.head.id, asked.key))
            return None if decided_key is None else _replayed(asked, decided_key)
        client = state.client(asked.client)
        if asked.number is None or client is None or asked.number > client.pushed:
            return None
        key = (state.head.id, client.id, asked.number)
        if key not in self.decided:
            raise PushTooOld(client.pushed)
        decided = self.decided[key]
        return Decided(b"", 200, _forgotten(state)) if decided is None else _replayed(asked, decided)

    def _commit(self, asked: Asked, state: "Standing", decision: decide.Decision, number: int | None) -> None:
        journal, first = state.head.id, state.revision + 1
        state.go_on(decision)
        for (collection, atom), atom_state in decision.atoms.items():
            self.recording.atoms[journal, state.collections[collection].id, atom] = atom_state
        commit = NewCommit(
            journal, first, state.revision, number, asked.number, asked.at, state.chain, decision.changes
        )
        self.recording.commits.append(commit)
        state.commits.append(commit)

    def _keep(self, asked: Asked, state: "Standing", conflicts: Sequence[Conflict]) -> None:
        state.last_conflict = conflicts[-1].id
        self.recording.conflicts += [_new_conflict(asked, state.head.id, conflict) for conflict in conflicts]

    def _by_postgresql(self, moment: float) -> int:
        """A moment of this process's clock, in microseconds since 1970 by PostgreSQL's; any where none is asked for."""
        if self._clock is None:
            return 0
        now, here = self._clock
        return now + round((moment - here) * 1_000_000)

    def _remember(self, asked: Asked, state: "Standing", answer: Decided) -> None:
        journal = state.head.id
        if asked.key is not None:
            self.recording.keys.append((journal, asked.key, answer))
            self.decided_keys[journal, asked.key] = answer
        if asked.client is None:
            return
        client = state.client(asked.client)
        is_new = client is None
        if client is None:
            state.highest_client += 1
            client = Client(state.highest_client)
        if asked.number is not None:
            client = msgspec.structs.replace(client, pushed=asked.number)
            self.recording.pushes.append((journal, client.id, asked.number, answer))
            self.decided[journal, client.id, asked.number] = answer
        if is_new or asked.number is not None:
            state.clients[asked.client] = client
            self.recording.clients[journal, client.id] = (asked.client, client.pushed)

    def seal(self) -> None:
        """No push is decided any more: what the group comes to is known."""
        self._before, self._is_sealed = None, True
        touched = {commit.journal for commit in self.recording.commits}
        touched |= {journal for journal, _ in self.recording.clients}
        touched |= {journal for journal, _, _ in self.recording.keys}
        touched |= {conflict.journal_id for conflict in self.recording.conflicts}
        for state in self.states.values():
            if state.head.id in touched:
                state.write()
        self.recording.heads = [(state.head, state.after) for state in self.states.values() if state.is_written]

    async def append(self, connection: Connection, name: str | None = None) -> datetime | None:
        """Record it, on a connection that is called `name` meanwhile; None where there was nothing to."""
        if not self._is_sealed:
            self.seal()
        if not self.is_locked:
            await self._confirm(connection, [state.head for state in self.states.values() if not state.is_written])
        if self.recording.is_empty:
            await record.await_standby(connection)  # replays: test_failover.py
            return None
        return await record.append(connection, self.recording, name)

    async def _confirm(self, connection: Connection, untouched: list[Head]) -> None:
        """Stale where memory was behind: nothing else compares it where all was refused, unchanged or replayed."""
        if untouched:
            turns = await heads.turns(connection, [head.id for head in untouched])
            if any(turns.get(head.id) != (head.turn, head.chain) for head in untouched):
                raise Stale

    def publish(self, tails: Tails, at: datetime | None) -> None:
        """Tell this process's memory, and then who waits for an answer."""
        for state in self.states.values():
            if state.is_written:
                assert at is not None
                state.publish(tails, at)
        for asked, answer in self.answers:
            assert asked.answer is not None
            if asked.answer.done():
                continue
            if isinstance(answer, Decided):
                asked.answer.set_result(answer)
            else:
                asked.answer.set_exception(answer)


class Standing:
    """A journal during a group: `head` as the group found it, `after` as it leaves it, the rest as it has so far.

    `before`: the journal in the group before, which is being recorded.
    """

    def __init__(self, tail: Tail, before: "Standing | None" = None) -> None:
        self.tail = tail
        self.head: Head = tail.head if before is None else before.after
        self.after: Head = self.head
        self.revision, self.chain = self.head.head, self.head.chain
        self.collections = dict(self.head.collections)
        self.policies = {name: k.policy for name, k in self.head.collections.items() if k.policy is not None}
        self.atoms: dict[Key, AtomState] = {} if before is None else dict(before.decided)
        self.decided: dict[Key, AtomState] = {}
        self.chains: dict[int, str] = {} if before is None else dict(before.ends)
        self.ends: dict[int, str] = {}  # those of `chains` that are the group's own commits
        # As they were when what the group is decided on was loaded; those of the group before, as it leaves them.
        self.known: dict[UUID, Client] = {} if before is None else dict(before.clients)
        self.commits: list[NewCommit] = []
        self.clients: dict[UUID, Client] = {}
        self.floors: list[Floor] = []
        self.highest_client: int = 0 if before is None else before.highest_client
        self.times: dict[Key, int] = {}  # when atoms were last changed, as far as `newest` may ask; see times_of
        self._in_flight = {} if before is None else before.decided
        self.last_conflict: int | None = None if before is None else before.last_conflict  # None: not loaded
        self.is_written = False
        self._names = {collection.id: collection.name for collection in self.head.collections.values()}
        self._last_collection = max(self._names, default=0)

    def load_atom(self, collection: int, atom: str, state: AtomState) -> None:
        self.atoms.setdefault((self._names[collection], atom), state)

    def policy(self, asked: Asked, change: PushChange) -> Policy:
        """The one that a change is judged by."""
        return self.policies.get(change.collection, asked.on_conflict)

    def may_judge_by(self, asked: Asked, policy: Policy) -> bool:
        """Whether something of a push may be judged by a policy."""
        return asked.on_conflict == policy or policy in self.policies.values()

    def times_of(self, asked: Asked) -> dict[Key, int]:
        """When a push's atoms were last changed; what this group or the one before it records has no time yet: now."""
        found: dict[Key, int] = {}
        for change in asked.changes:
            key = (change.collection, change.atom)
            if key in self.decided or key in self._in_flight:
                found[key] = decide.LATEST
            elif key in self.times:
                found[key] = self.times[key]
        return found

    def client(self, name: UUID | None) -> Client | None:
        if name is None:
            return None
        return self.clients.get(name) or self.known.get(name)

    def knows_client(self, name: UUID) -> bool:
        """Whether memory does; what it knows is taken over, as it may forget it before the group is decided."""
        remembered = self.tail.clients.get(name)
        if remembered is not None:
            self.known.setdefault(name, remembered)
        return self.client(name) is not None

    def knows_chain(self, revision: int) -> bool:
        """Likewise, of the chain at a revision."""
        remembered = self.tail.chains.get(revision)
        if remembered is not None:
            self.chains[revision] = remembered
        return revision in self.chains

    def chain_there(self, revision: int) -> str | None:
        """The chain at a revision, as far as it was loaded; None where no commit ends."""
        there = self.chains.get(revision)
        return chain.told(chain.START) if there is None and revision == 0 else there

    def write(self) -> None:
        """Something of the journal is going to be recorded."""
        self.is_written = True
        self.after = msgspec.structs.replace(
            self.head, head=self.revision, chain=self.chain, turn=self.head.turn + 1, collections=self.collections
        )

    def go_on(self, decision: decide.Decision) -> None:
        """Take a commit's changes: count what lives, and keep the digests."""
        self.chain = chain.extend(self.chain, decision.changes)
        self.revision += len(decision.changes)
        self.chains[self.revision] = self.ends[self.revision] = chain.told(self.chain)
        for (name, atom), now in decision.atoms.items():
            self.collections[name] = self._counted(name, atom, now)
        self.atoms.update(decision.atoms)
        self.decided.update(decision.atoms)

    def _counted(self, name: str, atom: str, now: AtomState) -> Collection:
        collection = self.collections.get(name)
        if collection is None:
            self._last_collection += 1
            collection = Collection(self._last_collection, name, 0, 0, None)
        was = self.atoms.get((name, atom))
        count, total = collection.atoms, collection.digest
        if was is not None and was.data is not None:
            count, total = count - 1, total ^ digest.leaf(name, atom, was.revision)
        if now.data is not None:
            count, total = count + 1, total ^ digest.leaf(name, atom, now.revision)
        return Collection(collection.id, name, count, total, collection.policy)

    def publish(self, tails: Tails, at: datetime) -> None:
        if self.tail.head is self.head:
            commits = [
                Commit(c.first, c.revision, c.client, c.at or at, c.chain, tuple(c.changes)) for c in self.commits
            ]
            self.tail.advance(self.after, commits)
            tails.grown(self.tail)
            for name, client in self.clients.items():
                self.tail.remember_client(name, client)


def _judge_page(page: Page, state: Standing) -> None:
    """As reading it will judge it, on what the group found."""
    judge(
        page.since,
        state.head,
        state.chain_there(page.position),
        floors=state.floors,
        collections=page.collections,
        client=None if page.client is None else UUID(page.client),
    )
    judge_scope(page.since, state.head, page.collections, page.may)


def _body(decision: decide.Decision, state: Standing, first: int | None) -> tuple[int, bytes]:
    if decision.is_refused:
        return NotApplied.status, _refusal(decision.outcomes)
    answer = PushAnswer(
        epoch=state.head.epoch,
        first=first,
        revision=None if first is None else state.revision,
        head=state.revision,
        chain=chain.told(state.chain),
        outcomes=decision.outcomes,
    )
    return 200, _encode(answer)


def _refusal(outcomes: list[Outcome]) -> bytes:
    return _encode(NotApplied(outcomes).problem() | {"replayed": False})


def _forgotten(state: Standing) -> bytes:
    """The answer to a push that was decided so long ago that only this is known."""
    told = chain.told(state.chain)
    return _encode(PushAnswer(state.head.epoch, None, None, state.revision, told, None, replayed=True))


def _needs_a_time(change: PushChange, policy: Policy) -> bool:
    return policy == "newest" and (change.age is not None or change.changed_at is not None)


def _is_known(change: PushChange, atom: AtomState) -> bool:
    """Whether a change is made on the atom as it is, so that only the push itself can have moved it."""
    if change.op == "insert" or change.if_data is not UNSET or change.base is None:
        return False
    return atom.revision <= change.base


def _new_conflict(asked: Asked, journal: int, conflict: Conflict) -> NewConflict:
    change, stood = conflict.change, conflict.stood
    return NewConflict(
        journal_id=journal,
        id=conflict.id,
        op=change.op,
        collection=change.collection,
        atom=change.atom,
        place=conflict.place,
        data=None if change.data is None else Raw(change.data),
        unset=change.unset or None,
        client=asked.client,
        push=asked.number,
        base=change.base,
        stood_revision=None if stood is None else stood.revision,
        stood_data=None if stood is None else stood.data,
    )


def _tellable(outcomes: Sequence[Outcome]) -> None:
    """TooLarge where what stands is too much for one answer: a large atom that a push names often is told as often."""
    told = 0
    for outcome in outcomes:
        if isinstance(outcome.current, Current):
            told += len(outcome.current.data)
    if told > TOLD_BYTES:
        raise TooLarge(
            [Fault("/changes", "what stands of their atoms is too much for one answer: send fewer", TOLD_BYTES)]
        )


_FIRST, _AGAIN = b'"replayed":false}', b'"replayed":true}'


def _replayed(asked: Asked, decided: Decided) -> Decided:
    if decided.content != asked.content:
        raise PushReused
    assert decided.answer.endswith(_FIRST)
    return msgspec.structs.replace(decided, answer=decided.answer.removesuffix(_FIRST) + _AGAIN)
