"""Callers for tests: tokens that are made as `journal token create` makes them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from journal.core.grants import Grant, Permission
from journal.service.access import new_token
from journal.store import doors
from journal.store.database import Database
from tests.harness import Harness, Reply


class Bearer:
    """Somebody with a token, or with none (`text` None), who talks to a service."""

    def __init__(self, service: Harness, text: str | None, number: int = 0) -> None:
        self.service, self.text, self.number = service, text, number

    async def call(self, method: str, path: str, **arguments: Any) -> Reply:
        """Any request, as `Harness.call`, with the token."""
        headers = dict(arguments.pop("headers", {}))
        if self.text is not None:
            headers["Authorization"] = f"Bearer {self.text}"
        return await self.service.call(method, path, headers=headers, **arguments)


async def bearer(service: Harness, *grants: Grant, name: str = "test", ends_in_s: float | None = None) -> Bearer:
    """Somebody who was given these grants."""
    text, hash_ = new_token(is_operators=any("operate" in grant.can for grant in grants))
    ends_at = None if ends_in_s is None else datetime.now(UTC) + timedelta(seconds=ends_in_s)
    number = await doors.make(database_of(service), hash_, name, grants, by="a test", expires_at=ends_at)
    await service.service.access.begin()  # not to wait for the notification
    return Bearer(service, text, number)


def may(*can: Permission, journal: str = "demo", of: str | None = None) -> Grant:
    """A grant; `of`: collections, with commas between."""
    return Grant(journal, frozenset(can), None if of is None else frozenset(of.split(",")))


def database_of(service: Harness) -> Database:
    """The connections of a service in this process."""
    return service.service.database
