"""The image and compose.yaml, run as docs/operations.md says: `make test-container` makes the images that this takes.

Elsewhere it is skipped, since no registry need be reachable and nothing is pulled. Where JOURNAL_TEST_PYTHON_IMAGE
names what the image is made from, it runs or fails.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from tests.command import ROOT
from tests.harness import Json, eventually, insert

BASE = os.environ.get("JOURNAL_TEST_PYTHON_IMAGE", "")
POSTGRES = os.environ.get("JOURNAL_TEST_IMAGE", "postgres:16-alpine")
MOST_MB = 160  # beside what it is made from
GRACE_S = 40

pytestmark = [
    pytest.mark.skipif(not BASE, reason="make test-container runs it: JOURNAL_TEST_PYTHON_IMAGE names no image"),
    pytest.mark.timeout(600),
]


def run(*words: str | Path, **options: Any) -> str:
    """What a program says, which must succeed."""
    done = subprocess.run([*map(str, words)], check=False, capture_output=True, text=True, timeout=500, **options)
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    said: str = done.stdout
    return said.strip()


def composer() -> list[str]:
    """Compose, as a plugin of Docker or by itself."""
    if subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode == 0:
        return ["docker", "compose"]
    found = shutil.which("docker-compose")
    assert found is not None, "there is no docker compose: on Debian, apt-get install docker-compose"
    return [found]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, made of packages that this machine's pip finds."""
    tag = f"journal-test-service:{uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("image")
    run(sys.executable, "-m", "pip", "wheel", "-q", "-w", folder / "wheels", ROOT, "hatchling>=1.27")
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY wheels /wheels\nENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
    )
    run("docker", "build", "-q", "-t", f"{tag}-build", folder)
    arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", f"BUILD_BASE={tag}-build")
    run("docker", "build", "-q", "-t", f"{tag}-stage", "--target", "build", *arguments, ROOT)  # or nobody removes it
    run("docker", "build", "-q", "-t", tag, *arguments, ROOT)
    yield tag
    run("docker", "rmi", "-f", tag, f"{tag}-stage", f"{tag}-build")


class Project:
    """compose.yaml as a project of its own."""

    def __init__(self, image: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = f"journaltest{uuid4().hex[:8]}"
        secrets = {name: uuid4().hex for name in ("POSTGRES_PASSWORD", "JOURNAL_SERVICE_PASSWORD")}
        settings = {"POSTGRES_IMAGE": POSTGRES, "JOURNAL_IMAGE": image, "JOURNAL_PORT": str(self.port)}
        file = folder / "env"
        file.write_text("".join(f"{name}={value}\n" for name, value in (secrets | settings).items()))
        self._words = [*composer(), "-p", self.name, "--env-file", str(file), "-f", str(ROOT / "compose.yaml")]
        self.token = ""

    def compose(self, *words: str) -> str:
        """A command of Compose's."""
        return run(*self._words, *words, stdin=subprocess.DEVNULL)

    def container(self, service: str = "journal") -> str:
        """A service's container."""
        return self.compose("ps", "-q", service)

    def inspected(self, service: str = "journal") -> Any:
        """What Docker says of it."""
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def inside(self, *words: str, service: str = "journal") -> str:
        """What a program in it says."""
        return run("docker", "exec", self.container(service), *words)

    def query(self, text: str) -> str:
        """What the database says to its owner."""
        return self.inside("psql", "-U", "journal", "-d", "journal", "-Atc", text, service="postgres")

    async def is_healthy(self) -> bool:
        """Whether Docker finds it so."""
        state = (await asyncio.to_thread(self.inspected))["State"]
        return bool(state["Health"]["Status"] == "healthy")

    def new_token(self, *may: str) -> str:
        """A token, made as the owner."""
        return self.compose("run", "--rm", "migrate", "token", "create", "--name", "test", *may)

    async def call(self, method: str, path: str, body: Json | None = None, token: str | None = None) -> tuple[int, Any]:
        """Ask the service, as an operator if as nobody else."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        url = f"http://127.0.0.1:{self.port}/v1{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, json=body, headers=headers) as reply,
        ):
            is_json = reply.content_type == "application/json"
            return reply.status, await (reply.json() if is_json else reply.text())


@pytest.fixture(scope="module")
async def project(image: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """It runs, step by step as it is written."""
    project = Project(image, tmp_path_factory.mktemp("project"))
    try:
        project.compose("run", "--rm", "migrate")
        project.token = project.new_token("--operator")
        project.compose("up", "-d", "--no-build")
        await eventually(project.is_healthy, seconds=90)
        yield project
    except BaseException:
        print(project.compose("logs", "--no-color")[-5000:])
        raise
    finally:
        project.compose("down", "-v", "--remove-orphans")


def test_the_image_is_small(image: str) -> None:
    whole, base = (int(run("docker", "image", "inspect", "-f", "{{.Size}}", tag)) for tag in (image, BASE))

    assert (whole - base) / 1e6 < MOST_MB


async def test_it_runs_as_nobody_that_matters_and_writes_only_to_its_spool(project: Project) -> None:
    status = project.inside("cat", "/proc/1/status").splitlines()
    told = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    known = project.inspected()

    assert told["Uid"].split() == ["10001"] * 4
    assert (told["CapEff"], told["CapBnd"], told["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert known["HostConfig"]["ReadonlyRootfs"] is True
    written = "for folder in / /tmp /opt/journal /data; do touch $folder/x 2>/dev/null && echo $folder; done; true"
    assert project.inside("sh", "-c", written) == "/data"
    assert project.inside("stat", "-c", "%a %u", "/data") == "700 10001"


async def test_postgresql_is_reached_from_nowhere_else_and_its_owner_serves_nobody(project: Project) -> None:
    ports = project.inspected("postgres")["NetworkSettings"]["Ports"]
    own = project.inspected()["NetworkSettings"]["Ports"]["8470/tcp"]
    users = project.query("select distinct usename from pg_stat_activity where application_name like 'journal %'")

    assert not any(ports.values())
    assert [place["HostIp"] for place in own] == ["127.0.0.1"]
    assert users == "journal_service"


async def test_p6_an_upgrade_is_another_container_and_loses_nothing(project: Project) -> None:
    assert (await project.call("PUT", "/journals/demo"))[0] == 201
    push = {"client": str(UUID(int=1)), "push": 1, "changes": [insert("todo", "a"), insert("todo", "b")]}
    phone = project.new_token("--journal", "demo", "--can", "read,write")
    first = await project.call("POST", "/journals/demo/changes", push, token=phone)
    snapshot = await project.call("GET", "/journals/demo/snapshot")
    before = project.container()

    project.compose("up", "-d", "--no-build", "--no-deps", "--force-recreate", "journal")
    await eventually(project.is_healthy, seconds=90)

    assert project.container() != before
    assert (first[0], snapshot[0]) == (200, 200)
    assert snapshot[1].count("\n") == 4
    again = await project.call("POST", "/journals/demo/changes", push, token=phone)
    assert again == (200, first[1] | {"replayed": True})
    told = (await project.call("GET", "/journals/demo/deltas?since=0"))[1]
    assert [delta["atom"] for delta in told["deltas"]] == ["a", "b"]


async def test_it_is_closed_to_who_has_no_token(project: Project) -> None:
    status, _ = await project.call("GET", "/journals", token="jc_none")

    assert status == 401


async def test_it_stops_within_its_grace_and_comes_back(project: Project) -> None:
    began = time.monotonic()
    project.compose("stop", "journal")
    took = time.monotonic() - began
    stopped = project.inspected()["State"]
    project.compose("start", "journal")
    await eventually(project.is_healthy, seconds=90)

    assert took < GRACE_S
    assert (stopped["ExitCode"], stopped["OOMKilled"]) == (0, False)
    assert (await project.call("GET", "/journals"))[0] == 200
