"""Everything that goes wrong in a way that a caller can act on.

    JournalError
    ├── Stale                          a journal moved on between reading and recording (never leaves the service)
    └── RequestError                   becomes an answer: code and status are protocol, section 12
        ├── InvalidRequest        400  ├── NotAcceptable     406  ├── TooLarge          413
        │   └── BaseRequired      400  ├── TooSlow           408  ├── LineTooLong       414
        ├── Unauthenticated       401  ├── NotApplied        409  ├── UnsupportedMedia  415
        ├── Forbidden             403  ├── PushTooOld        409  ├── RangeImpossible   416
        │   └── ClientTaken       403  ├── ClientForgotten   409  ├── CannotExpect      417
        ├── NotFound              404  ├── ConflictSettled   409  ├── Misdirected       421
        │   └── JournalNotFound   404  ├── ConflictErased    409  ├── PushReused        422
        │       └── JournalGone   404  ├── AtomGone          409  ├── RateLimited       429
        └── MethodNotAllowed      405  ├── AtomExists        409  ├── HeadTooLarge      431
                                       └── ResyncRequired    410  └── Unavailable       503
                                                                      └── NoRoom        503

Facts are fields; the text is the docstring, which is the `title` that a caller reads.
"""

import errno
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with a request: an RFC 6901 pointer to it, what, and the limit it broke.

    A query parameter is pointed at as a member of an object of parameters: /since.
    """

    pointer: str
    detail: str
    limit: int | None = None


class JournalError(Exception):
    """Whatever this package raises on purpose."""


class Stale(JournalError):
    """A journal moved on between reading and recording."""


class RequestError(JournalError):
    """The request cannot be answered as asked."""

    code: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail

    @property
    def title(self) -> str:
        """The first line of the class's docstring."""
        return (self.__doc__ or "").partition("\n")[0].rstrip(".")

    def problem(self) -> dict[str, Any]:
        """The body that tells it (RFC 9457)."""
        known = {
            "type": f"urn:journal:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
        }
        return known | ({"detail": self.detail} if self.detail else {}) | self.members()

    def members(self) -> dict[str, Any]:
        """What the problem's body holds besides type, title, status, code and detail."""
        return {}

    def headers(self) -> dict[str, str]:
        """What the answer's head holds besides."""
        return {}


class InvalidRequest(RequestError):
    """The request is not well formed."""

    code, status = "invalid_request", 400

    def __init__(self, errors: Sequence[Fault]) -> None:
        super().__init__()
        self.errors = errors

    def members(self) -> dict[str, Any]:
        return {"errors": self.errors}


class BaseRequired(InvalidRequest):
    """A change needs a base, or if_data, or the policy client."""

    code = "base_required"


class Unauthenticated(RequestError):
    """Nobody is known by what was sent."""

    code, status = "unauthenticated", 401

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="journal"'}


class Forbidden(RequestError):
    """The caller may not do this."""

    code, status = "forbidden", 403


class ClientTaken(Forbidden):
    """This client's id belongs to another caller: it takes a new one."""

    code = "client_taken"


class NotFound(RequestError):
    """There is nothing here."""

    code, status = "not_found", 404


class JournalNotFound(NotFound):
    """There is no journal of this name."""

    code = "journal_not_found"


class JournalGone(JournalNotFound):
    """The journal that was remembered is not there: one of its name may have been made since."""


class MethodNotAllowed(RequestError):
    """This path does not know the method."""

    code, status = "method_not_allowed", 405

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__(f"allowed: {', '.join(sorted(allowed))}")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(sorted(self.allowed))}


class NotAcceptable(RequestError):
    """None of the forms that the request accepts can be had."""

    code, status = "not_acceptable", 406


class NotApplied(RequestError):
    """An atomic push met a conflict or a rejection: nothing was recorded."""

    code, status = "not_applied", 409

    def __init__(self, outcomes: Sequence[Any] | None = None) -> None:
        super().__init__()
        self.outcomes = outcomes

    def members(self) -> dict[str, Any]:
        return {} if self.outcomes is None else {"outcomes": self.outcomes}


class ClientForgotten(RequestError):
    """An operator forgot this client: it takes a new id."""

    code, status = "client_forgotten", 409


class ConflictSettled(RequestError):
    """The conflict was settled otherwise."""

    code, status = "conflict_settled", 409

    def __init__(self, *, keep: str, atom: str | None, revision: int | None) -> None:
        super().__init__("it stays as it is; what is to be otherwise is pushed as a change of its own")
        self.keep, self.atom, self.revision = keep, atom, revision

    def members(self) -> dict[str, Any]:
        copy = {} if self.atom is None else {"atom": self.atom}
        return {"keep": self.keep, **copy, "revision": self.revision}


class ConflictErased(RequestError):
    """The data of this conflict was erased: only the server's side can be kept."""

    code, status = "conflict_erased", 409


class AtomGone(RequestError):
    """The atom that the kept change updates does not live any more."""

    code, status = "atom_gone", 409


class AtomExists(RequestError):
    """An atom of this name lives: the copy needs another."""

    code, status = "atom_exists", 409


class PushTooOld(RequestError):
    """A later push was decided before: nothing was or will be recorded under this number."""

    code, status = "push_too_old", 409

    def __init__(self, highest: int) -> None:
        super().__init__("send it under a new number, with if_data in place of bases")
        self.highest = highest

    def members(self) -> dict[str, Any]:
        return {"highest": self.highest}


Reason = Literal["horizon", "epoch", "diverged", "future", "scope", "operator"]
RECONCILE: dict[Reason, Literal["replace", "verify"]] = {
    "horizon": "replace",
    "epoch": "verify",
    "diverged": "verify",
    "future": "verify",
    "scope": "replace",
    "operator": "replace",
}


class ResyncRequired(RequestError):
    """The cursor no longer leads anywhere: reconcile, and go on from what that gives."""

    code, status = "resync_required", 410

    def __init__(
        self,
        *,
        reason: Reason,
        journal: str,
        epoch: str,
        head: int,
        horizon: int,
        collections: Sequence[str] | None = None,
        granted: Sequence[str] | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__()
        self.reason: Reason = reason
        self.journal = journal
        self.epoch, self.head, self.horizon = epoch, head, horizon
        self.collections, self.granted = collections, granted
        self.retry_after = retry_after

    def members(self) -> dict[str, Any]:
        missing = {} if self.collections is None else {"collections": self.collections}
        granted = {} if self.granted is None else {"granted": self.granted}
        return {
            "reason": self.reason,
            "epoch": self.epoch,
            "head": self.head,
            "horizon": self.horizon,
            "reconcile": RECONCILE[self.reason],
            "snapshot": f"/v1/journals/{self.journal}/snapshot",
            **missing,
            **granted,
            "retry_after": self.retry_after,
        }

    def headers(self) -> dict[str, str]:
        return {"Cache-Control": "no-store", "Retry-After": str(self.retry_after)}


class TooLarge(RequestError):
    """The request is larger than this service takes."""

    code, status = "too_large", 413

    def __init__(self, errors: Sequence[Fault]) -> None:
        super().__init__()
        self.errors = errors

    def members(self) -> dict[str, Any]:
        return {"errors": self.errors}


class UnsupportedMedia(RequestError):
    """The body is of a form that is not read here."""

    code, status = "unsupported_media_type", 415


class TooSlow(RequestError):
    """The body of the request took too long to come: nothing was recorded."""

    code, status = "request_timeout", 408


class LineTooLong(RequestError):
    """The URL is longer than this service reads."""

    code, status = "uri_too_long", 414


class HeadTooLarge(RequestError):
    """The headers are larger, or more, than this service reads."""

    code, status = "headers_too_large", 431


class CannotExpect(RequestError):
    """What the request expects is not known here."""

    code, status = "expectation_failed", 417


class Misdirected(RequestError):
    """The request is for a host that this service is not known as."""

    code, status = "misdirected", 421


class RangeImpossible(RequestError):
    """The range lies outside of what there is."""

    code, status = "range_not_satisfiable", 416

    def __init__(self, size: int) -> None:
        super().__init__(f"there are {size} bytes")
        self.size = size

    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self.size}"}


class PushReused(RequestError):
    """This number or key was used for another content."""

    code, status = "push_reused", 422


class RateLimited(RequestError):
    """More than one token or address is given: repeating is safe, later."""

    code, status = "rate_limited", 429

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}


class Unavailable(RequestError):
    """What this needs is away for the moment: repeating is safe."""

    code, status = "unavailable", 503

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)}


class NoRoom(Unavailable):
    """The service has no room on its disk for this: repeating is safe."""

    def __init__(self) -> None:
        super().__init__("no room on the disk of the service", retry_after=5)

    @staticmethod
    def is_told_by(error: BaseException) -> bool:
        """Whether an error of the system's says that a disk is full."""
        return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
