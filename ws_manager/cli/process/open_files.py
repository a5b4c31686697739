"""The limit of open files, which sockets count for."""

from __future__ import annotations

import sys

from ws_manager.errors import InvalidInput

_RESERVE = 1100
"""Open files beside agents' sockets: connections before their handshake, the database, and some to spare."""


def raise_open_file_limit(connections: int, webhooks: int = 0) -> None:
    """Raise this process's limit of open files as far as needed.

    Args:
        connections: the number of agents' sockets.
        webhooks: the number of concurrent webhook requests.

    Raises:
        InvalidInput: the system's hard limit is too low.
    """
    if sys.platform == "win32":
        # Windows has no such limit.
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserve = _RESERVE + webhooks
    needed = connections + reserve
    if hard not in (resource.RLIM_INFINITY, -1) and needed > hard:
        fewer = f"give --max-connections {hard - reserve}, or " if hard > reserve else ""
        raise InvalidInput(
            f"--max-connections {connections} needs {needed} open files, and the system allows {hard}",
            hint=f"{fewer}raise the hard limit (ulimit -Hn)",
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
