"""The version before the last migration: what its processes go on calling while this one migrates, and afterwards.

`python -m tests.before` keeps its SQL here, as git has it: to be run when a migration was added. The one rule: what is
kept is that version's own text, and is not touched.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent


def migrations() -> list[str]:
    """All of them, by name, in order."""
    return sorted(path.stem for path in (ROOT / "sql" / "migrations").iterdir())


def schema() -> Path:
    """The schema as the version before the last migration had it."""
    return KEPT / f"{migrations()[-1]}.schema.sql"


def queries() -> Path:
    """Its queries."""
    return KEPT / f"{migrations()[-1]}.queries.sql"


def commit() -> str | None:
    """The last commit without the last migration; None where there is no git, or not so far back."""
    added = _git("log", "--format=%H", "--diff-filter=A", "--", f"sql/migrations/{migrations()[-1]}.sql")
    if not added:
        return _git("rev-parse", "HEAD")  # it is not committed yet
    return _git("rev-parse", "--verify", "--quiet", f"{added.split()[0]}^")


def tree(folder: Path) -> bool:
    """That version's files, in a folder; False where git does not have them."""
    found = commit()
    if found is None:
        return False
    archive = subprocess.run(["git", "archive", found], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return True


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
