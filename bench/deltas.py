"""Everything since: against a table with `updated_at`, and, for few atoms that change often, against reading them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bench.load import Fetched, Reader, get
from bench.place import Place, connected, serving
from bench.rows import Row, ratio

HOT = 100
TOGETHER = 10
NDJSON = "application/x-ndjson"


async def rows(at: Place) -> list[Row]:
    """Time to the last byte, and bytes, of 10 k and of 100 k changes."""
    atoms, changes = (20_000, 200_000) if at.is_quick else (100_000, 1_000_000)
    await _fill(at, atoms, changes)
    found: list[Row] = []
    with serving("journal", at) as journal, serving("naive", at) as naive:
        mine, theirs = Reader(journal.port), Reader(naive.port)
        wide, hot = await at.cursors("wide"), await at.cursors("hot")

        asked: dict[str, Asked] = {
            "": Asked(mine, lambda since: get(_deltas("wide", wide[since])), _of_json),
            " as lines": Asked(mine, lambda since: get(_deltas("wide", wide[since]), Accept=NDJSON), _of_ndjson),
            "naive": Asked(theirs, lambda since: get(f"/since/{since}"), _of_naive),
        }
        for window, times in ((10_000, 25), (100_000, 9)):
            taken = _in_turn(asked, changes - window, at.rounds if at.is_quick else times)
            told = f"{window // 1000} k changes"
            for form in ("", " as lines"):
                a, b = taken[form], taken["naive"]
                found += [
                    ratio("deltas", told + form, "naive", "ms", _ms(a), _ms(b), at_most=1.0),
                    ratio("deltas", f"{told}{form}, size", "naive", "kB", _kilobytes(a), _kilobytes(b), at_most=0.5),
                ]
        asked = {
            "hot": Asked(mine, lambda since: get(_deltas("hot", hot[since])), _of_json),
            "rows": Asked(theirs, lambda _: get("/rows"), _of_naive),
        }
        taken = _in_turn(asked, atoms + 1000, 20 if at.is_quick else 100)
        told = f"100 k changes on {HOT} atoms"
        found.append(
            ratio("deltas", told, f"{HOT} rows by key", "ms", _ms(taken["hot"]), _ms(taken["rows"]), at_most=10)
        )
        mine.close()
        theirs.close()
    return found


async def _fill(at: Place, atoms: int, changes: int) -> None:
    async with connected(at.dsn) as connection:
        await connection.execute("call bench.fill('wide', $1, $2, $1, $3, true)", atoms, changes, TOGETHER)
        await connection.execute("call bench.fill_naive('wide')")
        await connection.execute("call bench.fill('hot', $1, $2, $3, $4, true)", atoms, atoms + 100_000, HOT, TOGETHER)
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")


def _deltas(journal: str, cursor: str) -> str:
    return f"/v1/journals/{journal}/deltas?since={cursor}&limit=100000"


class Asked(msgspec.Struct, frozen=True):
    """Whom to ask, what, given the revision to begin after, and how to read the atoms out of the answer."""

    reader: Reader
    request: Callable[[int], bytes]
    read: Callable[[bytes], set[str]]


def _in_turn(asked: dict[str, Asked], since: int, times: int) -> dict[str, list[Fetched]]:
    """Each in turn, so many times, each time one commit earlier: the service keeps answers, and shall not here.

    The first time, which is not counted, all must tell of the same atoms.
    """
    told = [one.read(one.reader.fetch(one.request(since)).body) for one in asked.values()]
    assert told[0], "nothing was told"
    assert all(atoms == told[0] for atoms in told), [len(atoms) for atoms in told]
    taken: dict[str, list[Fetched]] = {name: [] for name in asked}
    for place in range(1, times + 1):
        for name, one in asked.items():
            fetched = one.reader.fetch(one.request(since - TOGETHER * place))
            assert fetched.status == 200
            taken[name].append(fetched)
    return taken


def _ms(taken: Sequence[Fetched]) -> list[float]:
    return [1000 * fetched.seconds for fetched in taken]


def _kilobytes(taken: Sequence[Fetched]) -> list[float]:
    return [len(fetched.body) / 1000 for fetched in taken]


def _of_json(body: bytes) -> set[str]:
    told: dict[str, Any] = msgspec.json.decode(body)
    assert not told["more"]
    return {delta["atom"] for delta in told["deltas"]}


def _of_ndjson(body: bytes) -> set[str]:
    _, *deltas, last = body.splitlines()
    assert msgspec.json.decode(last)["end"]
    return {msgspec.json.decode(delta)["atom"] for delta in deltas}


def _of_naive(body: bytes) -> set[str]:
    return {row["id"] for row in msgspec.json.decode(body)}
