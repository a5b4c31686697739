"""Who takes part, and what the messages look like: known to the agents, the senders and those who judge."""

from __future__ import annotations

import json
import zlib
from random import Random
from typing import NamedTuple

# How many of every twenty agents are of each kind. The others confirm by Pong.
_EXPLICIT, _SLOW_BY_PONG, _SLOW_EXPLICIT = 7, 2, 1
_OF = 20
# A quote, which is escaped, and characters of two, three and four bytes.
_PAD = 'abcdefghij klmnopqrstuvwxyz"é€🛰 0123456789'

SLOW = "slow"
"""How the ws_ids of those begin that read slowly."""

BY_GATEWAY = "the gateway has closed it with "
"""How the agents' journal says that the gateway has sent a Close frame; its code follows."""


class Member(NamedTuple):
    """One connection: its ws_id, its agent's name, and how it behaves."""

    ws_id: str
    agent: str
    explicit: bool
    slow: bool


def cast(count: int) -> list[Member]:
    """Everybody. The names say what they do."""
    members = []
    for number in range(count):
        place = number % _OF
        if place < _EXPLICIT:
            kind, explicit, slow = "ack", True, False
        elif place < _EXPLICIT + _SLOW_BY_PONG:
            kind, explicit, slow = f"{SLOW}-pong", False, True
        elif place < _EXPLICIT + _SLOW_BY_PONG + _SLOW_EXPLICIT:
            kind, explicit, slow = f"{SLOW}-ack", True, True
        else:
            kind, explicit, slow = "pong", False, False
        members.append(Member(f"{kind}-{number:03d}", kind, explicit, slow))
    return members


def content(key: str, size: int, random: Random) -> str:
    """Return a text of about this many bytes that names itself, with a checksum that shows whether it is whole."""
    length = max(1, size - len(key) - 10)
    start = random.randrange(len(_PAD))
    pad = (_PAD[start:] + _PAD * (length // len(_PAD) + 1))[:length]
    return f"{key} {zlib.crc32(pad.encode()):08x} {pad}"


def key_of(text: object) -> tuple[str, bool]:
    """Which message a content is, and whether it is whole."""
    if not isinstance(text, str) or text.count(" ") < 2:
        return json.dumps(text)[:40], False
    key, crc, pad = text.split(" ", 2)
    return key, f"{zlib.crc32(pad.encode()):08x}" == crc
