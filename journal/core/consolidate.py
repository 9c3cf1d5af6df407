"""Consolidation: many changes become the fewest deltas with the same effect.

Pure. `apply(state, consolidate(changes)) == apply(state, changes)` for every state that the changes can follow
and every split of them (docs/properties.md, P3 and P4). The table is the protocol's, section 4.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from journal.core.model import Change, Key, Op, decode_fields, encode_fields

OpName = Literal["insert", "update", "replace", "delete"]


class Delta(msgspec.Struct, omit_defaults=True, gc=False):
    """The net effect on one atom, as it crosses the wire."""

    op: OpName
    collection: str
    atom: str
    revision: int
    data: Raw | UnsetType = UNSET
    unset: tuple[str, ...] = ()
    revisions: list[int] | UnsetType = UNSET


class Effect(msgspec.Struct, frozen=True, gc=False):
    """What happened to one atom, as one operation. A patch is the `data` of an update and what it `unset`s."""

    op: Op
    data: bytes | None = None
    unset: tuple[str, ...] = ()


def then(before: Effect | None, after: Effect) -> Effect | None:
    """What `before` and, upon it, `after` come to; None where they cancel out, or for nothing yet.

    ValueError where `after` cannot follow: an insert of what lives, a change of what does not.
    """
    if before is None:
        return after
    match before.op, after.op:
        case Op.INSERT, Op.DELETE:
            return None
        case Op.DELETE, Op.INSERT:
            return Effect(Op.REPLACE, after.data)
        case (Op.DELETE, _) | (_, Op.INSERT):
            raise ValueError(f"{after.op.name} cannot follow {before.op.name}")
        case _, Op.DELETE:
            return after
        case Op.INSERT, Op.REPLACE:
            return Effect(Op.INSERT, after.data)
        case _, Op.REPLACE:
            return after
        case Op.UPDATE, Op.UPDATE:
            return _merge_patches(before, after)
        case _:
            return Effect(before.op, patched(before.data or b"{}", after.data, after.unset))


def patched(data: bytes, patch: bytes | None, unset: tuple[str, ...]) -> bytes:
    """`data` without the `unset` fields and with those of `patch` put over it."""
    fields = decode_fields(data)
    for name in unset:
        fields.pop(name, None)
    if patch is not None:
        fields.update(decode_fields(patch))
    return encode_fields(fields)


def _merge_patches(before: Effect, after: Effect) -> Effect:
    fields = {} if before.data is None else decode_fields(before.data)
    for name in after.unset:
        fields.pop(name, None)
    later = {} if after.data is None else decode_fields(after.data)
    fields.update(later)
    unset = tuple(name for name in dict.fromkeys(before.unset + after.unset) if name not in later)
    return Effect(Op.UPDATE, encode_fields(fields) if fields else None, unset)


class Folded(msgspec.Struct, gc=False):
    """One atom within a window of changes: its effect, the revisions that came to it, who inserted it.

    `is_blank`: its data was erased since, so that all that can be told of it is that it is gone.
    """

    effect: Effect | None
    revisions: list[int]
    inserters: set[int | None]
    is_blank: bool = False

    @property
    def told(self) -> Effect | None:
        """What a requester is told."""
        if not self.is_blank or self.effect is None or self.effect.op is Op.DELETE:
            return self.effect
        return None if self.effect.op is Op.INSERT else Effect(Op.DELETE)


class Fold:
    """The consolidation of a window of changes, taken one by one in the order of their revisions."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._atoms: dict[Key, Folded] = {}
        for change in changes:
            self.add(change)

    def add(self, change: Change) -> None:
        """Take the next change."""
        key = (change.collection, change.atom)
        after = Effect(change.op, change.data if change.erased is None else b"{}", change.unset)
        folded = self._atoms.get(key)
        if folded is None:
            folded = self._atoms[key] = Folded(after, [change.revision], set())
        else:
            folded.effect = then(folded.effect, after)
            folded.revisions.append(change.revision)
        if change.op is Op.INSERT:
            folded.inserters.add(change.client)
            folded.is_blank = False
        if change.erased is not None:
            folded.is_blank = True

    @property
    def has_cancelled(self) -> bool:
        """Whether anything came to nothing: only then does it matter who asks."""
        return any(folded.told is None for folded in self._atoms.values())

    def deltas(self, *, client: int | None = None, with_revisions: bool = False) -> list[Delta]:
        """A delta an atom, in the order of their last revisions.

        What came to nothing is left out, unless `client` may have it: it inserted the atom, or several did.
        """
        told = [_delta(key, folded, with_revisions=with_revisions) for key, folded in self._told(client)]
        told.sort(key=_revision)
        return told

    def _told(self, client: int | None) -> Iterator[tuple[Key, Folded]]:
        for key, folded in self._atoms.items():
            if folded.told is not None:
                yield key, folded
            elif client is not None and (client in folded.inserters or len(folded.inserters) > 1):
                yield key, Folded(Effect(Op.DELETE), folded.revisions, folded.inserters)


def consolidate(changes: Iterable[Change], *, client: int | None = None) -> list[Delta]:
    """The deltas that `changes`, in the order of their revisions, come to."""
    return Fold(changes).deltas(client=client)


_NAMES: dict[Op, OpName] = {Op.INSERT: "insert", Op.UPDATE: "update", Op.REPLACE: "replace", Op.DELETE: "delete"}


def _revision(delta: Delta) -> int:
    return delta.revision


def _delta(key: Key, folded: Folded, *, with_revisions: bool) -> Delta:
    effect = folded.told
    assert effect is not None
    return Delta(
        op=_NAMES[effect.op],
        collection=key[0],
        atom=key[1],
        revision=folded.revisions[-1],
        data=UNSET if effect.data is None else Raw(effect.data),
        unset=effect.unset,
        revisions=folded.revisions if with_revisions else UNSET,
    )
