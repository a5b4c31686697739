"""The frames with which a worker tells of its attempts: see `ws_manager.core.attempts`. Both are requests."""

from __future__ import annotations

import json
from dataclasses import dataclass

LONGEST_REASON = 5000
"""Characters of a reason that are kept: an exit code, and the end of what was written to stderr."""


@dataclass(frozen=True)
class Started:
    """The worker begins the message `seq` once this is committed; `ref` as in `request_frames.SendRequest`."""

    ref: str
    seq: int


@dataclass(frozen=True)
class Failed:
    """The worker has failed with the message `seq`; `ref` as in `request_frames.SendRequest`."""

    ref: str
    seq: int
    reason: str


def attempt_frame(ref: str, attempt: int, *, set_aside: bool) -> str:
    """Write the result of either.

    Args:
        ref: the request's, as JSON text.
        attempt: its number, from 1 on.
        set_aside: whether the message was set aside, because the attempt was the last.
    """
    return (
        f'{{"type":"result","ref":{ref},"ok":true,"attempt":{attempt},"set_aside":{json.dumps(set_aside)}}}'
    )
