"""Single pushes: against the same handler without a database, and against a transaction for each."""

from collections.abc import Callable
from itertools import count
from uuid import UUID

from bench.load import Ask, Load, Served, closed_loop, post
from bench.place import Place, serving
from bench.rows import Row, figure, ratio

CONNECTIONS = 64
Variant = Callable[[str], list[Ask]]


async def rows(at: Place) -> list[Row]:
    """Pushes of one insert each, without numbers and with."""
    found: list[Row] = []
    with serving("journal", at) as journal, serving("memory", at) as memory, serving("single", at) as single:
        servers = {"journal": journal, "memory": memory, "single": single}
        variants: dict[str, Variant] = {"single pushes": plain(), "numbered pushes": numbered()}
        for name, server in servers.items():
            await at.create(name)
            for variant in variants.values():
                await _round(at, server, name, variant, 0.3)
        for what, variant in variants.items():
            taken: dict[str, list[Load]] = {name: [] for name in servers}
            for _ in range(at.rounds):
                for name, server in servers.items():
                    taken[name].append(await _round(at, server, name, variant, at.seconds))
            rates = {name: [load.rate for load in loads] for name, loads in taken.items()}
            cpu = {name: [load.cpu_us for load in loads] for name, loads in taken.items()}
            p99 = [load.p99_ms for load in taken["journal"]]
            found += [
                ratio("push", what, "no database", "/s", rates["journal"], rates["memory"], at_least=0.5),
                ratio("push", what, "a transaction each", "/s", rates["journal"], rates["single"], at_least=8),
                figure("push", f"{what}, p99", "ms", p99, at_most=8),
                ratio("push", f"{what}, CPU of the process", "no database", "µs", cpu["journal"], cpu["memory"]),
            ]
    return found


async def _round(at: Place, server: Served, journal: str, variant: Variant, seconds: float) -> Load:
    """One round; every push must have been taken, and the head must have moved by as many revisions."""
    before = await at.head(journal)
    load = await closed_loop(server, variant(journal), seconds=seconds)
    assert load.statuses == {200: load.requests}, load.statuses
    assert await at.head(journal) - before == (0 if journal == "memory" else load.requests)
    return load


def plain() -> Variant:
    """Inserts of atoms that were never seen; about 120 bytes each."""
    numbers = count(1)

    def asks(journal: str) -> list[Ask]:
        head, tail = _around(
            journal,
            b'{"changes":[{"op":"insert","collection":"todo","atom":"%s","data":{"title":"rings","cost":310}}]}',
        )
        return [lambda _: b"%b%016x%b" % (head, next(numbers), tail)] * CONNECTIONS

    return asks


def numbered() -> Variant:
    """The same, each connection a client that numbers its pushes."""
    numbers = count(1 << 40)
    pushes = [count(1 << 20) for _ in range(CONNECTIONS)]

    def asks(journal: str) -> list[Ask]:
        return [
            _of_client(journal, UUID(int=(1 << 100) + place), pushes[place], numbers) for place in range(CONNECTIONS)
        ]

    return asks


def _of_client(journal: str, client: UUID, pushes: "count[int]", numbers: "count[int]") -> Ask:
    text = (
        b'{"client":"%s","push":1048576,"changes":'
        b'[{"op":"insert","collection":"todo","atom":"%%s","data":{"title":"rings","cost":310}}]}'
    )
    head, tail = _around(journal, text % str(client).encode())
    head, middle = head.split(b"1048576")
    return lambda _: b"%b%d%b%016x%b" % (head, next(pushes), middle, next(numbers), tail)


def _around(journal: str, body: bytes) -> tuple[bytes, bytes]:
    """A request's bytes before and after the sixteen hex digits that stand for %s."""
    head, tail = post(f"/v1/journals/{journal}/changes", body.replace(b"%s", b"~" * 16)).split(b"~" * 16)
    return head, tail
