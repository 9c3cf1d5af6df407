"""Those who take part in a proof: a service that can be killed, writers, and a reader who follows by its cursor.

Each is a thread of its own with a connection of its own. A writer that is not answered sends the same bytes again until
it is; what it was told stands in the ledger, and nothing else does.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.load import Fetched, Reader
from bench.peers.driver import Driver, Sender, Told, killed

PAUSE_S = 0.003  # between two polls, and before a request is sent again
PATIENCE_S = 30.0
Writes = Sequence[tuple[str, dict[str, str]]]


class Unanswered(Exception):
    """No answer came: nobody knows whether the request was carried out."""


class Service:
    """A peer's processes; after `kill` others in their place."""

    def __init__(self, driver: Driver, configuration: str, dsn: str, folder: Path) -> None:
        self.driver, self.configuration, self.dsn, self.folder = driver, configuration, dsn, folder
        self._stack = ExitStack()
        self._start()

    def _start(self) -> None:
        self._served = self._stack.enter_context(self.driver.serving(self.configuration, self.dsn, self.folder))

    @property
    def port(self) -> int:
        """Where it listens now."""
        return self._served.port

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does; then start it again."""
        killed(self._served)
        self._stack.close()
        self._start()

    def stop(self) -> None:
        """End it."""
        self._stack.close()


class Line:
    """A connection that is made again when it broke."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reader: Reader | None = None

    def ask(self, request: bytes) -> Fetched:
        """One answer; Unanswered if none came, or one that leaves it open what was done."""
        try:
            if self._reader is None:
                self._reader = Reader(self._service.port)
            fetched = self._reader.fetch(request)
        except OSError as error:
            self.close()
            raise Unanswered from error
        if fetched.status >= 500:
            self.close()
            raise Unanswered(fetched)
        if b"\r\nConnection: close" in fetched.head:
            self.close()
        return fetched

    def lose(self, request: bytes) -> None:
        """Ask, and hang up when the answer comes, as a phone does that goes into a tunnel."""
        try:
            with socket.create_connection(("127.0.0.1", self._service.port), timeout=PATIENCE_S) as connection:
                connection.sendall(request)
                connection.recv(1)
        except OSError:
            return

    def close(self) -> None:
        """Hang up."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


class Ledger:
    """What writers were told: the key of each acknowledged write with its atom. A key is set once, by one writer."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused = 0


class Writer:
    """Sends numbered pushes where a peer knows them, until told to stop."""

    def __init__(self, service: Service, space: str, ledger: Ledger) -> None:
        self.space, self.ledger, self.driver = space, ledger, service.driver
        self.sender = Sender(str(uuid4()))
        self._line = Line(service)

    def write(self, writes: Writes, *, meanwhile: Callable[[], None] | None = None) -> None:
        """Until it is answered. With `meanwhile` the first answer gets lost; that happens, and then it asks again."""
        self.sender.push += 1
        request = self.driver.write(self.space, writes, self.sender)
        if meanwhile is not None:
            self._line.lose(request)
            meanwhile()
        taken = self.driver.taken(_answered(self._line, request).body)
        self.ledger.refused += len(writes) - sum(taken)
        for (atom, data), is_taken in zip(writes, taken or [False] * len(writes), strict=True):
            if is_taken:
                self.ledger.acknowledged[data["key"]] = atom

    def ask(self, request: bytes) -> Fetched:
        """Anything else."""
        return _answered(self._line, request)

    def close(self) -> None:
        """Hang up."""
        self._line.close()


class Tail:
    """A reader from the start on, who keeps a copy and every key that it ever saw; as a context, it follows within."""

    def __init__(self, service: Service, space: str) -> None:
        self.space, self.driver = space, service.driver
        self.copy: dict[str, Any] = {}
        self.seen: set[str] = set()
        self.polls = 0
        self._line = Line(service)
        self._cursor = ""
        self._is_over = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Tail":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._line.close()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:
            self._failed = error

    def _follow(self) -> None:
        """Until it is over, and then until three polls in a row had nothing to tell."""
        quiet = 0
        while quiet < 3:
            is_over = self._is_over.is_set()
            told = self._poll()
            quiet = quiet + 1 if is_over and not told.changes else 0
            time.sleep(PAUSE_S)

    def _poll(self) -> Told:
        fetched = _answered(self._line, self.driver.since(self.space, self._cursor))
        told = self.driver.told(self.space, fetched, self._cursor)
        for atom, data in told.changes:
            self.copy.pop(atom, None)
            if data is not None:
                self.copy[atom] = data
                self.seen.add(data["key"])
        self._cursor = told.cursor
        self.polls += 1
        return told


def everything(service: Service, space: str) -> dict[str, Any]:
    """What the server has, read from the start by somebody new."""
    line, cursor, more, copy = Line(service), "", True, dict[str, Any]()
    while more:
        told = service.driver.told(space, _answered(line, service.driver.since(space, cursor)), cursor)
        copy |= told.changes
        cursor, more = told.cursor, told.more
    line.close()
    return {atom: data for atom, data in copy.items() if data is not None}


def _answered(line: Line, request: bytes) -> Fetched:
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return line.ask(request)
        except Unanswered:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)
