"""How inputs are made without atheris: seeds, mutated and crossed, from a seed that says which."""

import time
from collections.abc import Iterator
from random import Random

from tests.fuzz import bodies, cursors, lines, negotiation, queries, ranges, replies, tokens
from tests.fuzz.target import Target

TARGETS = {
    target.name: target
    for target in (
        cursors.TARGET, ranges.TARGET, negotiation.TARGET, bodies.JSON, bodies.REQUESTS, queries.TARGET, lines.IMPORTS,
        lines.FILES, replies.EVENTS, replies.ANSWERS, tokens.TARGET,
    )
}  # fmt: skip
INPUT_S = 5.0  # no input may take longer


class Broken(AssertionError):
    """A target broke on an input."""

    def __init__(self, target: Target, data: bytes) -> None:
        super().__init__(f"{target.name} breaks on {data!r}")
        self.data = data


def run(target: Target, random: Random, inputs: int) -> None:
    """The seeds, and so many inputs that are made of them."""
    for data in [b"", *target.seeds, *made(target, random, inputs)]:
        begun = time.monotonic()
        try:
            target.check(data)
        except Exception as error:
            raise Broken(target, data) from error
        assert time.monotonic() - begun < INPUT_S, f"{target.name} took too long on {data!r}"


def made(target: Target, random: Random, count: int) -> Iterator[bytes]:
    """Inputs that are made of the seeds and words."""
    for _ in range(count):
        data = random.choice(target.seeds)
        for _ in range(random.choice((1, 1, 1, 2, 3, 5, 8))):
            data = mutated(data, target, random)
        yield data[: target.longest]


def mutated(data: bytes, target: Target, random: Random) -> bytes:
    at = random.randint(0, len(data))
    end = min(len(data), at + random.choice((0, 1, 1, 2, 4, 16, 64)))
    match random.randrange(8):
        case 0 | 1:
            return data[:at] + random.choice(target.words) + data[end:]
        case 2:
            return data[:at] + random.choice(target.words) + data[at:]
        case 3:
            return data[:at] + data[end:]
        case 4:
            return data[:at] + bytes([random.randrange(256)]) + data[min(at + 1, len(data)) :]
        case 5:
            return data[:end] + data[at:end] * random.choice((1, 2, 9, 70)) + data[end:]
        case 6:
            other = random.choice(target.seeds)
            return data[:at] + other[random.randint(0, len(other)) :]
        case _:
            return bytes(bit ^ (1 << random.randrange(8)) if place == at else bit for place, bit in enumerate(data))
