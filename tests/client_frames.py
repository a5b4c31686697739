"""A client's frames, right ones and wrong ones, byte for byte."""

from __future__ import annotations

import struct
from typing import Optional

CONTINUATION = 0
MASK = b"\x9a\x01\xff\x40"


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    mask: Optional[bytes] = MASK,
    reserved: int = 0,
    length: Optional[int] = None,
) -> bytes:
    """One frame.

    Args:
        mask: None for a frame without one.
        reserved: the three reserved bits.
        length: what its header says, if that is not true.
    """
    size = len(payload) if length is None else length
    bit = 0 if mask is None else 0x80
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def fragments(opcode: int, *payloads: bytes) -> list[bytes]:
    """The frames of one message."""
    last = len(payloads) - 1
    return [
        client_frame(CONTINUATION if place else opcode, payload, final=place == last)
        for place, payload in enumerate(payloads)
    ]
