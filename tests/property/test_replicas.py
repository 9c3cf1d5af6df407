"""The stateful machine: replicas and a server through changes, syncs, cuts, kills, resyncs, compactions and restores;
at the end all are equal to the server and to the record, and every change is accounted for (P6, P8, P9, P9a, P10, P11).

JOURNAL_TEST_REPLICAS says how many examples; 500 take some minutes. The steps of an example that fails are printed;
with JOURNAL_TEST_SHRINK=1 the fewest that fail are sought, which can take long.
"""

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from journal.core.model import Policy
from tests.killing import watch_connections
from tests.replicas import OUTCOMES, REASONS, Keep, Key, Kind, Phone, Stage, World, hear, staged
from tests.shaky import Cut, Fault, Hold, Mute

EXAMPLES = int(os.environ.get("JOURNAL_TEST_REPLICAS", "500"))
STEPS = 14
PHASES = [Phase.generate, *([Phase.shrink] if os.environ.get("JOURNAL_TEST_SHRINK") else [])]
SEEN = 20  # how often each outcome, reason and policy must have occurred
LONGEST_S = 90.0

POLICIES: tuple[Policy, ...] = ("server", "merge", "client", "newest", "both")
ALL: frozenset[str] | None = None
ONE, BOTH = frozenset(["a"]), frozenset(["a", "b"])

phones = st.integers(0, 3)
keys: st.SearchStrategy[Key] = st.tuples(st.sampled_from(["a", "a", "b"]), st.sampled_from(["p", "p", "q", "r"]))
kinds = st.sampled_from(cast("list[Kind]", ["update", "update", "update", "insert", "put", "put", "delete", "big"]))
policies = st.sampled_from(POLICIES)
ways = st.sampled_from(cast("list[Literal['asked', 'answered']]", ["asked", "answered"]))
sizes = st.integers(0, 40) | st.integers(0, 1500) | st.integers(150, 700)
cuts = st.builds(Cut, ways, sizes)
statements = st.integers(1, 25) | st.integers(1, 50) | st.integers(1, 200)
scopes = st.sampled_from([ALL, ALL, ONE, BOTH])


class Failed(NamedTuple):
    """The steps of an example that failed, and how."""

    steps: list[str]
    error: BaseException


def step(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule whose steps are written down: what fails once and then no more is to be understood as well."""

    def ruled(does: Callable[..., None]) -> Any:
        return cast("Any", rule)(**drawn)(written(does))

    return ruled


def written(does: Callable[..., None]) -> Callable[..., None]:
    """Write a step down."""

    @wraps(does)
    def done(self: "Machine", **arguments: Any) -> None:
        told = ", ".join(f"{name}={_told(value)}" for name, value in arguments.items())
        self.steps.append(f"{does.__name__}({told})")
        self.stage.tally.add("step", does.__name__)
        with self.noted():
            does(self, **arguments)

    return done


def _told(value: Any) -> str:
    return f"{{{', '.join(sorted(value))}}}" if isinstance(value, frozenset) else repr(value)


class Machine(RuleBasedStateMachine):
    """What hypothesis draws steps from. `stage`, `folder` and `patch` are the test's."""

    stage: ClassVar[Stage]
    folder: ClassVar[Path]
    patch: ClassVar[pytest.MonkeyPatch]
    loop: ClassVar[asyncio.AbstractEventLoop]
    failed: ClassVar[list[Failed]]
    examples: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.steps: list[str] = []
        self.is_failed = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Remember how it failed."""
        try:
            yield
        except BaseException as error:
            self.is_failed = True
            self.failed.append(Failed(self.steps, error))
            raise

    def run(self, step: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(asyncio.wait_for(step, LONGEST_S))

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    def phone(self, number: int) -> Phone:
        return self.w.phones[number % len(self.w.phones)]

    def key(self, phone: Phone, key: Key) -> Key:
        """One that the replica may write."""
        return key if phone.wanted is None or key[0] in phone.wanted else (min(phone.wanted), key[1])

    def policy(self, policy: Policy) -> Policy:
        """One that the service knows."""
        known = self.stage.policies
        return policy if policy in known else known[POLICIES.index(policy) % len(known)]

    @initialize(page=st.sampled_from([1, 2, 10_000]), third=scopes, is_synced=st.sampled_from([True, True, False]))
    @written
    def begin(self, page: int, third: frozenset[str] | None, is_synced: bool) -> None:
        type(self).examples += 1
        self.world = World(self.stage, self.folder, page, self.patch)
        self.run(self.w.begin([ALL, ALL, third], is_synced=is_synced))

    @step(who=phones, key=keys, kind=kinds, policy=policies, wide=st.booleans())
    def write(self, who: int, key: Key, kind: Kind, policy: Policy, wide: bool) -> None:
        phone = self.phone(who)
        self.run(self.w.write(phone, self.key(phone, key), kind, self.policy(policy), wide=wide, number=None))

    def write_there(self, who: int, key: Key, kind: Kind, policy: Policy) -> None:
        phone = self.phone(who)
        self.run(self.w.write(phone, self.key(phone, key), kind, self.policy(policy), wide=False, number=None))

    @step(policy=policies, key=keys, kinds=st.lists(kinds, min_size=2, max_size=3))
    def write_the_same_everywhere(self, policy: Policy, key: Key, kinds: list[Kind]) -> None:
        for phone, kind in zip(self.w.phones, kinds, strict=False):
            mine = self.key(phone, key)
            self.run(self.w.write(phone, mine, kind, self.policy(policy), wide=False, number=None))

    @step(
        who=phones, policy=policies,
        changes=st.lists(st.tuples(keys, kinds), min_size=2, max_size=3, unique_by=lambda change: change[0][1]),
    )  # fmt: skip
    def transact(self, who: int, changes: list[tuple[Key, Kind]], policy: Policy) -> None:
        phone = self.phone(who)
        mine = [(self.key(phone, key), kind) for key, kind in changes]
        self.run(self.w.transact(phone, mine, self.policy(policy)))

    @step(keys=st.lists(keys, min_size=1, max_size=3, unique=True), is_gone=st.sampled_from([False, False, True]))
    def somebody_else_pushes(self, keys: list[Key], is_gone: bool) -> None:
        self.run(self.w.foreign(keys, is_gone=is_gone))

    @step(who=phones)
    def sync(self, who: int) -> None:
        self.run(self.w.sync(self.phone(who)))

    @step()
    def sync_all(self) -> None:
        for phone in self.w.phones:
            self.run(self.w.sync(phone))

    @step(key=keys, policy=policies)
    def delete_everywhere(self, key: Key, policy: Policy) -> None:
        for phone in self.w.phones:
            mine = self.key(phone, key)
            self.run(self.w.write(phone, mine, "delete", self.policy(policy), wide=False, number=None))

    @step(who=phones, key=keys, kind=kinds, policy=policies, fault=cuts | cuts | st.builds(Mute, sizes))
    def write_and_sync_through(self, who: int, key: Key, kind: Kind, policy: Policy, fault: Fault) -> None:
        self.write_there(who, key, kind, policy)
        self.run(self.w.sync_with(self.phone(who), fault, None))

    @step(
        who=phones, request=st.integers(1, 5), when=ways, key=keys, kind=kinds, policy=policies, other=phones,
        what=st.sampled_from(
            ["write", "write", "push", "push", "sync", "resync", "compact", "restart", "restore", "restored", "forget"]
        ),
    )  # fmt: skip
    def sync_and_meanwhile(
        self, who: int, request: int, when: Literal["asked", "answered"], what: str, key: Key, kind: Kind,
        policy: Policy, other: int,
    ) -> None:  # fmt: skip
        phone, w = self.phone(who), self.w
        second = self.phone(other)
        whom: list[Phone | str | None] = [phone, key[0], None]
        steps: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "write": partial(w.write, phone, self.key(phone, key), kind, self.policy(policy), wide=False, number=None),
            "push": partial(w.foreign, [key], is_gone=kind == "delete"),
            "sync": partial(w.sync, second) if second is not phone else partial(w.foreign, [key]),
            "resync": partial(w.resync, whom[other % 3]),
            "compact": partial(w.compact, 0),
            "restart": w.restart,
            "restore": partial(w.restore, -1, is_told=False, going_on=other),
            "restored": partial(w.restore, -1, is_told=True, going_on=other),
            "forget": partial(w.forget, phone),
        }
        self.run(w.sync_with(phone, Hold(request, when), steps[what]))

    @step(
        who=phones, key=keys, kind=kinds, policy=policies, statement=statements,
        during=st.sampled_from(["sync", "sync", "sync", "verify", "live"]),
    )  # fmt: skip
    def write_and_stop(
        self, who: int, key: Key, kind: Kind, policy: Policy, statement: int,
        during: Literal["sync", "verify", "live"],
    ) -> None:  # fmt: skip
        self.write_there(who, key, kind, policy)
        self.run(self.w.stop_at(self.phone(who), statement, during))

    @step(
        who=phones, key=keys, kind=kinds, policy=policies, statement=statements,
        during=st.sampled_from(["sync", "sync", "sync", "sync", "verify", "live"]),
    )  # fmt: skip
    def write_and_kill(
        self, who: int, key: Key, kind: Kind, policy: Policy, statement: int, during: str
    ) -> None:  # fmt: skip
        self.write_there(who, key, kind, policy)
        self.run(self.w.kill(self.phone(who), statement, during))

    @step(who=phones, statement=st.integers(1, 25), during=st.sampled_from(["open", "close"]))
    def kill(self, who: int, statement: int, during: str) -> None:
        self.run(self.w.kill(self.phone(who), statement, during))

    @step(who=phones, statement=st.integers(1, 12), key=keys, kind=kinds, policy=policies)
    def kill_while_writing(self, who: int, statement: int, key: Key, kind: Kind, policy: Policy) -> None:
        phone = self.phone(who)
        self.run(self.w.write_and_die(phone, statement, self.key(phone, key), kind, self.policy(policy)))

    @step(who=phones, wanted=scopes)
    def reopen(self, who: int, wanted: frozenset[str] | None) -> None:
        self.run(self.w.reopen(self.phone(who), wanted))

    @step(wanted=st.sampled_from([BOTH, ALL]))
    def reopen_with_more(self, wanted: frozenset[str] | None) -> None:
        phone = self.phone(2)
        self.run(self.w.reopen(phone, ONE))
        self.run(self.w.sync(phone))
        self.run(self.w.reopen(phone, wanted))

    @precondition(lambda self: self.world is not None and len(self.world.phones) < 4)
    @step(who=phones, with_sidecar=st.booleans())
    def copy_the_file(self, who: int, with_sidecar: bool) -> None:
        self.run(self.w.copy(self.phone(who), with_sidecar=with_sidecar))

    @step(
        who=phones, how=st.sampled_from(cast("list[Literal['data', 'gone']]", ["data", "revision", "gone", "ghost"])),
        row=st.integers(0, 5),
    )  # fmt: skip
    def damage_and_verify(self, who: int, how: Literal["data", "revision", "gone", "ghost"], row: int) -> None:
        self.run(self.w.damage(self.phone(who), how, row))

    @step(who=phones, key=keys, policy=policies)
    def sync_in_the_background(self, who: int, key: Key, policy: Policy) -> None:
        phone = self.phone(who)
        self.run(self.w.live(phone, self.key(phone, key), self.policy(policy)))

    @step(who=phones, keep=st.sampled_from(cast("list[Keep]", ["server", "client", "both"])))
    def settle_a_conflict(self, who: int, keep: Keep) -> None:
        self.run(self.w.settle(self.phone(who), keep))

    @step(whom=phones | st.sampled_from(["a", "b"]) | st.none())
    def ask_to_resync(self, whom: int | str | None) -> None:
        self.run(self.w.resync(self.phone(whom) if isinstance(whom, int) else whom))

    @step(keep_revisions=st.sampled_from([0, 0, 1, 3]), keys=st.lists(keys, min_size=1, max_size=2, unique=True))
    def push_and_compact(self, keep_revisions: int, keys: list[Key]) -> None:
        self.run(self.w.foreign(keys))
        self.run(self.w.compact(keep_revisions))

    @step(who=phones)
    def forget_a_client(self, who: int) -> None:
        self.run(self.w.forget(self.phone(who)))

    @step()
    def restart_the_service(self) -> None:
        self.run(self.w.restart())

    @step()
    def back_up(self) -> None:
        self.run(self.w.backup())

    @step(which=st.integers(-2, -1), is_told=st.booleans(), going_on=st.sampled_from([0, 1, 9]))
    def restore_a_backup(self, which: int, is_told: bool, going_on: int) -> None:
        self.run(self.w.restore(which, is_told=is_told, going_on=going_on))

    @step(
        who=phones, key=keys, kind=kinds, policy=policies, fault=st.none() | cuts,
        is_told=st.sampled_from([False, False, True]), going_on=st.sampled_from([0, 1, 9]),
    )  # fmt: skip
    def write_sync_and_restore(
        self, who: int, key: Key, kind: Kind, policy: Policy, fault: Fault | None, is_told: bool, going_on: int
    ) -> None:
        self.write_there(who, key, kind, policy)
        self.run(self.w.foreign([key]))
        self.run(self.w.sync(self.phone(who)) if fault is None else self.w.sync_with(self.phone(who), fault, None))
        self.run(self.w.restore(-1, is_told=is_told, going_on=going_on))
        self.run(self.w.sync(self.phone(who)))

    def teardown(self) -> None:
        if self.world is None:
            return
        world, self.world = self.world, None
        try:
            if not self.is_failed:
                with self.noted():
                    self.run(world.heal())
                    self.run(world.check())
        finally:
            self.run(world.end())


@pytest.fixture
def machine(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    """The machine on a service of its own, in a loop of its own."""
    watch_connections(monkeypatch)
    hear(monkeypatch)
    loop = asyncio.new_event_loop()
    serving = staged(database, tmp_path)
    Machine.stage, Machine.loop = loop.run_until_complete(serving.__aenter__()), loop
    Machine.folder, Machine.patch, Machine.failed = tmp_path, monkeypatch, []
    yield Machine
    loop.run_until_complete(serving.__aexit__(None, None, None))
    loop.close()


@pytest.mark.timeout(60 * 60 * 6)
def test_p9_p10_whatever_happens_replicas_end_with_what_the_server_has_and_nothing_is_lost(
    machine: type[Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()

    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=PHASES,
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
            ),
        )
    except BaseException:
        shortest: dict[str, Failed] = {}
        for failed in sorted(machine.failed, key=lambda failed: -len(failed.steps)):
            shortest[f"{type(failed.error).__name__} {str(failed.error)[:30]}"] = failed
        for failed in shortest.values():
            steps = "\n".join(f"  {step}" for step in failed.steps)
            told = "".join(traceback.format_exception(failed.error))
            print(f"\nafter {machine.examples} examples failed with\n{told}after\n{steps}")
        raise

    tally = machine.stage.tally
    with capsys.disabled():
        print(f"\n{EXAMPLES} examples in {time.monotonic() - began:.0f} s\n{tally.told()}")
    if EXAMPLES >= 500:
        expected = [
            *(f"outcome {name}" for name in OUTCOMES), *(f"reason {name}" for name in REASONS),
            *(f"sent under {name}" for name in machine.stage.policies), "reconcile replace", "reconcile verify",
        ]  # fmt: skip
        seldom = {name: tally.counts[name] for name in expected if tally.counts[name] < SEEN}
        assert not seldom
