"""docs/operations.md, "From nothing", as a stranger types it: a service behind tokens that is watched."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.command import ROOT, environment

SECTION = (ROOT / "docs" / "operations.md").read_text().partition("\n## From nothing\n")[2].partition("\n## ")[0]


def commands() -> str:
    """What it says to type, but for the installation, which is there."""
    block = re.search(r"```sh\n(.*?)```", SECTION, re.S)
    assert block is not None
    first, _, rest = block[1].partition("\n")
    assert first.startswith("make install && export PATH=")
    return rest


def free_port() -> int:
    """One that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def test_what_the_page_says_leads_from_nothing_to_a_service_behind_tokens_that_is_watched(tmp_path: Path) -> None:
    program = tmp_path / "journal"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m journal "$@"\n')
    program.chmod(0o755)
    settings = environment(
        JOURNAL_PORT=str(free_port()), METRICS_PORT=str(free_port()), PYTHONPATH=str(ROOT), HOME=str(tmp_path)
    ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    typed = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-c", commands() + "\nkill $!; wait $! || true", cwd=tmp_path, env=settings, stdin=PIPE,
        stdout=PIPE, stderr=STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(90):
            out, _ = await typed.communicate()
    except TimeoutError:
        os.killpg(typed.pid, signal.SIGTERM)
        raise

    said = out.decode()
    assert typed.returncode == 0, said
    assert '{"status":"ready"}' in said
    assert '"code":"unauthenticated"' in said
    assert '"journal":"demo","epoch":' in said
    assert re.search(r'^journal_ready\{worker="0"\} 1\.0$', said, re.M), said
    tokens = {name: (tmp_path / f"{name}.token").read_text().strip() for name in ("ops", "phone")}
    assert (tokens["ops"][:3], tokens["phone"][:3]) == ("jo_", "jc_")
    assert all((tmp_path / f"{name}.token").stat().st_mode & 0o077 == 0 for name in tokens)
    assert not any(secret in said or secret in (tmp_path / "journal.log").read_text() for secret in tokens.values())
