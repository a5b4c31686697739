"""Doing a thing once for a key, however often it is asked for: the `Idempotency-Key` of HTTP, for every face."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from ws_manager.errors import InvalidInput, KeyReused
from ws_manager.models import seconds_before, utc_now

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

KEPT_SECONDS = 86400.0
"""How long a key is kept. After that, it may be used for something else."""

LONGEST_KEY = 255
"""Characters of a key."""

KEY_FORM = "[!-~]([ -~]*[!-~])?"
"""What can stand in a header as it is."""


class Key(NamedTuple):
    """The key of one request.

    Attributes:
        subject: who asks: keys of different subjects are different keys.
        operation: what is asked for.
        name: of the caller's choice.
        fingerprint: of the request as it is stored: see `fingerprint`.
    """

    subject: str
    operation: str
    name: str
    fingerprint: str


def key_for(
    subject: str,
    operation: str,
    name: Optional[str],
    *request: Any,  # noqa: ANN401 - JSON values
) -> Optional[Key]:
    """Return a key; None for a request without one. Two requests are the same if these values are.

    Raises:
        InvalidInput: the name is empty, too long, or cannot stand in a header as it is.
    """
    if name is None:
        return None
    if len(name) > LONGEST_KEY or re.fullmatch(KEY_FORM, name) is None:
        raise InvalidInput(
            f"an idempotency key has 1 to {LONGEST_KEY} characters of ASCII, without spaces at its ends",
            hint="a UUID is usual",
        )
    text = json.dumps([operation, *request], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Key(subject, operation, name, digest)


def sending_key(
    subject: str,
    name: Optional[str],
    to: str,
    content: str,
    msg_type: str,
    sender_id: Optional[str] = None,
    operation: str = "send",
) -> Optional[Key]:
    """Return the key of a message to one connection, or of an `ask`, the same on every face.

    `sender_id` is the sending connection: one that repeats another's request must not take its message for its own.
    """
    named = () if sender_id is None else (sender_id,)
    return key_for(subject, operation, name, to, content, msg_type, *named)


def broadcasting_key(
    subject: str,
    name: Optional[str],
    agent: Optional[str],
    where: Optional[Sequence[str]],
    content: str,
    msg_type: str,
    sender_id: Optional[str] = None,
) -> Optional[Key]:
    """Return the key of a broadcast, the same on the socket, over HTTP and in a shell. `sender_id`: as above."""
    named = () if sender_id is None else (sender_id,)
    return key_for(subject, "broadcast", name, agent, list(where or ()), content, msg_type, *named)


def once(store: Store, key: Key, work: Callable[[], str]) -> tuple[str, bool]:
    """Do something that is written to the ledger, unless it was done for this key before.

    Args:
        store: the open ledger.
        key: of the request.
        work: writes, and returns what the result is known by: it must be enough to say the same again.

    Returns:
        What `work` returns, or returned then; and whether it was done before.

    Raises:
        KeyReused: the key was used for another request.
    """
    # The key is written with what it stands for, so that no crash can part them; a second caller waits for the first.
    with store.atomic():
        known = _known(store, key)
        if known is not None:
            return known, True
        result = work()
        _remember(store, [(key, result)])
    return result, False


def once_after(store: Store, key: Key, work: Callable[[], str]) -> tuple[str, bool]:
    """Do what `once` does, for work that writes in many transactions of its own: one around it would lock out others.

    The key is written after the work. If a crash comes between them, a repeat does the work again: only what can be
    done twice is done so. A prune, for example, finds nothing more to delete. Of two callers at the same time both
    may work, and the first one's result counts.
    """
    known = _known(store, key)
    if known is not None:
        return known, True
    result = work()
    with store.atomic():
        known = _known(store, key)
        if known is not None:
            return known, True
        _remember(store, [(key, result)])
    return result, False


def once_each(
    store: Store, keys: Sequence[Key], work: Callable[[list[int]], Sequence[Optional[str]]]
) -> list[Union[tuple[str, bool], KeyReused, None]]:
    """Do what `once` does for many requests of one subject and operation, whose keys differ.

    Args:
        store: the open ledger.
        keys: of the requests.
        work: does those with these numbers, and returns for each what the result is known by; None for a failure,
            which is not remembered.
    """
    outcomes: list[Union[tuple[str, bool], KeyReused, None]] = [None] * len(keys)
    if not keys:
        return outcomes
    with store.atomic():
        known = _known_among(store, keys)
        left = []
        for number, key in enumerate(keys):
            try:
                result = _result_of(known, key)
            except KeyReused as error:
                outcomes[number] = error
                continue
            if result is None:
                left.append(number)
            else:
                outcomes[number] = result, True
        done = [(number, result) for number, result in zip(left, work(left)) if result is not None]
        for number, result in done:
            outcomes[number] = result, False
        _remember(store, [(keys[number], result) for number, result in done])
    return outcomes


def _known(store: Store, key: Key) -> Optional[str]:
    """Return the result of a request that was done before; None if it was not. Errors are those of `_result_of`."""
    return _result_of(_known_among(store, [key]), key)


def _known_among(store: Store, keys: Sequence[Key]) -> Mapping[str, tuple[str, str]]:
    since = seconds_before(utc_now(), KEPT_SECONDS)
    return store.keys.find(keys[0].subject, keys[0].operation, [key.name for key in keys], since)


def _result_of(known: Mapping[str, tuple[str, str]], key: Key) -> Optional[str]:
    """Return a request's result among those that are known.

    Raises:
        KeyReused: the key was used for another request.
    """
    if key.name not in known:
        return None
    fingerprint, result = known[key.name]
    if fingerprint != key.fingerprint:
        raise KeyReused(
            "this idempotency key was used for another request",
            hint="use a new key for a new request",
        )
    return result


def _remember(store: Store, done: Sequence[tuple[Key, str]]) -> None:
    if done:
        rows = [(key.name, key.fingerprint, result) for key, result in done]
        store.keys.insert(done[0][0].subject, done[0][0].operation, rows, utc_now())
