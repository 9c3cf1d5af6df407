"""Telling systemd that the service serves, or is stopping (sd_notify(3)), where systemd asks for it (Type=notify)."""

import os
import socket


def notify(state: str) -> None:
    """`READY=1` or `STOPPING=1`, to the socket that NOTIFY_SOCKET names; nothing where none is named."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
        told.sendto(state.encode(), address)
