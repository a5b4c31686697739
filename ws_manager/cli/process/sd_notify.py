"""Reports to the service manager, in systemd's protocol (man 3 sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

_log = logging.getLogger("ws_manager")


def notify_supervisor(state: str) -> None:
    """Send a state, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names; do nothing if it is not set.

    A failure is logged and otherwise ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    # An @ stands for the zero byte that begins an abstract name on Linux.
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        try:
            connection.connect(path)
            connection.sendall(state.encode("ascii"))
        except OSError as error:
            _log.warning("cannot tell %s to the service manager: %s", state, error.strerror)
