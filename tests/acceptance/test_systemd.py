"""The unit for systemd: systemd understands it, finds it shut in, and is told when the service serves."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT, ended, start

UNIT = ROOT / "docs" / "journal.service"
MOST_EXPOSED = 20  # of 100, as systemd counts


@pytest.fixture
def systemd_analyze(tmp_path: Path) -> Any:
    """Runs systemd-analyze on the unit, as installed with this environment's program."""
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is not installed: on Debian, apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    text = UNIT.read_text()
    assert text.count("/opt/journal/bin/journal") == 1
    unit = tmp_path / "journal.service"
    unit.write_text(text.replace("/opt/journal/bin/journal", str(Path(sys.executable).with_name("journal"))))

    def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([program, *words, str(unit)], check=False, capture_output=True, text=True, timeout=60)

    return analyze


def test_systemd_understands_the_unit(systemd_analyze: Any) -> None:
    told = systemd_analyze("verify", "--man=no")

    assert (told.returncode, told.stderr) == (0, "")


def test_systemd_finds_it_shut_in(systemd_analyze: Any) -> None:
    told = systemd_analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}")

    assert told.returncode == 0, told.stdout[-200:]


async def test_systemd_is_told_when_it_serves_and_when_it_stops(database: str, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()

        served = await start(
            "serve", "--no-migrate", "--dsn", database, "--data", tmp_path, "--port", "0", NOTIFY_SOCKET=str(path)
        )
        async with asyncio.timeout(30):
            ready = await loop.sock_recv(systemd, 100)
        served.terminate()
        async with asyncio.timeout(30):
            stopping = await loop.sock_recv(systemd, 100)
        stopped = await ended(served)

    assert (ready, stopping, stopped.code) == (b"READY=1", b"STOPPING=1", 0)
