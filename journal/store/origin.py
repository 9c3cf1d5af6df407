"""Origin: whose work it is that PostgreSQL does, as `application_name` says it in pg_stat_activity and its log.

The rule: it never costs a round trip where many pass. Where a transaction is begun, and where a group is recorded, the
name goes along; single statements of readers bear the pool's name alone (docs/architecture.md, Watching).
"""

import re
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
LONGEST = 63  # PostgreSQL cuts there
_UNSOUND = re.compile(r"[^A-Za-z0-9_.:+/=@-]")


def named(role: str, request_id: str, others: int = 0) -> str:
    """The name of what is done for a request, and for so many others with it. It never needs to be quoted."""
    if not request_id:
        return f"journal {role}"
    more = f" +{others}" if others else ""
    sound = _UNSOUND.sub("_", request_id)
    return f"journal {role} {sound[: LONGEST - len(role) - len(more) - 9]}{more}"


def own(role: str) -> str:
    """The name of what is done for the request that is being answered here, if one is."""
    return named(role, REQUEST_ID.get(""))
