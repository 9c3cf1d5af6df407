"""Flags of `journal serve` that say whose JWTs are believed (docs/jwt.md). What cannot be meant so does not start."""

import os
from pathlib import Path
from typing import Annotated

import typer

from journal.cli import say
from journal.config import Jwt, Settings
from journal.web.app import verifier

_DEFAULT = Jwt(secret="-" * 32)  # never used: for what is so when nothing is said
_PANEL = "JWTs"

Secret = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_JWT_SECRET",
        metavar="TEXT",
        rich_help_panel=_PANEL,
        help="Believe JWTs that are signed with it, by HS256. Rather in the variable: a command line is no secret.",
    ),
]
Listed = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_JWT_JWKS",
        metavar="PLACE",
        rich_help_panel=_PANEL,
        help="Believe JWTs that are signed with a key of the JWK Set there: a file or a URL.",
    ),
]
Audience = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_JWT_AUDIENCE", metavar="NAME", rich_help_panel=_PANEL, help="Only those that are for it (aud)."
    ),
]
Issuer = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_JWT_ISSUER", metavar="NAME", rich_help_panel=_PANEL, help="Only those that are of it (iss)."
    ),
]
Claim = Annotated[
    str | None,
    typer.Option(
        envvar="JOURNAL_JWT_CLAIM",
        metavar="NAME",
        rich_help_panel=_PANEL,
        help=f"The claim that grants.  [dim]\\[default: {_DEFAULT.claim}][/]",
    ),
]
LeewayS = Annotated[
    float | None,
    typer.Option(
        envvar="JOURNAL_JWT_LEEWAY_S",
        metavar="SECONDS",
        min=0,
        max=3600,
        rich_help_panel=_PANEL,
        help=f"By how much clocks may differ.  [dim]\\[default: {_DEFAULT.leeway_s:g}][/]",
    ),
]


def believed(
    *,
    secret: str | None,
    jwks: str | None,
    audience: str | None,
    issuer: str | None,
    claim: str | None,
    leeway_s: float | None,
) -> Jwt | None:
    """Whose JWTs are; None: nobody's. Failed where that would not be what was meant."""
    for name in (f"JOURNAL_JWT_{name}" for name in ("SECRET", "JWKS", "AUDIENCE", "ISSUER", "CLAIM", "LEEWAY_S")):
        if os.environ.get(name) == "":  # to typer it is not there: a slip in a script would open the service to all
            raise say.Failed("jwt_settings", f"{name} is there, and empty", "Give it a value, or take it away.")
    said = {"audience": audience, "issuer": issuer, "claim": claim}
    if secret is None and jwks is None and leeway_s is None and not any(said.values()):
        return None
    try:
        settings = Jwt(
            secret=secret,
            jwks=jwks,
            audience=audience,
            issuer=issuer,
            claim=claim or _DEFAULT.claim,
            leeway_s=_DEFAULT.leeway_s if leeway_s is None else leeway_s,
        )
        verifier(Settings(dsn="", spool=Path(), jwt=settings))
    except ValueError as error:
        advice = "JOURNAL_JWT_SECRET is a text of 32 bytes and more, --jwt-jwks a path or a URL: one of them is needed."
        raise say.Failed("jwt_settings", str(error), advice) from None
    return settings
