"""The sockets that the gateway listens on: one for each address, all on the same port."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Sequence
from typing import Callable

from ws_manager.errors import Conflict, InvalidInput

BACKLOG = 512
"""Connections that the kernel queues until they are accepted."""

_TRIES = 20
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

Address = tuple[socket.AddressFamily, tuple[object, ...]]


def hosts_to_bind(hosts: Sequence[str]) -> list[str]:
    """Return the hosts to bind, each once. `::` stands for every address and also adds `0.0.0.0`."""
    found: dict[str, None] = {}
    for host in hosts:
        plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        found.update(dict.fromkeys((plain, "0.0.0.0") if plain == "::" else (plain,)))  # noqa: S104 - asked for
    return list(found)


def bind(
    hosts: Sequence[str], port: int, *, shared: bool = False, listen: bool = True
) -> list[socket.socket]:
    """Listen on every host, and return the sockets.

    Args:
        hosts: addresses and names of this machine. A name may have several addresses; those that this machine does
            not have are left out.
        port: the port of all hosts; 0 takes one that is free on all of them.
        shared: True lets other processes of this user bind the same addresses in the same way (SO_REUSEPORT, man 7
            socket): the system gives each connection to one of those that listen.
        listen: False only binds.

    Raises:
        Conflict: an address or the port cannot be bound.
        InvalidInput: a host is neither an address nor a name that resolves.
    """
    resolved = {host: _resolved(host) for host in hosts}
    for left in reversed(range(_TRIES if port == 0 else 1)):
        with contextlib.ExitStack() as opened:
            try:
                sockets = _bind_all(
                    resolved, port, opened, functools.partial(_bound, shared=shared, listen=listen)
                )
            except Conflict as error:
                # The port that was free on the first address may be in use on another.
                if left and getattr(error.__cause__, "errno", None) == errno.EADDRINUSE:
                    continue
                raise
            opened.pop_all()
            return sockets
    raise AssertionError("unreachable")


def _resolved(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        raise InvalidInput(
            f"--host {host} is not an address of this machine: {reason}", hint="give an address"
        ) from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def reserve(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind every host to a port that nobody else has, so that workers can listen there; see `bind`.

    The sockets do not listen. As long as they are open, nobody else can bind the port without SO_REUSEPORT.
    """
    for left in reversed(range(_TRIES if port == 0 else 1)):
        # A socket that shares its address would be bound beside another program's that does, too.
        alone = bind(hosts, port)
        free: int = alone[0].getsockname()[1]
        for each in alone:
            each.close()
        try:
            bound = bind(hosts, free, shared=True, listen=False)
        except Conflict:
            if not left:
                raise
            continue
        for each in bound:
            # With it, others that set it too could bind the port as long as nobody listens.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return bound
    raise AssertionError("unreachable")


def _bind_all(
    resolved: dict[str, list[Address]],
    port: int,
    opened: contextlib.ExitStack,
    bound: Callable[[socket.AddressFamily, tuple[object, ...], int], socket.socket],
) -> list[socket.socket]:
    sockets: dict[tuple[object, ...], socket.socket] = {}
    for host, addresses in resolved.items():
        absent = None
        for family, address in addresses:
            if address in sockets:
                continue
            try:
                sockets[address] = made = opened.enter_context(bound(family, address, port))
                port = made.getsockname()[1]
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise _conflict(host, port, error) from error
                absent = error
        if absent is not None and not any(address in sockets for _, address in addresses):
            raise _conflict(host, port, absent) from absent
    return list(sockets.values())


def _bound(
    family: socket.AddressFamily, address: tuple[object, ...], port: int, *, shared: bool, listen: bool
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows it would let another program bind the same port.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # IPv4 has its own socket, so that a peer's address has only one form.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address[0], port, *address[2:]))
        if listen:
            made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _conflict(host: str, port: int, error: OSError) -> Conflict:
    where = f"[{host}]" if ":" in host else host
    return Conflict(
        f"cannot listen on {where}:{port}: {os.strerror(error.errno or 0)}",
        hint="give an address of this machine to --host"
        if error.errno in _ABSENT
        else "choose another --port; 0 takes one that is free",
    )
