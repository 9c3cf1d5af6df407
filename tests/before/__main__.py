"""Keeps the SQL of the version before the last migration."""

import tempfile
from pathlib import Path

from tests import before

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    if not before.tree(folder):
        raise SystemExit("git does not have the version before the last migration")
    for kept in before.KEPT.glob("*.sql"):
        kept.unlink()
    before.schema().write_text((folder / "sql" / "schema.sql").read_text())
    texts = [path.read_text() for path in sorted((folder / "sql" / "queries").iterdir())]
    before.queries().write_text("\n".join(texts))
