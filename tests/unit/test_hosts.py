"""The hosts of a DSN, where it names several."""

import pytest

from journal.store.servers import several_hosts


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@one:5433,two/db?target_session_attrs=primary", [("one", 5433), ("two", 5432)]),
        ("postgresql://one,two:6000,three/db", [("one", 5432), ("two", 6000), ("three", 5432)]),
        ("postgresql://u@[::1]:5433,[fe80::1]/db", [("::1", 5433), ("fe80::1", 5432)]),
        ("postgresql:///db?host=one,two&port=5433,5434", [("one", 5433), ("two", 5434)]),
        ("postgresql:///db?host=/run/a,/run/b&port=5433", [("/run/a", 5433), ("/run/b", 5433)]),
        ("postgresql:///db?host=one,two", [("one", 5432), ("two", 5432)]),
    ],
)
def test_each_host_has_its_port(dsn: str, hosts: list[tuple[str, int]]) -> None:
    assert several_hosts(dsn) == hosts


@pytest.mark.parametrize(
    "dsn",
    ["", "postgresql://", "postgresql://u@one:5433/db", "postgresql:///db?host=/run/postgresql", "postgres:///db"],
)
def test_where_there_is_one_asyncpg_finds_it(dsn: str) -> None:
    assert several_hosts(dsn) == []
