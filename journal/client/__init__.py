"""What talks to the service over HTTP: knows the protocol, not the server's code.

`Replica` is what an application embeds: a copy of a journal in a file of SQLite that works offline and syncs.
"""

from journal.client.bearer import NoToken
from journal.client.blocking import BlockingCollection, BlockingReplica
from journal.client.conflicts import Conflict, Keep
from journal.client.http import Refused, Unreachable
from journal.client.looking import Changed, Status
from journal.client.problems import (
    AtomExists,
    AtomMissing,
    Busy,
    Closed,
    FileTooNew,
    InvalidChange,
    NotRecovered,
    NotSynced,
    NotThisJournal,
)
from journal.client.replica import Collection, Replica
from journal.client.told import Progress

__all__ = [
    "AtomExists",
    "AtomMissing",
    "BlockingCollection",
    "BlockingReplica",
    "Busy",
    "Changed",
    "Closed",
    "Collection",
    "Conflict",
    "FileTooNew",
    "InvalidChange",
    "Keep",
    "NoToken",
    "NotRecovered",
    "NotSynced",
    "NotThisJournal",
    "Progress",
    "Refused",
    "Replica",
    "Status",
    "Unreachable",
]
