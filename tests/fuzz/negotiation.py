"""Accept and Accept-Encoding: against RFC 9110, section 12.5, read by its grammar from left to right."""

import re

from journal.errors import NotAcceptable
from journal.service.answer import MEDIA
from journal.web import negotiate
from tests.fuzz.target import Target, text_of

WEIGHT = r"(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
MEMBERS = {
    "accept": re.compile(rf"({TOKEN}/{TOKEN}){WEIGHT}[ \t]*(?:,|\Z)[ \t]*"),
    "coding": re.compile(rf"({TOKEN}){WEIGHT}[ \t]*(?:,|\Z)[ \t]*"),
}


def check(data: bytes) -> None:
    """What is accepted most is chosen, where the header is by the grammar; else nothing but NotAcceptable is raised."""
    text = text_of(data)
    try:
        form: str | None = negotiate.form.__wrapped__(text)
    except NotAcceptable:
        form = None
    weights = weighed("accept", text)
    if weights:
        by_weight = [(of_media(weights, media), name) for name, media in MEDIA.items()]
        weight, best = max(by_weight, key=lambda pair: pair[0])  # the first of equals
        assert form == (best if weight > 0 else None)

    coding = negotiate.coding.__wrapped__(text)
    weights = weighed("coding", text)
    if weights:
        others = [(weights.get(name, weights.get("*", 0)), name) for name in ("zstd", "gzip")]
        weight, name = max(others, key=lambda pair: pair[0])
        is_better = weight > 0 and weight >= weights.get("identity", 0)
        assert coding == (name if is_better else "identity")
    assert coding in ("zstd", "gzip", "identity")


def of_media(weights: dict[str, int], media: str) -> int:
    """The weight of the most specific range that a media type is in."""
    return weights.get(media, weights.get(media.partition("/")[0] + "/*", weights.get("*/*", 0)))


def weighed(kind: str, text: str) -> dict[str, int] | None:
    """Weights in thousandths; None where the header is not by the grammar, or says one thing twice."""
    found: dict[str, int] = {}
    at, rest = 0, text.strip(" \t")
    while at < len(rest):
        match = MEMBERS[kind].match(rest, at)
        if match is None:
            return None
        name, weight = match[1].lower(), match[2]
        if name in found:
            return None
        whole, _, part = (weight or "1").partition(".")
        found[name] = 1000 * int(whole) + int((part + "000")[:3])
        at = match.end()
    return found


TARGET = Target(
    "negotiation",
    check,
    [
        b"application/json",
        b"application/x-ndjson;q=0.5, application/msgpack, */*;q=0.1",
        b"text/html,application/*;q=0.9",
        b"gzip, zstd;q=0.3, identity;q=0",
        b"br;q=1.0, *;q=0.5",
    ],
    [b"application/json", b"application/x-ndjson", b"application/msgpack", b"application/*", b"*/*", b";q=", b"; Q=",
     b"0.5", b"1.000", b"0", b"nan", b"inf", b"1_0", b",", b" ", b"\t", b"zstd", b"gzip", b"identity", b"*",
     b";version=1", "٠".encode(), b"\xff", b"-1"],
)  # fmt: skip
