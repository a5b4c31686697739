"""What a token may see: its own agent's rows or all, with content or without."""

from __future__ import annotations

from typing import Any, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.errors import NotAuthorised, NotFound
from ws_manager.forms import broadcast_form, connection_form, message_form
from ws_manager.models import Connection, Message
from ws_manager.repository.findings import BroadcastState
from ws_manager.tokens import ANY_AGENT, Claims


class View:
    """A ledger as one token may see it.

    What is not the token's is not there: it is answered as what does not exist.

    Args:
        ledger: an open one.
        claims: of the token.

    Attributes:
        agent: the only agent whose rows it sees; None for all.
        content: whether it sees the content of messages.
    """

    def __init__(self, ledger: Ledger, claims: Claims) -> None:
        self._ledger = ledger
        self._ws_id = claims.ws_id
        self.agent = None if claims.agent == ANY_AGENT else claims.agent
        self.content = claims.allows("content")

    def require_all(self) -> None:
        """Check that the token is for every agent.

        Raises:
            NotAuthorised: it is for one.
        """
        if self.agent is not None or self._ws_id is not None:
            raise NotAuthorised("the token is for one agent", hint="ask for one whose agent is *")

    def owns(self, ws_id: Optional[str]) -> bool:
        """Return whether a connection is the token's own."""
        if self.agent is None and self._ws_id is None:
            return True
        if ws_id is None or self._ws_id not in (None, ws_id):
            return False
        connection = self._ledger.find(ws_id)
        return connection is not None and self.agent in (None, connection.agent)

    def connection(self, ws_id: str) -> Connection:
        """Return one of its own connections.

        Raises:
            NotFound: it has no such connection.
        """
        found = self._ledger.find(ws_id)
        if found is None or not self.owns(ws_id):
            raise NotFound(f"no connection {ws_id}")
        return found

    def message(self, msg_id: str) -> Message:
        """Return a message that one of its own connections has sent, or gets.

        Raises:
            NotFound: there is no such message.
        """
        found = self._ledger.message(msg_id)
        if found is None or not (self.owns(found.recipient_id) or self.owns(found.sender_id)):
            raise NotFound(f"no message {msg_id}")
        return found

    def broadcast(self, broadcast_id: str) -> BroadcastState:
        """Return a broadcast that one of its own connections has sent.

        Raises:
            NotFound: there is no such broadcast.
        """
        found = self._ledger.find_broadcast(broadcast_id)
        if found is None or not self.owns(found.sender_id):
            raise NotFound(f"no broadcast {broadcast_id}")
        return found

    def verdict(self, recipient_id: Optional[str], text: str) -> str:
        """Return what a token may know of why a message is not confirmed: not the life of another's connection."""
        return "pending" if text.startswith("pending") and not self.owns(recipient_id) else text

    # Forms

    def message_form(self, message: Message) -> dict[str, Any]:
        """Return a message's form, without its content where the token may not see it."""
        form = message_form(message)
        if not self.content:
            form |= {"content": None, "content_bytes": len(message.content.encode("utf-8"))}
        return form

    def connection_form(self, connection: Connection, pending: Optional[int] = None) -> dict[str, Any]:
        """Return a connection's form."""
        if pending is None:
            pending = self._ledger.count_pending(connection)
        return connection_form(connection, pending)

    def broadcast_form(self, state: BroadcastState) -> dict[str, Any]:
        """Return a broadcast's form."""
        return broadcast_form(state)
