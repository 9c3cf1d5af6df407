"""Questions that the command line asks: Ctrl-C ends them, whenever it comes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from journal.cli import say


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A terminal at which nothing is typed, and an end of patience instead of a test that hangs."""
    outer, inner = os.openpty()
    with os.fdopen(inner, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = signal.signal(signal.SIGALRM, _gives_up)
        signal.alarm(5)
        yield
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    os.close(outer)


def _gives_up(*_: object) -> None:
    raise TimeoutError("Ctrl-C did not end the question")


def _asked(interrupt: Callable[[], None]) -> None:
    async def command() -> None:
        interrupt()
        say.confirmed("Go on?", yes=False)

    asyncio.run(command())


@pytest.mark.usefixtures("nobody_answers")
def test_ctrl_c_as_the_question_appears_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(say.err, "print", lambda *_, **__: signal.raise_signal(signal.SIGINT))

    with pytest.raises(KeyboardInterrupt):
        _asked(lambda: None)


@pytest.mark.usefixtures("nobody_answers")
def test_ctrl_c_just_before_the_question_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        _asked(lambda: signal.raise_signal(signal.SIGINT))
