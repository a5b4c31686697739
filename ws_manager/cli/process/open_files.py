"""Room for sockets: how many files a process may have open."""

from __future__ import annotations

import sys

from ws_manager.errors import InvalidInput

_RESERVE = 1100
"""Connections that have not become sockets yet, the database's files, and a few to spare."""


def make_room(connections: int, webhooks: int = 0) -> None:
    """Raise this process's limit of open files to what is needed.

    Args:
        connections: sockets of agents.
        webhooks: requests that bring events.

    Raises:
        InvalidInput: the system's hard limit is lower.
    """
    if sys.platform == "win32":
        # There is no such limit.
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
