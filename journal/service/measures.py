"""Measures: all that can be watched, by name, and what it comes to at this moment.

The rule: whatever clients do, the number of names and labels is bounded. Labels are our own words, journals (which
operators make) and a few clients; neither paths nor anything else that a request brings along becomes one.
"""

import asyncio
import platform
import shutil
import time
from collections import OrderedDict
from typing import Literal

import msgspec

import journal
from journal.errors import Unavailable
from journal.service.figures import Spread
from journal.service.running import Service
from journal.store import watching
from journal.store.watching import Behind

Kind = Literal["counter", "gauge", "histogram"]

CATALOGUE: dict[str, tuple[Kind, str]] = {
    "journal_build_info": ("gauge", "Which version runs; always 1."),
    "journal_ready": ("gauge", "1 unless it was told to stop, or does not hear yet what other processes record."),
    "journal_worker_up": ("gauge", "1: the worker told its figures; 0: it did not answer in time."),
    "journal_http_requests": ("counter", "Requests that were answered, by route and status; 499: nobody was there."),
    "journal_http_request_seconds": ("histogram", "How long requests took, but for streams; `?wait`: those that wait."),
    "journal_resyncs": ("counter", "How often a client was told to start again (410), by reason."),
    "journal_pushes": ("counter", "Pushes by what they came to: decided, replayed (again), refused (an error)."),
    "journal_outcomes": ("counter", "Changes by their outcome, as they were answered first."),
    "journal_changes": ("counter", "Changes that were recorded."),
    "journal_commits": ("counter", "Commits that were recorded."),
    "journal_group_pushes": ("histogram", "How many pushes were recorded together."),
    "journal_group_seconds": ("histogram", "How long recording a group took."),
    "journal_groups": ("counter", "Groups: decided ahead of their turn, or under the lock since others write too."),
    "journal_groups_decided_again": ("counter", "Groups that were decided again: another process was quicker."),
    "journal_groups_parted": ("counter", "Groups that parted: somebody held the head of one of their journals."),
    "journal_writer_waiting": ("gauge", "Pushes that wait for a group."),
    "journal_writer_waiting_seconds": ("gauge", "For how long the first of them has."),
    "journal_writer_lanes": ("gauge", "Journals whose head somebody holds: they go on by themselves."),
    "journal_answers": ("counter", "Answers for deltas: kept bytes, folded from the ring, from rows, from the record."),
    "journal_journals_in_memory": ("gauge", "Journals that a process remembers."),
    "journal_memory_bytes": ("gauge", "What it remembers: rings of recent commits, answers."),
    "journal_head_revision": ("gauge", "The head of a journal in memory."),
    "journal_horizon_revision": ("gauge", "Its horizon."),
    "journal_atoms": ("gauge", "How many atoms live in it."),
    "journal_client_lag_revisions": ("gauge", "How far the slowest clients of the last day are behind."),
    "journal_client_lag_seconds": ("gauge", "How old the oldest change is that they lack."),
    "journal_registry_unwritten": ("gauge", "Sights of clients that are to be written to the registry."),
    "journal_postgresql_up": ("gauge", "1 while PostgreSQL answers this process."),
    "journal_pool_connections": ("gauge", "Connections to PostgreSQL by pool: used or idle."),
    "journal_pool_connections_max": ("gauge", "How many there can be."),
    "journal_pool_waiting": ("gauge", "Who waits for one."),
    "journal_pool_missed": ("counter", "How often none was to be had."),
    "journal_listener_connected": ("gauge", "1 while the process hears what others record."),
    "journal_listener_connections": ("counter", "How often it has connected: more than once is again."),
    "journal_listener_notifications": ("counter", "What it heard."),
    "journal_listener_heard_timestamp_seconds": ("gauge", "When it last heard something, in seconds since 1970."),
    "journal_streams": ("gauge", "Open streams: told together, or looking for themselves."),
    "journal_stream_cohorts": ("gauge", "Cohorts: streams at one cursor, that are told the same bytes."),
    "journal_stream_events": ("counter", "Events and bookmarks that streams were told together."),
    "journal_snapshots_being_made": ("gauge", "Snapshots that are being made."),
    "journal_snapshot_seconds": ("histogram", "How long making one took."),
    "journal_snapshot_waiting": ("gauge", "Requests that wait to be told which snapshot to take."),
    "journal_snapshot_readers": ("gauge", "Who is reading one."),
    "journal_snapshot_files": ("gauge", "Files of snapshots in the spool."),
    "journal_snapshot_bytes": ("gauge", "What they take."),
    "journal_spool_free_bytes": ("gauge", "What is free on the spool's disk."),
    "journal_loop_late_seconds": (
        "histogram",
        "By how much the loop is late: it works to capacity, or something blocks.",
    ),
    "journal_scrape_failed": ("gauge", "1: this part is missing, as PostgreSQL did not answer in time."),
}
"""Every family of our own: its kind and what it tells. Counters are exported with _total."""
JOINT = {"journal_head_revision", "journal_horizon_revision", "journal_atoms"}
"""What is of the journals, and not of the process that tells it: told once, by whoever is furthest."""

JOURNALS = 100
OF_EACH, OF_ALL = 10, 100
NAMES_AN_HOUR = 200
SEEN_S = 86_400
ASKED_S = 15.0
SHARE = 20  # asking takes at most that part of the time

Labels = dict[str, str]


class Family(msgspec.Struct):
    """A measure: its samples as (what is appended to the name, labels, value)."""

    name: str
    kind: str
    tells: str
    samples: list[tuple[str, Labels, float]]


class Sheet:
    """Families that are being filled."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    @property
    def families(self) -> list[Family]:
        """All that have samples."""
        return list(self._families.values())

    def say(self, name: str, value: float, **labels: str) -> None:
        """A counter's or gauge's sample."""
        family = self._family(name)
        family.samples.append(("_total" if family.kind == "counter" else "", labels, float(value)))

    def spread(self, name: str, spread: Spread, **labels: str) -> None:
        """A histogram's samples."""
        samples, so_far = self._family(name).samples, 0
        for bound, count in zip((*map(_told, spread.bounds), "+Inf"), spread.counts, strict=True):
            so_far += count
            samples.append(("_bucket", labels | {"le": bound}, so_far))
        samples.append(("_sum", labels, spread.total))
        samples.append(("_count", labels, so_far))

    def _family(self, name: str) -> Family:
        family = self._families.get(name)
        if family is None:
            kind, tells = CATALOGUE[name]
            family = self._families[name] = Family(name, kind, tells, [])
        return family


class Measures:
    """What a service comes to. `own` is of this process, `common` is the same whichever process is asked."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._journals: dict[str, int] = {}
        self._named: OrderedDict[tuple[int, str], float] = OrderedDict()
        self._common: list[Family] = []
        self._due = float("-inf")
        self._asking = asyncio.Lock()

    def own(self, sheet: Sheet) -> None:
        """Figures of this process. No query, and no more work than there are measures."""
        service = self.service
        version = platform.python_version()
        sheet.say("journal_build_info", 1, version=journal.__version__, python=version)
        is_up = not service.readiness.is_stopping and service.watch.listener.connections > 0
        sheet.say("journal_ready", is_up)
        self._writing(sheet)
        self._memory(sheet)
        self._postgresql(sheet)
        self._telling(sheet)
        sheet.spread("journal_loop_late_seconds", service.watch.late)

    def _writing(self, sheet: Sheet) -> None:
        writer, recorded = self.service.writer, self.service.writer.figures
        for answer in ("decided", "replayed", "refused"):
            sheet.say("journal_pushes", recorded.answers[answer], answer=answer)
        for status in ("applied", "merged", "conflict", "unchanged", "rejected"):
            sheet.say("journal_outcomes", recorded.outcomes[status], status=status)
        sheet.say("journal_changes", recorded.changes)
        sheet.say("journal_commits", recorded.commits)
        sheet.spread("journal_group_pushes", recorded.group_pushes)
        sheet.spread("journal_group_seconds", recorded.group_seconds)
        sheet.say("journal_groups", recorded.groups_ahead, decided="ahead")
        sheet.say("journal_groups", recorded.groups_locked, decided="locked")
        sheet.say("journal_groups_decided_again", recorded.decided_again)
        sheet.say("journal_groups_parted", recorded.parted)
        sheet.say("journal_writer_waiting", writer.waiting)
        sheet.say("journal_writer_waiting_seconds", writer.waiting_s)
        sheet.say("journal_writer_lanes", writer.lanes)

    def _memory(self, sheet: Sheet) -> None:
        service = self.service
        answered = service.reader.figures
        for source in ("kept", "folded", "rows", "record"):
            sheet.say("journal_answers", getattr(answered, source), source=source)
        known = {tail.head.journal: tail.head for tail in service.tails.known}
        sheet.say("journal_journals_in_memory", len(known))
        sheet.say("journal_memory_bytes", service.tails.ring_bytes, what="rings")
        sheet.say("journal_memory_bytes", service.reader.rendered.bytes, what="answers")
        # Who is named stays so while it is in memory: of 20,000 journals each scrape would name others.
        self._journals = {name: head.id for name in self._journals if (head := known.get(name)) is not None}
        for name in reversed(known):
            if len(self._journals) >= JOURNALS:
                break
            self._journals.setdefault(name, known[name].id)
        for name in self._journals:
            head = known[name]
            sheet.say("journal_head_revision", head.head, journal=name)
            sheet.say("journal_horizon_revision", head.horizon, journal=name)
            sheet.say("journal_atoms", head.totals()[0], journal=name)
        sheet.say("journal_registry_unwritten", service.registry.unwritten)

    def _postgresql(self, sheet: Sheet) -> None:
        service = self.service
        sheet.say("journal_postgresql_up", not service.watch.is_away)
        for pooled in service.database.pools:
            size, idle = pooled.size, pooled.idle
            sheet.say("journal_pool_connections", size - idle, pool=pooled.role, state="used")
            sheet.say("journal_pool_connections", idle, pool=pooled.role, state="idle")
            sheet.say("journal_pool_connections_max", pooled.most, pool=pooled.role)
            sheet.say("journal_pool_waiting", pooled.waiting, pool=pooled.role)
            sheet.say("journal_pool_missed", pooled.missed, pool=pooled.role)
        listener = service.watch.listener
        sheet.say("journal_listener_connected", listener.is_connected)
        sheet.say("journal_listener_connections", listener.connections)
        sheet.say("journal_listener_notifications", listener.notifications)
        sheet.say("journal_listener_heard_timestamp_seconds", listener.heard_at or 0.0)

    def _telling(self, sheet: Sheet) -> None:
        fanout, snapshots = self.service.fanout, self.service.snapshots
        following = fanout.following
        sheet.say("journal_streams", following, told="together")
        sheet.say("journal_streams", max(fanout.streams - following, 0), told="apart")
        sheet.say("journal_stream_cohorts", fanout.cohorts)
        sheet.say("journal_stream_events", fanout.told)
        sheet.say("journal_snapshots_being_made", snapshots.being_made)
        sheet.spread("journal_snapshot_seconds", snapshots.seconds)
        sheet.say("journal_snapshot_waiting", snapshots.waiting)
        sheet.say("journal_snapshot_readers", snapshots.readers)

    async def common(self) -> list[Family]:
        """Of the registry and the spool, at most every 15 s; what cannot be had is left out, and that is said."""
        async with self._asking:
            began = time.monotonic()
            if began >= self._due:
                self._common = await self._look()
                ended = time.monotonic()
                self._due = ended + max(ASKED_S, SHARE * (ended - began))
            return self._common

    async def _look(self) -> list[Family]:
        sheet, service = Sheet(), self.service
        files, size = await asyncio.to_thread(service.snapshots.kept)
        sheet.say("journal_snapshot_files", files)
        sheet.say("journal_snapshot_bytes", size)
        sheet.say("journal_spool_free_bytes", shutil.disk_usage(service.settings.spool).free)
        names = {number: name for name, number in self._journals.items()}
        try:
            if service.watch.is_away:
                raise Unavailable
            async with asyncio.timeout(watching.PATIENCE_S):
                found = await watching.furthest_behind(
                    service.database, list(names), of_each=OF_EACH, of_all=OF_ALL, seen_s=SEEN_S
                )
        except (Unavailable, TimeoutError):
            sheet.say("journal_scrape_failed", 1, part="clients")
            return sheet.families
        sheet.say("journal_scrape_failed", 0, part="clients")
        for one in self._to_be_named(found, time.monotonic()):
            labels = {"journal": names[one.journal], "client": str(one.client)}
            sheet.say("journal_client_lag_revisions", one.lag, **labels)
            sheet.say("journal_client_lag_seconds", one.lag_s, **labels)
        return sheet.families

    def _to_be_named(self, found: list[Behind], now: float) -> list[Behind]:
        """Those of the clients that are named: who takes a new id each time soon finds no room for more."""
        while self._named and next(iter(self._named.values())) < now - 3600:
            self._named.popitem(last=False)
        named = []
        for one in found:
            key = one.journal, str(one.client)
            if key in self._named or len(self._named) < NAMES_AN_HOUR:
                self._named[key] = now
                self._named.move_to_end(key)
                named.append(one)
        return named


def _told(bound: float) -> str:
    return str(float(bound))
