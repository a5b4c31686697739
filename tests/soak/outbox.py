"""What an agent of a soak sends through its own socket: written again after a reconnect, until it is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.soak import wire


class Request(NamedTuple):
    """A message to another agent; its key is in its content."""

    key: str
    to: str
    text: str


class Outbox:
    """The requests of one agent without an answer, oldest first. By their idempotency keys each happens once."""

    def __init__(self) -> None:
        self._waiting: dict[str, Request] = {}

    def put(self, request: Request) -> bytes:
        """Take a request, and return its frame."""
        self._waiting[request.key] = request
        return _frame(request)

    def frames(self) -> Iterator[bytes]:
        """Give the frames of all that wait, for a new socket."""
        return map(_frame, list(self._waiting.values()))

    def answered(self, answer: dict[str, Any]) -> Request | None:
        """Take an answer, and return the request if it was done now; None if it is known, or was refused."""
        request = self._waiting.pop(answer["ref"], None)
        return request if answer["ok"] else None


def _frame(request: Request) -> bytes:
    frame = {
        "type": "send",
        "ref": request.key,
        "to": request.to,
        "key": request.key,
        "content": request.text,
    }
    return wire.frame(wire.TEXT, json.dumps(frame).encode())
