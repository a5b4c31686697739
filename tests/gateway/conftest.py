"""What the gateway's tests share."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from ws_manager.gateway.delivery.agent_socket import AgentSocket
from ws_manager.gateway.net.tcp import TcpPeer


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Iterator[weakref.WeakSet[Any]]:
    """What was made for connections, and has not been freed, without the garbage collector.

    What waits for it is as good as kept: it looks at its oldest objects rarely.
    """
    found: weakref.WeakSet[Any] = weakref.WeakSet()
    for kind in (TcpPeer, AgentSocket):

        def noted(self: Any, *args: Any, made: Callable[..., None] = kind.__init__, **options: Any) -> None:
            found.add(self)
            made(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", noted)
    gc.disable()
    yield found
    gc.enable()
