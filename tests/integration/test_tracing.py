"""Spans: a request, and what took its time; and that nothing is traced where nobody asked."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from journal.store.spans import TRACED, span
from journal.web.tracing import Tracing
from tests.command import ROOT, journal
from tests.harness import Harness, insert, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traces:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    def of(self, name: str) -> ReadableSpan:
        """The last span of a name."""
        return [one for one in self.exporter.get_finished_spans() if one.name == name][-1]

    def beneath(self, parent: ReadableSpan) -> list[str]:
        """The spans that are its children, by when they began."""
        children = [
            one
            for one in self.exporter.get_finished_spans()
            if one.parent is not None and parent.context is not None and one.parent.span_id == parent.context.span_id
        ]
        return [one.name for one in sorted(children, key=lambda one: one.start_time or 0)]


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
async def traced(database: str, tmp_path: Path, traces: Traces) -> AsyncIterator[Harness]:
    async with serving(database, tmp_path, tracing=traces.tracing) as running:
        await running.create()
        yield running


async def test_a_push_waits_for_its_group_which_is_then_recorded(traced: Harness, traces: Traces) -> None:
    await traced.pushed([insert("todo", "a")])

    span = traces.of("POST /v1/journals/{j}/changes")

    waits = [
        name for name in traces.beneath(span) if not name.startswith("postgresql")
    ]  # it may have to be let in first
    assert waits == ["wait for the group", "record the group"]
    assert span.attributes
    assert dict(span.attributes).items() >= {
        "http.request.method": "POST", "http.route": "/v1/journals/{j}/changes", "http.response.status_code": 200,
        "journal.name": "j",
    }.items()  # fmt: skip
    for name in ("wait for the group", "record the group"):
        child = traces.of(name)
        assert span.start_time
        assert child.start_time
        assert child.end_time
        assert span.end_time
        assert span.start_time - 1_000_000 <= child.start_time <= child.end_time <= span.end_time + 1_000_000


async def test_what_is_read_from_postgresql_is_a_child_and_what_memory_knows_is_none(
    traced: Harness, traces: Traces
) -> None:
    await traced.pushed([insert("todo", "a")])
    await traced.deltas(0, include="meta")
    from_rows = traces.of("GET /v1/journals/{j}/deltas")
    await traced.deltas(0)
    from_memory = traces.of("GET /v1/journals/{j}/deltas")

    assert traces.beneath(from_rows) == ["postgresql read"]
    assert traces.beneath(from_memory) == []


async def test_making_a_snapshot_is_a_child_of_the_request_that_asked_first(traced: Harness, traces: Traces) -> None:
    await traced.pushed([insert("todo", "a")])
    await traced.snapshot()

    assert "make a snapshot" in traces.beneath(traces.of("GET /v1/journals/{j}/snapshot"))
    assert "postgresql read" in traces.beneath(traces.of("make a snapshot"))


async def test_a_trace_that_was_begun_elsewhere_goes_on(traced: Harness, traces: Traces) -> None:
    await traced.call("GET", "j", headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"})

    span = traces.of("GET /v1/journals/{j}")

    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.attributes is not None
    assert span.attributes["journal.request_id"] == "mine"


async def test_no_span_has_anything_of_the_query(traced: Harness, traces: Traces) -> None:
    await traced.call("GET", "j/stream?since=9&ticket=hidden", headers={"Authorization": "Bearer hidden"})
    await traced.call("GET", "hidden!/deltas?since=0")

    told = "".join(one.to_json() for one in traces.exporter.get_finished_spans())

    assert "/stream" in told
    assert "hidden" not in told


async def test_who_does_not_trace_pays_a_look_at_a_variable(service: Harness) -> None:
    await service.pushed([insert("todo", "a")])

    with span("nothing"):
        assert TRACED.get() is None


def test_without_the_setting_opentelemetry_is_not_even_loaded() -> None:
    text = "import sys, journal.cli, journal.web.listen; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


async def test_asked_to_trace_without_opentelemetry_it_says_what_is_missing(database: str, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()  # hides what is installed

    done = await journal(
        "serve", "--dsn", database, "--data", tmp_path, "--trace-to", "http://127.0.0.1:1",
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )  # fmt: skip

    assert done.code == 1
    assert "pip install 'revision-journal[otel]'" in done.err


async def test_spans_go_to_the_collector_that_is_named(database: str, tmp_path: Path) -> None:
    """A collector is what takes OTLP over HTTP: here a handler that keeps the bytes."""
    taken: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        taken.put_nowait((request.path, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with serving(database, tmp_path, trace_to=collector) as service:
            await service.create()
        path, body = await asyncio.wait_for(taken.get(), 10)
    finally:
        await runner.cleanup()

    assert path == "/v1/traces"
    assert b"PUT /v1/journals/{j}" in body
    assert b"service.name" in body
