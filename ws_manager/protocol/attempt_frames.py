"""A worker's requests: it begins a message, it has failed, what is pending? See `ws_manager.core.attempts`."""

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


@dataclass(frozen=True)
class CountPending:
    """The agent asks how many messages are pending for it; `ref` as in `frames.SendRequest`."""

    ref: str


def started_frame(ref: int, seq: int) -> str:
    """Write the request to begin the message `seq`."""
    return f'{{"type":"started","ref":{ref},"seq":{seq}}}'


def failed_frame(ref: int, seq: int, reason: str) -> str:
    """Write that the attempt at the message `seq` has failed. Of the reason, `LONGEST_REASON` characters are kept."""
    return f'{{"type":"failed","ref":{ref},"seq":{seq},"reason":{json.dumps(reason[:LONGEST_REASON])}}}'


def pending_frame(ref: int) -> str:
    """Write the question how many messages are pending for the agent's connection."""
    return f'{{"type":"pending","ref":{ref}}}'


def pending_count_frame(ref: str, pending: int) -> str:
    """Write the answer to it; `ref` is the request's, as JSON text."""
    return f'{{"type":"result","ref":{ref},"ok":true,"pending":{pending}}}'


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
