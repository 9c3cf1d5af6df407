"""What goes wrong at a replica, each in a way that its application can act on.

JournalError
├── Unreachable, Refused     no answer, or a problem from the service (client/http.py)
├── NoToken                  what was to give a token did not (client/bearer.py)
├── InvalidChange            what was to be written is nothing that a journal could keep
├── AtomExists, AtomMissing  an insert of what is there, an update of what is not
├── Busy                     another process holds the file for longer than it should
├── Closed                   the replica is not open: not yet, or no more
├── NotThisJournal           the file is a replica of another journal
├── FileTooNew               the file was written by a later version
├── NotSynced                the process that syncs the file could not
└── NotRecovered             recovering did not lead anywhere: says what to do
"""

from journal.errors import JournalError


class InvalidChange(JournalError, ValueError):
    """What was to be written is nothing that a journal could keep."""


class AtomExists(JournalError, KeyError):
    """There is an atom of this name."""

    def __init__(self, collection: str, atom: str) -> None:
        super().__init__(f"{collection} has {atom} already: put or update it")
        self.collection, self.atom = collection, atom

    def __str__(self) -> str:
        return str(self.args[0])


class AtomMissing(JournalError, KeyError):
    """There is no atom of this name."""

    def __init__(self, collection: str, atom: str) -> None:
        super().__init__(f"{collection} has no {atom}: insert or put it")
        self.collection, self.atom = collection, atom

    def __str__(self) -> str:
        return str(self.args[0])


class Busy(JournalError):
    """Another process or a long transaction holds the file."""


class Closed(JournalError):
    """The replica is not open."""

    def __init__(self) -> None:
        super().__init__("the replica is closed")


class NotThisJournal(JournalError):
    """The file is a replica of another journal."""


class FileTooNew(JournalError):
    """The file was written by a later version of this package."""


class NotSynced(JournalError):
    """The process that syncs the file could not."""


class NotRecovered(JournalError):
    """Recovering did not lead anywhere."""
