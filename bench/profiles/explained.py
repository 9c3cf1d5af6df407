"""What PostgreSQL does: the plans of the queries that requests run, as run, and what journal.append spends on what.

On the journal `wide` of bench/fill.sql. Queries are executed as sql/queries prepares them and as the service's pools
are set. PostgreSQL explains no statement within a function, and auto_explain is not in every installation: so a copy of
journal.append is made from its own text that takes the time after each statement, and another that explains each. What
they record is rolled back.
"""

import re
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from bench.batch import _INSERT, _UPDATE
from bench.place import Place, connected
from journal.config import Limits
from journal.core.model import PushChange
from journal.service.group import Asked, Group
from journal.service.tails import Tail
from journal.store import heads, record
from journal.store.database import PLANNED_ONCE
from journal.store.queries import QUERY, SQL

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = Any

TIMES = 30
GROUPS = {"1 push of 1 insert": (1, 1), "32 pushes of 1 insert": (32, 1), "1 push of 1000 inserts": (1, 1000)}
UPDATES = "1 push of 1000 updates of two fields"

PLANS: dict[str, Sequence[str]] = {
    "deltas": (
        "page_end({j}, {ten}, 10000, null)",
        "delta_lines({j}, {ten}, {ten}, {head}, null, null, false)",
        "delta_lines({j}, {hundred}, {hundred}, {head}, null, null, false)",
        "delta_lines({j}, {ten}, {ten}, {head}, array[2], null, false)",
    ),
    "atom": ("atom_now({j}, {k}, {atom})", "atom_history({j}, {k}, {atom}, {head}, 100)"),
    "snapshot": ("snapshot_lines({j}, null)", "head_by_name('wide')"),
    "push": (
        "chains_at(array[{j}], array[{ten}])",
        f"floors_after({{j}}, {{ten}}, array['{'0' * 32}'::uuid])",
        "atoms_named(array[{j}], array[{k}], array[{atom}])",
        "atoms_named(array_fill({j}, array[1000]), {ks}, {atoms})",
    ),
}
SEEN = {
    "deltas": """A page is one look at the atoms that changed: by the index atom_revision, or in the whole table
where they are most of it. That is the smaller part of the time; the larger is between the scan and the join above
it: there each line is put together. A hundred thousand lines are sorted on disk, since work_mem is PostgreSQL's own
4 MB.""",
    "atom": """An atom and the commit that it comes from are two looks into primary keys. Its history is a walk: one
look into change_pkey for each change before, and one into commit_pkey for who made it, whatever the size of the
record.""",
    "snapshot": """A snapshot reads the atoms of the journal once and joins their collections' names. Reading is the
smaller part; the rest is putting the lines together. The head, with its collections, is a few pages.""",
    "push": """What a push is decided on are single looks into primary keys, by plans that were made once. A
thousand atoms are four pages each, three of them of the index.""",
    "append": """A group of one pays for nine statements, each most of its time before the first row. With 32 pushes
the state (row, jsonb and arrays, two indexes) is a third and commits and changes a fifth each; with 1000 inserts
the state is nearly two thirds. An update costs the state over twice an insert: its revision is indexed, so both
indexes are written. Nothing here reads a table whole.""",
}


async def explained(at: Place, name: str) -> str:
    """The plans of some queries, or what journal.append spends, as text."""
    plans = await _append(at) if name == "append" else await _queries(at, name)
    return f"\n{SEEN[name]}\n\n\n{plans}"


async def _queries(at: Place, name: str) -> str:
    async with connected(at.dsn) as connection:
        if name == "push":
            await _set(connection, PLANNED_ONCE)
        for file in sorted((SQL / "queries").iterdir(), key=lambda file: file.name):
            await connection.execute(file.read_text())
        row = await connection.fetchrow(_PLACES, 100_000 // 10 if at.is_quick else 100_000)
        assert row is not None
        told = []
        for call in PLANS[name]:
            statement = f"execute {call.format(**row)}"
            await connection.execute(statement)  # so that what it reads is in memory
            told.append(f"{call.format(**_short(row))}\n\n{await _plan(connection, statement)}")
    return "\n\n\n".join(told)


_PLACES = """
select j.id as j, h.head, h.head - 10000 as ten, h.head - $1 as hundred,
       a.collection_id as k, quote_literal(a.atom) as atom, m.ks, m.atoms
  from journal.journal j
  join journal.head h on h.journal_id = j.id
  join journal.atom a on a.journal_id = j.id and a.revision = h.head
 cross join lateral (
   select quote_literal(array_agg(a.collection_id)) || '::int[]' as ks,
          quote_literal(array_agg(a.atom)) || '::text[]' as atoms
     from (select a.collection_id, a.atom from journal.atom a where a.journal_id = j.id and a.born % 97 = 0
            order by a.born limit 1000) a) m
 where j.name = 'wide'"""


def _short(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "ks": "a thousand", "atoms": "their names"}


async def _plan(connection: Connection, statement: str) -> str:
    rows = await connection.fetch(f"explain (analyze, buffers) {statement}")
    return "\n".join(row[0] for row in rows)


async def _set(connection: Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        await connection.execute("select set_config($1, $2, false)", name, value)


# journal.append, statement by statement.

_FUNCTION = (SQL / "functions" / "append.sql").read_text()
_STATEMENT = re.compile(
    r"^ +(?:(?:insert into|update|perform)\b.*?;[^\n]*$|if exists \(.*?^  end if;$)", re.MULTILINE | re.DOTALL
)
_COUNTED = re.compile(r"^ +get diagnostics.*?end if;\n", re.MULTILINE | re.DOTALL)
STATEMENTS = [match[0] for match in _STATEMENT.finditer(_FUNCTION)]


def _renamed(name: str, text: str, declared: str) -> str:
    text = text.replace("function journal.append(", f"function bench.{name}(").replace("declare\n", declared, 1)
    return text.replace("  return at_;\n", "  perform set_config('bench.told', told_::text, false);\n  return at_;\n")


def _timed() -> str:
    """A copy that notes the time at its beginning and after each statement."""
    lap = "told_ := told_ || array[{}, 1e6 * extract(epoch from clock_timestamp())]::float8[];"
    place = iter(range(len(STATEMENTS)))
    text = _STATEMENT.sub(lambda match: f"{match[0]}\n{lap.format(next(place))}", _FUNCTION)
    text = text.replace("\nbegin\n", f"\nbegin\n{lap.format(-1)}\n", 1)
    return _renamed("append_timed", text, "declare\n  told_ float8[] = '{}';\n")


def _explaining() -> str:
    """A copy that explains each of its statements while it runs it."""

    def explaining(match: re.Match[str]) -> str:
        query = match[0].strip().partition("  --")[0].removesuffix(";")
        if query.startswith("if exists"):
            query = "select" + query.removeprefix("if").partition("\n  then")[0]
        query = re.sub(r"^perform\b", "select", query)
        loop = f"for line_ in explain (analyze, buffers, timing off) {query} loop"
        return f"{loop} told_ := told_ || line_ || e'\\n'; end loop;"

    text = _STATEMENT.sub(explaining, _COUNTED.sub("", _FUNCTION))
    text = text.replace("\nbegin\n", "\nbegin\ntold_ := '';\n", 1)
    return _renamed("append_explaining", text, "declare\n  told_ text;\n  line_ text;\n")


async def _append(at: Place) -> str:
    async with connected(at.dsn) as connection:
        await _set(connection, PLANNED_ONCE)
        await connection.execute(_timed())
        await connection.execute(_explaining())
        arguments = {what: await _arguments(connection, _inserts(*of)) for what, of in GROUPS.items()}
        arguments[UPDATES] = await _arguments(connection, await _updates(connection))
        spent = {what: await _spent(connection, given) for what, given in arguments.items()}
        plans = {
            what: await _told(connection, "append_explaining", arguments[what])
            for what in ("32 pushes of 1 insert", UPDATES)
        }
    return "\n\n\n".join([_table(spent), *(f"{what}\n\n{plan.strip()}" for what, plan in plans.items())])


def _inserts(pushes: int, changes: int) -> list[Asked]:
    return [
        Asked("wide", [PushChange("insert", "todo", f"new-{push}-{n}", _INSERT) for n in range(changes)])
        for push in range(pushes)
    ]


async def _updates(connection: Connection) -> list[Asked]:
    rows = await connection.fetch(
        """select k.name, a.atom from journal.journal j
             join journal.atom a on a.journal_id = j.id
             join journal.collection k on k.journal_id = j.id and k.id = a.collection_id
            where j.name = 'wide' and not a.deleted order by hashint8(a.born) limit 1000"""
    )
    changes = [PushChange("update", row["name"], row["atom"], _UPDATE % (1000 + n)) for n, row in enumerate(rows)]
    return [Asked("wide", changes, on_conflict="client")]


async def _arguments(connection: Any, asked: list[Asked]) -> list[Any]:
    """What journal.append is given for a group, decided by the service's own code."""
    head = await heads.head_by_id(connection, await connection.fetchval(_WIDE))
    assert head is not None
    group = Group(Limits(), {"wide": Tail(head)}, is_locked=True)
    await group.take(connection, asked)
    group.seal()
    assert len(group.recording.atoms) == sum(len(one.changes) for one in asked)
    return record._arguments(group.recording)


_WIDE = "select id from journal.journal where name = 'wide'"


async def _told(connection: Connection, function: str, arguments: list[Any]) -> str:
    """What a copy has told of one call, which is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval(QUERY["append"].replace("journal.append(", f"bench.{function}("), *arguments)
    told: str = await connection.fetchval("select current_setting('bench.told')")
    await transaction.rollback()
    return told


async def _spent(connection: Connection, arguments: list[Any]) -> list[float]:
    """The median of some calls, in µs a statement; 0 for those that were not run."""
    laps: list[list[float]] = [[] for _ in STATEMENTS]
    for _ in range(TIMES):
        numbers = msgspec.json.decode((await _told(connection, "append_timed", arguments)).translate(_AS_JSON))
        for (_, before), (place, moment) in zip(_pairs(numbers), _pairs(numbers)[1:], strict=False):
            laps[int(place)].append(moment - before)
    return [median(taken) if taken else 0.0 for taken in laps]


_AS_JSON = str.maketrans("{}", "[]")


def _pairs(numbers: list[float]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _table(spent: dict[str, list[float]]) -> str:
    """Statements down, groups across."""
    lines = ["µs of a statement, and of what is between it and the last; medians of {TIMES} calls", ""]
    lines[0] = lines[0].format(TIMES=TIMES)
    lines += [f"{place:>10}  {what}" for place, what in zip("ABCD", spent, strict=True)]
    lines += ["", "".join(f"{place:>10}" for place in "ABCD")]
    for place, statement in enumerate(STATEMENTS):
        told = " ".join(statement.split())
        lines.append("".join(f"{taken[place]:10.0f}" for taken in spent.values()) + f"  {told[:78]}")
    lines.append("".join(f"{sum(taken):10.0f}" for taken in spent.values()) + "  all")
    return "\n".join(lines)
