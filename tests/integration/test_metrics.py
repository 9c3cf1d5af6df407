"""`/metrics`: what is told is what happened, and whatever clients do it does not grow."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from journal.service import measures
from journal.service.measures import CATALOGUE
from tests.harness import Harness, eventually, insert, listening, serving, update
from tests.proxy import Proxy, proxied

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraped:
    """What a scrape told."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (known, having), value in self.samples.items() if known == name and wanted <= having)

    def labels(self, name: str, label: str) -> set[str]:
        """The values of a label."""
        return {dict(having)[label] for (known, having) in self.samples if known == name and label in dict(having)}


async def scraped(service: Harness) -> Scraped:
    reply = await service.call("GET", "/metrics")
    assert reply.status == 200, reply.body
    return Scraped(reply.body.decode())


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxied(database) as running:
        yield running


@pytest.fixture
async def behind(proxy: Proxy, tmp_path: Path) -> AsyncIterator[Harness]:
    """The service, with a proxy before PostgreSQL that can cut."""
    async with serving(proxy.dsn, tmp_path, poll_s=0.1) as running:
        await listening(running)
        await running.create()
        yield running


async def test_what_was_pushed_is_counted(service: Harness) -> None:
    client = str(uuid4())
    await service.pushed([insert("todo", "a"), insert("todo", "b")], client=client, push=1)
    await service.pushed([insert("todo", "a"), insert("todo", "b")], client=client, push=1)
    await service.pushed([insert("todo", "a", {"n": 2}), update("todo", "b", {"n": 5}, base=0)],
                         base=(await service.head())["cursor"])  # fmt: skip
    await service.push([insert("todo", "c")], client=client, push=1)

    told = await scraped(service)

    assert told.value("journal_changes_total") == told.value("journal_head_revision", journal="j") == 2
    assert told.value("journal_commits_total") == 1
    answers = {
        answer: told.value("journal_pushes_total", answer=answer) for answer in ("decided", "replayed", "refused")
    }
    assert answers == {"decided": 2, "replayed": 1, "refused": 1}
    assert told.value("journal_outcomes_total", status="applied") == 2
    assert told.value("journal_outcomes_total", status="conflict") == 2
    assert told.value("journal_group_pushes_sum") == told.value("journal_pushes_total") == 4
    assert told.value("journal_group_seconds_count") == told.value("journal_groups_total")
    assert told.value("journal_atoms", journal="j") == 2


async def test_a_group_that_is_decided_again_is_counted_once(database: str, tmp_path: Path) -> None:
    """Where two processes write to one journal groups are decided again, and their outcomes are told once."""
    async with serving(database, tmp_path) as one, serving(database, tmp_path) as other:
        await one.create()
        for n in range(10):
            await asyncio.gather(*(who.pushed([insert("todo", f"{n} {who.url}")]) for who in (one, other)))
        told = [await scraped(who) for who in (one, other)]

    assert [each.value("journal_changes_total") for each in told] == [10, 10]
    assert [each.value("journal_outcomes_total", status="applied") for each in told] == [10, 10]
    assert sum(each.value("journal_groups_total", decided="locked") for each in told) > 0


async def test_requests_are_told_by_route_and_status_and_never_by_path(service: Harness) -> None:
    await service.call("GET", "j")
    await service.call("GET", "nobody-has-this")
    await service.call("REPORT", "/tea/" + "x" * 100)
    await service.call("GET", "j/deltas?since=0&wait=0.01")
    await service.call("GET", "j/deltas?since=000000000000:7:0000000000000000")

    told = await scraped(service)

    route = "/v1/journals/{j}"
    assert told.value("journal_http_requests_total", route=route, method="GET", status="200") == 1
    assert told.value("journal_http_requests_total", route=route, method="GET", status="404") == 1
    assert told.value("journal_http_requests_total", route="none", method="*", status="404") == 1
    assert told.value("journal_http_request_seconds_count", route=f"{route}/deltas?wait") == 1
    assert told.value("journal_http_requests_total", route=f"{route}/deltas", status="410") == 1
    assert told.value("journal_resyncs_total", reason="epoch") == 1
    assert told.value("journal_http_request_seconds_count", route=route, method="GET") == 2


async def test_p12_whatever_is_asked_for_there_are_no_more_series(service: Harness) -> None:
    """A hostile client chooses paths, methods, names, ids and statuses; none of them makes a series."""

    async def ask(n: int) -> None:
        await service.call("GET", f"none-{n}/deltas?since=0&x{n}=1")
        await service.call(("REPORT", "MERGE", "LOCK")[n % 3], f"/{n}/{n}")
        await service.call("GET", f"j/deltas?since=0&client={uuid4()}", headers={"User-Agent": f"{n}"})
        await service.push([insert(f"c{n}", f"a{n}")], client=str(uuid4()), push=n + 1)

    await ask(0)
    await service.call("POST", "j/changes", data=b"{")
    before = len((await scraped(service)).samples)
    for n in range(1, 50):
        await ask(n)
    after = len((await scraped(service)).samples)

    own = 40  # /metrics itself is a route that was not asked for before
    assert after <= before + own


async def test_who_takes_a_new_id_each_time_soon_finds_no_room_for_more(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "NAMES_AN_HOUR", 4)
    monkeypatch.setattr(measures, "ASKED_S", 0.0)
    monkeypatch.setattr(measures, "SHARE", 0)
    await service.pushed([insert("todo", "a")])
    cursor, named = (await service.head())["cursor"], set[str]()
    for n in range(5):
        for _ in range(2):
            await service.deltas(cursor, client=str(uuid4()))
        await service.pushed([insert("todo", f"b{n}")])
        await service.service.registry.flush()
        named |= (await scraped(service)).labels("journal_client_lag_revisions", "client")

    assert len(named) == 4


async def test_the_slowest_clients_are_named_with_how_far_they_are_behind(service: Harness) -> None:
    cursors = []
    for n in range(12):
        answer = await service.pushed([insert("todo", f"{n}")])
        cursors.append(f"{answer['epoch']}:{answer['revision']}:{answer['chain']}")
    clients = [str(uuid4()) for _ in cursors]
    for client, cursor in zip(clients, cursors, strict=True):
        await service.deltas(cursor, client=client)
    await service.service.registry.flush()

    told = await scraped(service)

    lags = {client: told.value("journal_client_lag_revisions", journal="j", client=client) for client in clients[:10]}
    assert list(lags.values()) == [11 - n for n in range(10)]
    assert told.labels("journal_client_lag_revisions", "client") == set(clients[:10])
    assert told.value("journal_client_lag_seconds", client=clients[0]) > 0


async def test_answers_are_told_by_where_they_came_from(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    cursor = (await service.head())["cursor"]
    for path in (f"since={cursor}", f"since={cursor}", "since=0&include=meta", f"since=0&until=1"):  # noqa: F541
        assert (await service.call("GET", f"j/deltas?{path}")).status == 200

    told = await scraped(service)

    sources = {
        source: told.value("journal_answers_total", source=source)
        for source in told.labels("journal_answers_total", "source")
    }
    assert sources == {"kept": 1, "folded": 1, "rows": 1, "record": 1}
    assert told.value("journal_memory_bytes", what="rings") > 0


async def test_streams_are_counted_while_they_are_open(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])
    cursor = (await service.head())["cursor"]
    url = f"{service.url}/v1/journals/j/stream?since={cursor}"

    async with service.session.get(url), service.session.get(url):

        async def follow() -> bool:
            told = await scraped(service)
            return told.value("journal_streams", told="together") == 2 and told.value("journal_stream_cohorts") == 1

        await eventually(follow)
        await service.pushed([insert("todo", "b")])

        async def are_told() -> bool:
            return (await scraped(service)).value("journal_stream_events_total") == 2

        await eventually(are_told)

    await service.pushed([insert("todo", "c")])  # who went away is found out when there is something to tell

    async def are_over() -> bool:
        return (await scraped(service)).value("journal_streams") == 0

    await eventually(are_over)


async def test_a_stream_that_is_called_back_counts_as_a_resync(service: Harness) -> None:
    async with service.session.get(
        f"{service.url}/v1/journals/j/stream?since=000000000000:7:0000000000000000"
    ) as stream:
        text = (await stream.read()).decode()

    assert "event: resync" in text
    assert (await scraped(service)).value("journal_resyncs_total", reason="epoch") == 1


async def test_snapshots_and_the_spool_are_told(service: Harness) -> None:
    await service.pushed([insert("todo", f"{n}") for n in range(100)])
    lines = await service.snapshot()

    told = await scraped(service)

    assert len(lines) == 102
    assert told.value("journal_snapshot_files") >= 1
    assert told.value("journal_snapshot_bytes") > 100
    assert told.value("journal_snapshot_seconds_count") == 1
    assert told.value("journal_spool_free_bytes") > 0
    assert told.value("journal_snapshots_being_made") == told.value("journal_snapshot_readers") == 0


async def test_a_scrape_does_not_fail_while_postgresql_is_away(
    behind: Harness, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "ASKED_S", 0.0)
    monkeypatch.setattr(measures, "SHARE", 0)
    assert (await scraped(behind)).value("journal_postgresql_up") == 1
    proxy.refuse()

    async def is_told() -> bool:
        told = await scraped(behind)
        ups = told.value("journal_postgresql_up"), told.value("journal_listener_connected")
        return ups == (0, 0) and told.value("journal_pool_missed_total") > 0

    await eventually(is_told)
    away = await scraped(behind)
    await proxy.accept()

    async def is_back() -> bool:
        told = await scraped(behind)
        return told.value("journal_postgresql_up") == 1 and told.value("journal_listener_connected") == 1

    assert away.value("journal_scrape_failed", part="clients") == 1
    assert away.value("journal_head_revision", journal="j") == 0
    await eventually(is_back)
    assert (await scraped(behind)).value("journal_listener_connections_total") >= 2


async def test_who_waits_for_a_connection_and_who_gets_none_is_told(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journal.store.database.ACQUIRE_S", 1.0)
    async with serving(database, tmp_path, read_connections=1) as service:
        await service.create()
        await service.pushed([insert("todo", "a")])
        holder = await asyncpg.connect(database)
        async with holder.transaction():
            await holder.execute("lock table journal.atom in access exclusive mode")
            asking = [asyncio.create_task(service.deltas(0, include="meta")) for _ in range(2)]

            async def one_waits() -> bool:
                told = await scraped(service)
                return told.value("journal_pool_waiting", pool="read") > 0

            await eventually(one_waits)
            used = (await scraped(service)).value("journal_pool_connections", pool="read", state="used")
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await holder.close()
        answers = await asyncio.gather(*asking)
        told = await scraped(service)

    assert used == 1
    assert [one.result().status for one in done] == [503]
    assert sorted(one.status for one in answers) == [200, 503]
    assert told.value("journal_pool_missed_total", pool="read") >= 1
    assert told.value("journal_pool_waiting") == 0


async def test_at_most_so_many_journals_are_named_and_those_stay(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "JOURNALS", 3)
    for n in range(3):
        await service.create(f"k{n}")
        await service.head(f"k{n}")
    first = (await scraped(service)).labels("journal_head_revision", "journal")
    for n in range(3, 9):
        await service.create(f"k{n}")
        await service.head(f"k{n}")

    told = await scraped(service)

    assert len(first) == 3
    assert told.labels("journal_head_revision", "journal") == first
    assert told.value("journal_journals_in_memory") == 10


async def test_both_forms_of_prometheus_can_be_had(service: Harness) -> None:
    plain = await service.call("GET", "/metrics")
    openmetrics = await service.call(
        "GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )

    assert plain.headers["Content-Type"].startswith("text/plain; version=")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
    assert plain.headers["Cache-Control"] == "no-store"


async def test_only_what_the_catalogue_names_is_told_and_all_of_it_is(service: Harness) -> None:
    client = str(uuid4())
    await service.pushed([insert("todo", "a")], client=client, push=1)
    await service.deltas((await service.head())["cursor"], client=client)
    await service.deltas("000000000000:7:0000000000000000")
    await service.service.registry.flush()

    told = await scraped(service)

    own = {name for name in told.families if name.startswith("journal_")}
    assert own == set(CATALOGUE)
    assert {name for name in told.families if not name.startswith("journal_")} <= {
        "process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds",
        "process_cpu_seconds", "process_open_fds", "process_max_fds",
    }  # fmt: skip
