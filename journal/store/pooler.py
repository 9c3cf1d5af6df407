"""Connections through a pooler in transaction mode (PgBouncer): nothing has a name, no setting outlives a transaction.

The next transaction may be on another connection to PostgreSQL, where a prepared statement of ours is not, or one of
somebody else's has its name. Where it caches nothing asyncpg prepares without a name, except for cursors: here they do
too.
"""

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Base = asyncpg.Connection[asyncpg.Record]
else:
    Base = asyncpg.Connection

# What a pooler lets through when a connection begins; all else is set where it is needed.
STARTUP = ("application_name", "timezone")


class ThroughPooler(Base):
    """A connection through a pooler, opened with `statement_cache_size=0`."""

    def cursor(self, query: str, *args: object, prefetch: int | None = None, **options: Any) -> Any:
        """The same as asyncpg's, on a statement without a name."""
        return _Cursor(self, query, args, prefetch, options)


class _Cursor:
    def __init__(
        self,
        connection: ThroughPooler,
        query: str,
        args: tuple[object, ...],
        prefetch: int | None,
        options: dict[str, Any],
    ) -> None:
        self._connection, self._query, self._args = connection, query, args
        self._prefetch, self._options = prefetch, options

    def __await__(self) -> Generator[Any, None, Any]:
        return self._opened().__await__()

    async def _opened(self) -> Any:
        statement = await self._connection.prepare(self._query, **self._options)
        return await statement.cursor(*self._args)

    async def __aiter__(self) -> AsyncIterator[Any]:
        statement = await self._connection.prepare(self._query, **self._options)
        async for row in statement.cursor(*self._args, prefetch=self._prefetch):
            yield row
