"""RFC 6455 over a plain socket, from the agent's side: the handshake, frames out, frames in."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterator

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_FINAL = 0x80
_KNOWN = (TEXT, CLOSE, PING, PONG)


class AgainstProtocol(Exception):
    """The gateway has sent what it may not send."""


def handshake(port: int, agent: str, ws_id: str, *, explicit: bool) -> bytes:
    """The request that opens a socket."""
    key = base64.b64encode(os.urandom(16)).decode()
    ack = "&ack=explicit" if explicit else ""
    return (
        f"GET /ws?agent={agent}&ws_id={ws_id}{ack} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes) -> bytes:
    """A frame of an agent, masked. It is short: Pongs, acks, rejections, Close frames, and small messages."""
    size = len(payload)
    assert size < 1 << 16
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place & 3] for place, byte in enumerate(payload))
    return bytes([_FINAL | opcode]) + length + mask + body


def close_frame(code: int) -> bytes:
    return frame(CLOSE, struct.pack("!H", code))


def close_code(payload: bytes) -> int:
    """The code in a Close frame; 1005 without one."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


class Frames:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the opcode and the payload of each frame that is whole now.

        Raises:
            AgainstProtocol: a frame is masked, a fragment, or of an unknown kind: this gateway sends none of these.
        """
        self._data += data
        taken = 0
        try:
            while (bounds := self._next(taken)) is not None:
                start, end = bounds
                opcode = self._data[taken] & 15
                payload = bytes(self._data[start:end])
                taken = end
                yield opcode, payload
        finally:
            del self._data[:taken]

    def _next(self, place: int) -> tuple[int, int] | None:
        """Where the payload of the frame at a place begins and ends; None if it is not whole yet."""
        data = self._data
        if len(data) - place < 2:
            return None
        first, size = data[place], data[place + 1]
        if first & 0xF0 != _FINAL or first & 15 not in _KNOWN or size & 0x80:
            raise AgainstProtocol(f"a frame begins with {first:#04x} {size:#04x}")
        start = place + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(data) < start:
                return None
            size = int.from_bytes(data[place + 2 : start], "big")
        return (start, start + size) if len(data) >= start + size else None
