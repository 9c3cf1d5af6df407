"""The one PostgreSQL of a test session: a server named by DSN, a container, or the embedded one.

The one rule: whatever is chosen is real, says what it is, and a choice that was forced is never replaced by another.
"""

import asyncio
import gc
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import asyncpg
import docker  # type: ignore[import-untyped]
import msgspec
import pytest
from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient

from journal.store.embedded import EmbeddedUnavailable, running

Kind = Literal["dsn", "container", "embedded"]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL that a superuser's `dsn` leads to, and one line that describes it."""

    dsn: str
    kind: Kind
    describe: str


@contextmanager
def server() -> Iterator[Server]:
    """The server that JOURNAL_TEST_POSTGRES asks for, else the first of dsn, container and embedded to be had."""
    match os.environ.get("JOURNAL_TEST_POSTGRES", ""):
        case "":
            choice = _first_to_be_had()
        case "dsn":
            choice = _by_dsn()
        case "container":
            choice = _in_a_container()
        case "embedded":
            choice = _embedded()
        case other:
            raise pytest.UsageError(f"JOURNAL_TEST_POSTGRES is dsn, container or embedded, not {other}")
    with choice as found:
        yield found


@contextmanager
def _first_to_be_had() -> Iterator[Server]:
    if os.environ.get("JOURNAL_TEST_DSN"):
        choice = _by_dsn()
    else:
        obstacle = _obstacle(_image())
        choice = _embedded(instead_of_container=obstacle) if obstacle else _in_a_container()
    with choice as found:
        yield found


@contextmanager
def _by_dsn() -> Iterator[Server]:
    dsn = os.environ.get("JOURNAL_TEST_DSN")
    if not dsn:
        raise pytest.UsageError("JOURNAL_TEST_DSN is to name the PostgreSQL to test with")
    place = urlsplit(dsn)
    where = f"{place.hostname or ''}{place.path}" or "its default place"
    yield Server(dsn=dsn, kind="dsn", describe=f"PostgreSQL {_version(dsn)} at {where} (JOURNAL_TEST_DSN)")


@contextmanager
def _in_a_container() -> Iterator[Server]:
    image = _image()
    if obstacle := _obstacle(image):
        raise pytest.UsageError(f"tests in a container are not possible: {obstacle}")
    if not testcontainers_config.ryuk_disabled and _obstacle(testcontainers_config.ryuk_image):
        testcontainers_config.ryuk_disabled = True  # it only tidies up after a session that was killed
    testcontainers_config.sleep_time = 0.1

    container = PostgresContainer(image, username="journal", password="journal", dbname="journal", driver=None)
    container.with_command(["postgres", "-c", "max_connections=200"])
    # In memory: a test is a database of some 300 files, and what is proven here is not the disk.
    container.with_tmpfs_mount("/memory", "mode=0755").with_env("PGDATA", "/memory/data")
    # Parallel queries share memory, and Docker's 64 MB are soon full.
    container.with_kwargs(shm_size="256m")
    with container:
        dsn = container.get_connection_url()
        yield Server(dsn=dsn, kind="container", describe=f"PostgreSQL {_version(dsn)} in a container ({image})")


@contextmanager
def _embedded(*, instead_of_container: str = "") -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="journal-test-", dir=_in_memory()) as folder:
        Path(folder).chmod(0o711)  # where root runs the tests, the server is another user
        try:
            with running(Path(folder) / "data") as dsn:
                reason = f" ({instead_of_container})" if instead_of_container else ""
                yield Server(dsn=dsn, kind="embedded", describe=f"PostgreSQL {_version(dsn)} embedded{reason}")
        except EmbeddedUnavailable as error:
            raise pytest.UsageError(str(error)) from error


def _in_memory() -> str | None:
    """A folder in memory with room for a server, if there is one: what is proven here is not the disk."""
    memory = Path("/dev/shm")
    is_there = memory.is_dir() and os.access(memory, os.W_OK | os.X_OK)
    return str(memory) if is_there and shutil.disk_usage(memory).free > 4 << 30 else None


def _image() -> str:
    return os.environ.get("JOURNAL_TEST_IMAGE", "postgres:16-alpine")


def _obstacle(image: str) -> str:
    """Why the image cannot be run, "" if it can; one that is not here is pulled."""
    engine = _engine()
    if engine is None:
        return "no Docker engine answers"
    try:
        engine.images.get(image)
    except ImageNotFound:
        try:
            engine.images.pull(image)
        except (DockerException, OSError):
            return f"the Docker engine has no image {image} and cannot pull it"
    finally:
        engine.close()
    return ""


def _engine() -> docker.DockerClient | None:
    """A client of the Docker engine, if it answers; to be closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            return DockerClient().client
        except (DockerException, OSError):
            pass
        gc.collect()  # docker-py leaves the socket it could not connect, and under pytest a warning is an error
    return None


def _version(dsn: str) -> str:
    async def ask() -> str:
        connection = await asyncpg.connect(dsn, timeout=30)
        try:
            version: str = await connection.fetchval("select split_part(current_setting('server_version'), ' ', 1)")
            return version
        finally:
            await connection.close(timeout=5)

    with ThreadPoolExecutor(1) as apart:  # the caller's thread may be running a loop
        return apart.submit(asyncio.run, ask()).result()
