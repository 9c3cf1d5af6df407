"""The queries of sql/queries, by name: the text after `prepare NAME (TYPES) as`.

Every file there runs under psql as it stands, so that a query can be explained as the service runs it. The types
that a query declares are put to its parameters as casts, since asyncpg prepares text without a list of types.
"""

import re
from importlib.resources import files

SQL = files("journal") / "sql"
_PREPARE = re.compile(r"^prepare (\w+)\s*(?:\(([^)]*)\))? as\n(.*?);$", re.M | re.S)


def _load() -> dict[str, str]:
    texts = (file.read_text() for file in (SQL / "queries").iterdir() if file.name.endswith(".sql"))
    return {match[1]: _cast(match[3], match[2]) for text in texts for match in _PREPARE.finditer(text)}


def _cast(query: str, declared: str | None) -> str:
    types = [name.strip() for name in (declared or "").split(",")]
    return re.sub(r"\$(\d+)", lambda match: f"{match[0]}::{types[int(match[1]) - 1]}", query)


QUERY = _load()
