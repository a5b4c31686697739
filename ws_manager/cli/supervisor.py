"""What a service manager is told: systemd's protocol, which others speak too (man 3 sd_notify)."""

from __future__ import annotations

import os
import socket


def tell_supervisor(state: str) -> None:
    """Send a state such as `READY=1` to the socket that `NOTIFY_SOCKET` names; nothing where there is none.

    Raises:
        OSError: there is no such socket.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    # An @ stands for the zero byte of Linux's abstract names.
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect(path)
        connection.sendall(state.encode("ascii"))
