"""Who is not let in: barred agents, and revoked tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ws_manager.core.validation import check_name
from ws_manager.errors import NotAuthorised
from ws_manager.models import utc_now
from ws_manager.remedies import UNBAR

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

BARRED = 4003
"""The close code of their sockets."""

_AGENT = "the agent is barred"
_TOKEN = "the token was revoked"  # noqa: S105 - a text


def bar(store: Store, agent: str) -> tuple[bool, list[str]]:
    """Bar an agent, and end its connections, in one transaction."""
    check_name(agent, "agent", known=True)
    now = utc_now()
    with store.atomic():
        new = store.bars.bar(agent, now)
        ended = store.connections.expel(now, BARRED, _AGENT, agent=agent)
        _note(store, ended, _AGENT, now)
    return new, ended


def unbar(store: Store, agent: str) -> bool:
    """Let an agent in again. False if it was not barred."""
    with store.atomic():
        return store.bars.unbar(agent)


def revoke(store: Store, token: str) -> tuple[bool, list[str]]:
    """Revoke a token, by its key, and end the connections that were opened with it, in one transaction."""
    check_name(token, "token's name")
    now = utc_now()
    with store.atomic():
        new = store.bars.revoke(token, now)
        ended = store.connections.expel(now, BARRED, _TOKEN, token=token)
        _note(store, ended, _TOKEN, now)
    return new, ended


def check_bars(store: Store, agent: Optional[str], token: Optional[str]) -> None:
    """Check that an agent and a token are let in.

    Raises:
        NotAuthorised: the agent is barred, or the token was revoked.
    """
    if agent is not None and store.bars.is_barred(agent):
        raise NotAuthorised(_AGENT, remedy=UNBAR, about=agent)
    if token is not None and store.bars.is_revoked(token):
        raise NotAuthorised(_TOKEN, hint="ask for a new one")


def _note(store: Store, ws_ids: list[str], reason: str, now: str) -> None:
    for ws_id in ws_ids:
        store.events.insert("disconnected", now, ws_id, detail=reason)
