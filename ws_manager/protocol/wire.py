"""The bytes of a server's frames (RFC 6455 section 5.2): unfragmented, unmasked, uncompressed."""

from __future__ import annotations

import struct
from typing import Optional

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
"""The opcodes (section 5.2), but for the one of a continuation."""

_FINAL = 0x80


def text_frame(text: bytes) -> bytes:
    """Return a text frame; its text is given in UTF-8."""
    return frame(TEXT, text)


def ping_frame(payload: bytes) -> bytes:
    """Return a Ping frame; its payload has at most 125 bytes (section 5.5)."""
    return frame(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """Return a Pong frame; its payload has at most 125 bytes (section 5.5)."""
    return frame(PONG, payload)


def close_frame(code: Optional[int], reason: str = "") -> bytes:
    """Return a Close frame.

    Args:
        code: the close code; None for a Close frame without one (section 5.5.1).
        reason: cut off after 123 bytes (section 5.5).
    """
    if code is None:
        return frame(CLOSE, b"")
    cut = reason.encode("utf-8")[:123].decode("utf-8", "ignore")
    return frame(CLOSE, struct.pack("!H", code) + cut.encode("utf-8"))


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame of any opcode."""
    size = len(payload)
    if size < 126:
        return bytes((_FINAL | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", _FINAL | opcode, 126, size) + payload
    return struct.pack("!BBQ", _FINAL | opcode, 127, size) + payload
