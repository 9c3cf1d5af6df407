"""The flags of `journal serve` that say how much one token or address may have, and from where.

Lists are flags that are given several times; in a variable, words with spaces between.
"""

from typing import Annotated

import typer

from journal.core import addresses
from journal.web.origins import checked


def _networks(texts: list[str]) -> list[str]:
    try:
        addresses.networks(texts)
    except ValueError as error:
        raise typer.BadParameter(f"{error}: write an address, or a network like 10.0.0.0/8") from None
    return texts


def _origins(texts: list[str]) -> list[str]:
    try:
        return [checked(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Rate = Annotated[
    float,
    typer.Option(
        envvar="JOURNAL_RATE",
        metavar="N",
        min=0,
        help="So many requests a second for each token, and for each address; 0: any number.",
    ),
]
Burst = Annotated[
    int, typer.Option(envvar="JOURNAL_BURST", metavar="N", min=1, help="So many of them at once, after a pause.")
]
Streams = Annotated[
    int,
    typer.Option(envvar="JOURNAL_STREAMS", metavar="N", min=0, help="So many open streams likewise; 0: any number."),
]
Downloads = Annotated[
    int,
    typer.Option(
        envvar="JOURNAL_DOWNLOADS", metavar="N", min=0, help="So many snapshots at a time likewise; 0: any number."
    ),
]
Connections = Annotated[
    int,
    typer.Option(
        envvar="JOURNAL_CONNECTIONS", metavar="N", min=0, help="So many connections for each address; 0: any number."
    ),
]
IdleS = Annotated[
    float,
    typer.Option(
        envvar="JOURNAL_IDLE_S",
        metavar="SECONDS",
        min=0,
        help="How long a connection may be idle: longer than a proxy in front keeps it.",
    ),
]
Unlimited = Annotated[
    list[str],
    typer.Option(
        envvar="JOURNAL_UNLIMITED", metavar="NETWORK", callback=_networks, help="Addresses that are not limited."
    ),
]
TrustedProxy = Annotated[
    list[str],
    typer.Option(
        envvar="JOURNAL_TRUSTED_PROXY",
        metavar="NETWORK",
        callback=_networks,
        help="A proxy in front, whose X-Forwarded-For (or Forwarded) is believed.",
    ),
]
CorsOrigin = Annotated[
    list[str],
    typer.Option(
        envvar="JOURNAL_CORS_ORIGIN",
        metavar="ORIGIN",
        callback=_origins,
        help="Let scripts of these pages use the service (https://app.example); *: of all, once tokens are needed.",
    ),
]
AllowedHost = Annotated[
    list[str],
    typer.Option(
        envvar="JOURNAL_ALLOWED_HOST",
        metavar="NAME",
        help="A name that the service is known by besides localhost, as long as it needs no token.",
    ),
]
