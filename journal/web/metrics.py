"""Metrics: what is counted of requests, and `/metrics`, the figures of all processes in the form that Prometheus reads.

The rule: a scrape of any process tells of all, each with the worker that it is of. Added up they would go back where a
worker dies, and Prometheus would take that for the whole beginning anew.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from journal.errors import RequestError
from journal.service.figures import SECONDS, Spread
from journal.service.measures import CATALOGUE, JOINT, Family, Measures, Sheet
from journal.service.running import Service
from journal.web import parameters as read
from journal.web import send
from journal.web.routing import Count, J

STREAM, DELTAS = f"{J}/stream", f"{J}/deltas"


class Told(msgspec.Struct):
    """What one process says of itself; `worker` None: what is the same whoever says it. `families` None: nothing."""

    worker: str | None
    families: list[Family] | None


Tell = Callable[[bool], Awaitable[list[Family]]]
"""What a process says: of itself, or what is the same whoever says it."""


class Gathering(Protocol):
    """How a process comes by what all say."""

    def begin(self, tell: Tell) -> None:
        """From now on this process can be asked."""
        ...

    async def all(self) -> list[Told]:
        """What each says."""
        ...


GATHERING: web.AppKey[Gathering] = web.AppKey("gathering")


class Alone:
    """One process is all."""

    def __init__(self) -> None:
        self._tell: Tell | None = None

    def begin(self, tell: Tell) -> None:
        """From now on it can be asked."""
        self._tell = tell

    async def all(self) -> list[Told]:
        """What it says."""
        assert self._tell is not None
        return [Told("0", await self._tell(False)), Told(None, await self._tell(True))]  # noqa: FBT003


class Seen(Spread):
    """The requests of one method and route: how long they took, and their statuses."""

    __slots__ = ("method", "route", "statuses")

    def __init__(self, method: str, route: str) -> None:
        super().__init__(SECONDS)
        self.method, self.route = method, route
        self.statuses: dict[int, int] = defaultdict(int)

    def without_time(self, _: web.Request, response: web.StreamResponse, __: float) -> None:
        """Count a stream: it takes as long as its reader likes."""
        self.statuses[response.status] += 1


class Metrics:
    """What one process counts of requests, and tells together with what its parts count."""

    def __init__(self, service: Service, gathering: Gathering) -> None:
        self.service = service
        self.measures = Measures(service)
        self.called_back: Counter[str] = Counter()
        self._seen: list[Seen] = []
        self._process = ProcessCollector(registry=None)
        gathering.begin(self._tell)

    def of(self, method: str, path: str) -> Count:
        """What counts the requests of a method and a route."""
        seen, called_back, clock = self._new(method, path), self.called_back, time.perf_counter
        waiting = self._new(method, f"{path}?wait") if path == DELTAS else None
        if path == STREAM:
            return seen.without_time

        def count(request: web.Request, response: web.StreamResponse, began: float) -> None:
            took, status = clock() - began, response.status
            to = seen if waiting is None or "wait=" not in request.rel_url.raw_query_string else waiting
            to.counts[bisect_left(SECONDS, took)] += 1  # Spread.add, without a call: polls are a few of these long
            to.total += took
            to.statuses[status] += 1
            if status == 410:
                called_back[response.get(send.REASON, "")] += 1

        return count

    def _new(self, method: str, path: str) -> Seen:
        seen = Seen(method, path)
        self._seen.append(seen)
        return seen

    async def _tell(self, is_common: bool) -> list[Family]:  # noqa: FBT001
        if is_common:
            return await self.measures.common()
        sheet = Sheet()
        self.measures.own(sheet)
        for seen in self._seen:
            for status, times in seen.statuses.items():
                sheet.say("journal_http_requests", times, method=seen.method, route=seen.route, status=str(status))
            if any(seen.counts):
                sheet.spread("journal_http_request_seconds", seen, method=seen.method, route=seen.route)
        for reason, times in (
            self.called_back + self.service.fanout.called_back + self.service.sync.called_back
        ).items():
            sheet.say("journal_resyncs", times, reason=reason)
        process = [_family(one) for one in self._process.collect()]
        return [*sheet.families, *process]


async def metrics(request: web.Request) -> web.StreamResponse:
    """GET /metrics: what can be watched, of all processes."""
    read.read(request.rel_url.raw_query_string, {})
    return response(request, await request.app[GATHERING].all())


def response(request: web.BaseRequest, told: Sequence[Told]) -> web.Response:
    """What was told, in the form that the requester reads."""
    encode, media = choose_encoder(request.headers.get("Accept", ""))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(_joined(told)))
    return web.Response(body=encode(registry), headers={"Content-Type": media, "Cache-Control": "no-store"})


def apart(gathering: Gathering) -> web.Application:
    """The application of a port that has nothing but the metrics, and asks nobody who they are."""

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await metrics(request)
        except RequestError as error:
            return send.problem(error)

    app = web.Application()
    app[GATHERING] = gathering
    app.router.add_get("/metrics", told)
    return app


class _Collected:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _joined(told: Sequence[Told]) -> list[Metric]:
    """The families of all, each sample with the worker that it is of."""
    metrics: dict[str, Metric] = {}
    joint: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def metric(family: Family) -> Metric:
        return metrics.setdefault(family.name, Metric(family.name, family.tells, family.kind))

    up = Family("journal_worker_up", *CATALOGUE["journal_worker_up"], [])
    for one in told:
        if one.worker is not None:
            metric(up).add_sample(up.name, {"worker": one.worker}, float(one.families is not None))
        for family in one.families or ():
            found = metric(family)
            for suffix, labels, value in family.samples:
                if family.name in JOINT:
                    key = family.name, tuple(labels.items())
                    joint[key] = max(joint.get(key, value), value)
                else:
                    more = {} if one.worker is None else {"worker": one.worker}
                    found.add_sample(family.name + suffix, labels | more, value)
    for (name, named), value in joint.items():
        metrics[name].add_sample(name, dict(named), value)
    return list(metrics.values())


def _family(metric: Metric) -> Family:
    samples = [(one.name.removeprefix(metric.name), one.labels, one.value) for one in metric.samples]
    return Family(metric.name, metric.type, metric.documentation, samples)
