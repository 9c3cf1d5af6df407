"""Negotiation: which form and which coding a request accepts (RFC 9110, section 12)."""

from functools import lru_cache
from typing import Literal

from journal.errors import NotAcceptable
from journal.service.answer import MEDIA, Form

Coding = Literal["zstd", "gzip", "identity"]


@lru_cache(maxsize=256)
def form(accept: str | None, offered: tuple[Form, ...] = ("json", "ndjson", "msgpack")) -> Form:
    """The form that is accepted most, the first offered of equals; NotAcceptable where none is."""
    if not accept:
        return offered[0]
    wanted = _weights(accept)
    best, best_weight = offered[0], 0.0
    for candidate in offered:
        media = MEDIA[candidate]
        kind = media.partition("/")[0] + "/*"
        weight = wanted.get(media, wanted.get(kind, wanted.get("*/*", 0.0)))
        if weight > best_weight:
            best, best_weight = candidate, weight
    if best_weight == 0.0:
        raise NotAcceptable(f"to be had: {', '.join(MEDIA[candidate] for candidate in offered)}")
    return best


@lru_cache(maxsize=256)
def coding(accept_encoding: str | None) -> Coding:
    """The coding that is accepted most, zstd before gzip before none."""
    if not accept_encoding:
        return "identity"
    wanted = _weights(accept_encoding)
    best: Coding = "identity"
    best_weight = 0.0
    candidates: tuple[Coding, ...] = ("zstd", "gzip")
    for candidate in candidates:
        weight = wanted.get(candidate, wanted.get("*", 0.0))
        if weight > best_weight:
            best, best_weight = candidate, weight
    return "identity" if best_weight < wanted.get("identity", 0.0) else best


def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = part.split(";")
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.strip().partition("=")
            if key.lower() == "q":
                weight = _weight(value)
        weights[name.strip().lower()] = weight
    return weights


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
