"""Rendered: the bytes of recent answers, kept for as long as what they say is true.

A key names all that an answer depends on (epoch, chain, base, filter, form …), so that nothing here is ever stale:
what is no longer asked for is pushed out by what is.
"""

from collections import OrderedDict
from collections.abc import Hashable

from journal.service.answer import Answer

_OVERHEAD = 500  # what an answer costs in memory besides its bytes, roughly


class Rendered:
    """Up to `most_bytes` of answers of at most `each_bytes`, the least recently used forgotten first."""

    def __init__(self, most_bytes: int, each_bytes: int) -> None:
        self.most_bytes, self.each_bytes = most_bytes, each_bytes
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What they take, roughly."""
        return self._bytes

    def find(self, key: Hashable) -> Answer | None:
        """The answer that was kept under `key`."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def clear(self) -> None:
        """Forget all answers."""
        self._answers.clear()
        self._bytes = 0

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Keep a whole answer, if it is not too large. Its codings and its event, made later, at most treble it."""
        if answer.body is None or len(answer.body) > self.each_bytes or key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += 3 * len(answer.body) + _OVERHEAD
        while self._bytes > self.most_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= 3 * len(oldest.body or b"") + _OVERHEAD
