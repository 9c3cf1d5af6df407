"""`journal serve`: the service, on a PostgreSQL that is named or on the embedded one."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from contextlib import closing, nullcontext
from importlib.resources import files
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape

import journal
from journal.cli import jwts, say, walls
from journal.cli.database import opened, reachable, without_password
from journal.cli.imports import record
from journal.cli.ndjson import Lines
from journal.cli.notify import notify
from journal.cli.options import DATA, Data, Dsn, ListenDsn
from journal.config import Logs, Settings, Walls
from journal.core.grants import OPEN
from journal.service.running import Service
from journal.store import doors, heads
from journal.store import migrate as migrations
from journal.store.embedded import running
from journal.web import listen
from journal.web import workers as workers_of
from journal.web.app import verifier
from journal.web.logs import Json, configure
from journal.web.walls import shared

Result = TypeVar("Result")
SAMPLE = "demo"
_log = logging.getLogger(__name__)
_DEFAULT = Settings(dsn="", spool=Path())


def serve(
    *,
    dsn: Dsn = None,
    listen_dsn: ListenDsn = None,
    data: Data = DATA,
    host: Annotated[
        str, typer.Option(envvar="JOURNAL_HOST", metavar="HOST", help="Where to listen; 0.0.0.0: everywhere.")
    ] = _DEFAULT.host,
    port: Annotated[
        int, typer.Option(envvar="JOURNAL_PORT", metavar="N", min=0, max=65535, help="0: any that is free.")
    ] = _DEFAULT.port,
    workers: Annotated[
        int,
        typer.Option(
            envvar="JOURNAL_WORKERS",
            metavar="N",
            min=1,
            max=256,
            help="So many processes share the port; each takes at most 11 connections and --read-connections.",
        ),
    ] = 1,
    read_connections: Annotated[
        int,
        typer.Option(envvar="JOURNAL_READ_CONNECTIONS", metavar="N", min=1, help="At most so many connections read."),
    ] = _DEFAULT.read_connections,
    poll_s: Annotated[
        float,
        typer.Option(
            envvar="JOURNAL_POLL_S",
            metavar="SECONDS",
            min=0.05,
            help="How often to look for what no notification told.",
        ),
    ] = _DEFAULT.poll_s,
    push_kept_days: Annotated[
        float,
        typer.Option(
            envvar="JOURNAL_PUSH_KEPT_DAYS", metavar="DAYS", min=0, help="How long the answers to pushes are kept."
        ),
    ] = _DEFAULT.push_kept_days,
    key_kept_days: Annotated[
        float,
        typer.Option(
            envvar="JOURNAL_KEY_KEPT_DAYS", metavar="DAYS", min=0, help="How long an Idempotency-Key is remembered."
        ),
    ] = _DEFAULT.key_kept_days,
    migrate: Annotated[
        bool, typer.Option(envvar="JOURNAL_MIGRATE", help="Bring the database up to date first.")
    ] = True,
    rate: walls.Rate = _DEFAULT.walls.requests_per_s,
    burst: walls.Burst = _DEFAULT.walls.requests_at_once,
    streams: walls.Streams = _DEFAULT.walls.streams,
    downloads: walls.Downloads = _DEFAULT.walls.downloads,
    connections: walls.Connections = _DEFAULT.walls.connections,
    idle_s: walls.IdleS = _DEFAULT.walls.idle_s,
    unlimited: walls.Unlimited = list(_DEFAULT.walls.unlimited),  # noqa: B006 — typer copies it
    trusted_proxy: walls.TrustedProxy = [],  # noqa: B006
    cors_origin: walls.CorsOrigin = [],  # noqa: B006
    allowed_host: walls.AllowedHost = [],  # noqa: B006
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="JOURNAL_INSECURE",
            help="Listen elsewhere than on the loopback though everybody who gets there may do everything.",
        ),
    ] = False,
    jwt_secret: jwts.Secret = None,
    jwt_jwks: jwts.Listed = None,
    jwt_audience: jwts.Audience = None,
    jwt_issuer: jwts.Issuer = None,
    jwt_claim: jwts.Claim = None,
    jwt_leeway_s: jwts.LeewayS = None,
    drain_s: Annotated[
        float,
        typer.Option(
            envvar="JOURNAL_DRAIN_S",
            metavar="SECONDS",
            min=0,
            help="How long it serves on after it was told to stop, while /readyz says so.",
        ),
    ] = _DEFAULT.drain_s,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="JOURNAL_METRICS_PORT",
            metavar="N",
            min=0,
            max=65535,
            help="Tell /metrics on this port too, to whoever asks there.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(envvar="JOURNAL_METRICS_HOST", metavar="HOST", help="Where --metrics-port is.")
    ] = "127.0.0.1",
    log_format: Annotated[
        Literal["text", "json"], typer.Option(envvar="JOURNAL_LOG_FORMAT", help="What stderr is for: people, programs.")
    ] = _DEFAULT.logs.form,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(envvar="JOURNAL_LOG_LEVEL", help="The least that is said."),
    ] = _DEFAULT.logs.level,
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar="JOURNAL_ACCESS_LOG", help="A line for each request.")
    ] = _DEFAULT.logs.access,
    trace_to: Annotated[
        str | None,
        typer.Option(
            envvar="JOURNAL_TRACE_TO",
            metavar="URL",
            help="Send spans to this OpenTelemetry collector (OTLP over HTTP); needs the extra otel.",
        ),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option("--sample", envvar="JOURNAL_SAMPLE", help=f"Load sample data into {SAMPLE}, if that is empty."),
    ] = False,
) -> None:
    """Run the service.

    Without --dsn it brings a PostgreSQL 16 of its own, in --data.

    The first Ctrl-C or SIGTERM stops it once what is being answered is answered, a second one at once.
    """
    heights = Walls(
        requests_per_s=rate,
        requests_at_once=burst,
        streams=streams,
        downloads=downloads,
        connections=connections,
        idle_s=idle_s,
        unlimited=tuple(unlimited),
        trusted_proxies=tuple(trusted_proxy),
        cors_origins=tuple(cors_origin),
        allowed_hosts=tuple(allowed_host),
    )
    logs = Logs(form=log_format, level=log_level, access=access_log)
    configure(logs)
    if dsn is None and listen_dsn is not None:
        raise typer.BadParameter("--listen-dsn goes with a --dsn that leads to a pooler")
    if trace_to is not None and not _can_trace():
        with say.told():
            raise say.Failed(
                "cannot_trace", "--trace-to needs OpenTelemetry", "pip install 'revision-journal[otel]' brings it."
            )
    is_alone = workers == 1
    with (
        say.told(),
        closing(_bound(host, port, is_alone=is_alone)) as listener,
        nullcontext() if metrics_port is None else closing(_bound(metrics_host, metrics_port)) as metrics,
    ):
        jwt = jwts.believed(
            secret=jwt_secret,
            jwks=jwt_jwks,
            audience=jwt_audience,
            issuer=jwt_issuer,
            claim=jwt_claim,
            leeway_s=jwt_leeway_s,
        )

        def run(found: str, *, is_embedded: bool) -> None:
            with reachable(found):
                _run(_prepare(listen_dsn or found, migrate=migrate, sample=sample))
                settings = Settings(
                    dsn=found,
                    listen_dsn=listen_dsn,
                    spool=data / "spool",
                    host=host,
                    port=listener.getsockname()[1],
                    read_connections=read_connections,
                    poll_s=poll_s,
                    push_kept_days=push_kept_days,
                    key_kept_days=key_kept_days,
                    jwt=jwt,
                    drain_s=drain_s,
                    logs=logs,
                    trace_to=trace_to,
                    walls=shared(heights, workers),
                )
                is_open = _run(_is_open(settings))
                if is_open and not insecure:
                    _at_home(listener, dsn)
                where = f", embedded in {data}" if is_embedded else ""
                if is_alone:

                    async def greet(service: Service) -> None:
                        await _greet(service, where, metrics)

                    _run(listen.serve(settings, listener, started=greet, stopping=_stopping, metrics=metrics))
                else:
                    where = f"{where}, {workers} workers"
                    _run(_with_workers(settings, workers, where, metrics))

        if dsn is not None:
            run(dsn, is_embedded=False)
        else:
            with running(data) as embedded:
                run(embedded, is_embedded=True)


async def _is_open(settings: Settings) -> bool:
    """Whether whoever comes may do everything."""
    if settings.jwt is not None:
        return False
    async with opened(settings.listen_dsn or settings.dsn) as database:
        return await doors.turn(database) == 0


def _at_home(listener: socket.socket, dsn: str | None) -> None:
    """An open service is for this machine."""
    host = listener.getsockname()[0]
    if not ip_address(host.partition("%")[0]).is_loopback:
        database = "" if dsn is None else " --dsn DSN"
        text = f"no token was made yet, so everybody who reaches {host} could read and change everything"
        advice = (
            f"`journal token create --operator --name NAME{database}` makes the first, and closes the service to who "
            "has none; --insecure serves without."
        )
        raise say.Failed("open", text, advice)


async def _with_workers(settings: Settings, count: int, where: str, metrics: socket.socket | None) -> None:
    async def greet() -> None:
        service = Service(settings, verifier(settings))  # not to serve, only to look
        await service.database.open()
        try:
            await service.access.begin()
            await _greet(service, where, metrics)
        finally:
            await service.database.close()

    try:
        await workers_of.serve(settings, count, started=greet, stopping=_stopping, metrics=metrics)
    except workers_of.CannotStart:
        raise say.Failed("cannot_start", "a worker did not start", "What it says is above.") from None


def _bound(host: str, port: int, *, is_alone: bool = True) -> socket.socket:
    """The port: workers listen on it themselves, and it is only held for them."""
    try:
        if not is_alone:
            listen.bound(host, port).close()  # or somebody who shares it too would not be noticed
        return listen.bound(host, port, is_shared=not is_alone, is_listening=is_alone)
    except OSError as error:
        advice = "--host or JOURNAL_HOST names another address, --port or JOURNAL_PORT another port."
        match error.errno:
            case errno.EADDRINUSE:
                text = f"port {port} of {host} is taken: something listens there already"
                advice = "Stop that, or choose another with --port or JOURNAL_PORT (0: any that is free)."
            case errno.EACCES:
                text = f"port {port} is for root only"
            case _:
                text = f"cannot listen on {host}, port {port}: {error.strerror or error}"
        raise say.Failed("cannot_listen", text, advice) from None


async def _prepare(dsn: str, *, migrate: bool, sample: bool) -> None:
    if migrate:
        await migrations.migrate(dsn)
    elif pending := await migrations.pending(dsn):
        text = f"the database is not up to date, and --no-migrate leaves it as it is; pending: {', '.join(pending)}"
        raise say.Failed("migration_pending", text, "`journal migrate` applies them.")
    if not sample:
        return
    async with opened(dsn) as database:
        there = await heads.head_by_name(database, SAMPLE)
    if there is None or there.head == 0:
        with (files("journal") / "sample.ndjson").open("rb") as file:
            await record(dsn, SAMPLE, "ndjson", Lines(file, "the sample"))


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        import uvloop
    except ImportError:  # it is not for Windows
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(work)
        except asyncio.CancelledError:
            logging.disable()  # nobody asks what became of what was cut off
            raise typer.Exit(130) from None


async def _greet(service: Service, where: str, metrics: socket.socket | None) -> None:
    settings = service.settings
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    url = f"{_at(host, settings.port)}/v1"
    async with service.database.reading() as connection:
        version = connection.get_server_version()
    ask = await _something_to_ask(service, url)
    lines = [
        f"[bold]journal {journal.__version__}[/] on PostgreSQL {version.major}.{version.micro}{escape(where)}",
        f"  [green]{url}[/]" + (f", listening on {settings.host}" if host != settings.host else ""),
        f"  {escape(ask)}",
        f"  psql '{escape(without_password(settings.dsn))}'",
        "Ctrl-C stops it.",
    ]
    if service.access.is_open:
        lines.insert(-1, "Open: whoever reaches it may do everything. `journal token create` closes it.")
    if metrics is not None:
        lines.insert(-1, f"Metrics, for whoever asks there: {_at(*metrics.getsockname()[:2])}/metrics")
    for line in lines:
        say.out.print(line, soft_wrap=True)
    notify("READY=1")


def _at(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _something_to_ask(service: Service, url: str) -> str:
    bearer = "" if service.access.is_open else '-H "Authorization: Bearer $JOURNAL_TOKEN" '
    names = [there.journal for there in (await service.journals.page("", 1, OPEN)).journals]
    if not names:
        return f"curl {bearer}-X PUT {url}/journals/first"
    head = await heads.head_by_name(service.database, SAMPLE) or (await service.journals.tail(names[0])).head
    return f"curl {bearer}'{url}/journals/{head.journal}/deltas?since={max(head.head - 12, 0)}'"


def _can_trace() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even what is above it is there
        return False


def _stopping() -> None:
    notify("STOPPING=1")
    text = "stopping; a second time: at once"
    if any(isinstance(handler.formatter, Json) for handler in logging.getLogger().handlers):
        _log.warning(text)  # each line on stderr is for a program
    else:
        say.note(text)
