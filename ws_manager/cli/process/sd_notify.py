"""What a service manager is told: systemd's protocol, which others speak too (man 3 sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger("ws_manager")


def tell_supervisor(state: str) -> None:
    """Send a state such as `READY=1` to the socket that `NOTIFY_SOCKET` names; nothing where there is none.

    Where nobody takes it, that is logged: it is no reason to stop, and none not to.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    # An @ stands for the zero byte of Linux's abstract names.
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path)
            connection.sendall(state.encode("ascii"))
        except OSError as error:
            _log.warning("cannot tell %s to the service manager: %s", state, error.strerror)
