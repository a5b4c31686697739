"""The questions of a ledger over HTTP: the part of `RemoteLedger` that never writes."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, cast

from ws_manager.client.answers import Answer
from ws_manager.client.api import PAGE, ApiClient, path_of
from ws_manager.client.remote_parts import RemoteSampler
from ws_manager.core.questions import Questions
from ws_manager.core.read.conditions import Conditions
from ws_manager.core.validation import check_limit, check_timeout
from ws_manager.errors import GatewayUnavailable, InvalidInput, NotFound
from ws_manager.forms import ask_of, broadcast_of, connection_of, message_of
from ws_manager.models import Connection, Gateway, Message
from ws_manager.repository.findings import Backlog, BroadcastState, Finding, MessageFilter
from ws_manager.repository.records import ListedConnection
from ws_manager.settings import HEARTBEAT_TIMEOUT
from ws_manager.strict_json import Json, members
from ws_manager.tokens import ANY_AGENT

if TYPE_CHECKING:
    from ws_manager.core.read.explain import Explanation, Unconfirmed
    from ws_manager.core.read.listings import Recipient
    from ws_manager.core.read.lookup import Thing
    from ws_manager.core.sending import Sent
    from ws_manager.repository.working import Ask

_LOOK_SECONDS = 0.5
_LONGEST_WAIT = 9.0
"""Seconds of one request that waits: a proxy may end one that is silent for long."""


class RemoteQuestions(Questions):
    """What can be asked of a gateway's ledger; see `Questions`.

    Attributes:
        api: the gateway's API.
    """

    api: ApiClient

    # Connections

    def find(self, ws_id: str) -> Optional[Connection]:
        """Return a connection, active or not."""
        answer = self._found("connections", ws_id)
        return None if answer is None else connection_of(answer.text)

    def active(self, agent: Optional[str] = None) -> list[Connection]:
        """Return the active connections."""
        return [connection for connection, _ in self.connections(agent=agent)]

    def connections(
        self,
        *,
        include_disconnected: bool = False,
        agent: Optional[str] = None,
        silent_for: Optional[float] = None,
        where: Optional[Conditions] = None,
        order: str = "age",
        after: Optional[str] = None,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[ListedConnection]:
        """Return connections."""
        from ws_manager.core.read.listings import check_order

        query = {
            "status": "all" if include_disconnected else "active",
            "agent": agent,
            "stale": None if silent_for is None else check_timeout(silent_for),
            "where": None if where is None else [condition.text for condition in where.each],
            "sort": check_order(order),
        }
        found = self.api.pages("connections", query, None if limit is None else check_limit(limit), after)
        return [ListedConnection(connection_of(text), json.loads(members(text)["pending"])) for text in found]

    def recipients(self, agent: Optional[str], conditions: Optional[Conditions]) -> list[Recipient]:
        """Return every connection, with the reason why a broadcast would not reach it now."""
        from ws_manager.core.read.listings import with_refusals

        return with_refusals(self.connections(include_disconnected=True), agent, conditions)

    def knows_agent(self, agent: str) -> bool:
        """Return whether an agent has, or had, a connection."""
        return bool(self.connections(include_disconnected=True, agent=agent, limit=1))

    def has_socket(self, connection: Connection) -> bool:
        """Return whether a gateway has a socket open on a connection."""
        answer = self._found("connections", connection.ws_id)
        return answer is not None and bool(answer.body["socket_open"])

    def count(self, agent: Optional[str] = None) -> int:
        """Return the number of active connections, of one agent or of all."""
        form = self._stats()
        return int(form["active_connections"] if agent is None else form["agents"].get(agent, 0))

    def count_pending(self, connection: Connection, limit: int = -1) -> int:
        """Return how many messages a connection has not confirmed yet."""
        answer = self._found("connections", connection.ws_id)
        return 0 if answer is None else int(answer.body["pending"])

    # Messages

    def message(self, msg_id: str) -> Optional[Message]:
        """Return a message."""
        answer = self._found("messages", msg_id)
        return None if answer is None else message_of(answer.text)

    def asked(self, msg_id: str) -> Ask:
        """Return an ask, and its answer."""
        return self.wait_for_answer(msg_id, 0)

    def wait_for_answer(self, msg_id: str, seconds: float) -> Ask:
        """Wait until an ask is answered or set aside, or the time is over, and return it."""
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, min(until - time.monotonic(), _LONGEST_WAIT))
            query = {"wait": f"{math.ceil(left * 1000)}ms"} if left else None
            found = ask_of(self.api.call("GET", path_of("asks", msg_id), query=query).text, ANY_AGENT)
            if found.is_over or time.monotonic() >= until:
                return found

    def unconfirmed(self, sent: Sent) -> list[Unconfirmed]:
        """Return what has not been confirmed of what was sent, and why."""
        from ws_manager.core.read.explain import Unconfirmed

        broadcast_id = getattr(sent, "broadcast_id", None)
        if broadcast_id is not None:
            answer = self._found("broadcasts", broadcast_id)
            return [] if answer is None else [Unconfirmed(**one) for one in answer.body["unconfirmed"]]
        found = [self._found("messages", message.msg_id) for message in cast("Sequence[Message]", sent)]
        forms = [answer.body for answer in found if answer is not None]
        return [
            Unconfirmed(form["recipient_id"], form["msg_id"], form["why"])
            for form in forms
            if form["why"] is not None
        ]

    def messages(self, wanted: MessageFilter, limit: int = 50) -> list[Message]:
        """Return messages, newest first."""
        after = None if wanted.below is None else str(wanted.below)
        return [
            message_of(text)
            for text in self.api.pages("messages", _filter(wanted), check_limit(limit), after)
        ]

    def messages_after(
        self, after: Optional[str], wanted: MessageFilter, limit: int
    ) -> tuple[list[Message], str]:
        """Return messages in the order of their commits."""
        query = {**_filter(wanted), "order": "oldest", "after": after, "limit": min(limit, PAGE)}
        answer = self.api.call("GET", path_of("messages"), query=query)
        return [message_of(text) for text in answer.items()], answer.body["next"]

    def follow(self, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[Message]]:
        """Give messages as they are committed. A gateway that goes away is waited for."""
        found, after = self.messages_after(None, wanted, PAGE)
        looked = time.monotonic()
        while True:
            if found:
                yield found
            else:
                while time.monotonic() - looked < _LOOK_SECONDS:
                    pause()
            looked, found = time.monotonic(), []
            with contextlib.suppress(GatewayUnavailable):
                found, after = self.messages_after(after, wanted, PAGE)

    def find_broadcast(self, broadcast_id: str) -> Optional[BroadcastState]:
        """Return a broadcast and how far its delivery is."""
        answer = self._found("broadcasts", broadcast_id)
        return None if answer is None else broadcast_of(answer.text)

    def broadcasts(
        self,
        limit: int = 50,
        after: Optional[str] = None,
        *,
        sender_agent: Optional[str] = None,
        sender_id: Optional[str] = None,
    ) -> list[BroadcastState]:
        """Return the latest broadcasts. Whose they are, the token says: it cannot be asked for."""
        if sender_agent is not None or sender_id is not None:
            raise InvalidInput("a gateway lists the broadcasts of a token's agent", hint="use its token")
        return [broadcast_of(text) for text in self.api.pages("broadcasts", {}, check_limit(limit), after)]

    def addressed(self, broadcast_id: str) -> list[str]:
        """Return the recipients of a broadcast."""
        found = self.api.pages("messages", {"broadcast": broadcast_id}, None)
        return [message_of(text).recipient_id for text in found][::-1]

    # The whole

    def look_up(self, identifier: str) -> Thing:
        """Return the connection, the message or the broadcast that an identifier, or a part of one, means."""
        form = self.api.call("GET", path_of("show", identifier)).form
        kind, facts = json.loads(form["kind"]), json.loads(form["facts"])
        if kind == "message":
            return message_of(form["facts"])
        found = (
            self.find(facts["ws_id"]) if kind == "connection" else self.find_broadcast(facts["broadcast_id"])
        )
        if found is None:
            raise NotFound(f"no {kind} {identifier}")
        return found

    def explain(self, identifier: str) -> Explanation:
        """Return all there is about a connection, a message or a broadcast."""
        from ws_manager.core.read.explain import Entry, Explanation

        form = self.api.call("GET", path_of("show", identifier)).form
        texts = members(form["facts"])
        facts = {
            name: Json(text) if name in ("content", "metadata") else json.loads(text)
            for name, text in texts.items()
        }
        return Explanation(
            json.loads(form["kind"]),
            json.loads(form["standing"]),
            json.loads(form["verdict"]),
            facts,
            [Entry(**entry) for entry in json.loads(form["timeline"])],
        )

    def stats(self) -> dict[str, Any]:
        """Return counts over the whole ledger, the documented four."""
        form = self._stats()
        names = ("active_connections", "total_ever_connected", "total_messages", "agents")
        return {name: form[name] for name in names}

    def backlog(self) -> Backlog:
        """Return what has not arrived."""
        form = self._stats()
        return Backlog(**{name: form[name] for name in Backlog._fields})

    def running_gateway(self) -> Optional[Gateway]:
        """Return the gateway that runs: this one."""
        gateway = self._stats()["gateway"]
        return None if gateway is None else Gateway(**gateway)

    def running_gateways(self) -> list[Gateway]:
        """Return the gateways that run on the ledger, one for each address."""
        return [Gateway(**gateway) for gateway in self._stats()["gateways"]]

    def _stats(self) -> dict[str, Any]:
        return self.api.call("GET", path_of("stats")).body  # type: ignore[no-any-return]

    def doctor(self) -> list[Finding]:
        """Return what the gateway finds when it looks at its ledger and at itself."""
        return [Finding(**each) for each in self.api.call("GET", path_of("doctor")).body["checks"]]

    def sampler(self, timeout: float = HEARTBEAT_TIMEOUT) -> RemoteSampler:
        """Return what takes overviews. The gateway says from when on a connection is slow."""
        return RemoteSampler(self.api)

    def _found(self, *parts: str) -> Optional[Answer]:
        try:
            return self.api.call("GET", path_of(*parts))
        except NotFound:
            return None


def _filter(wanted: MessageFilter) -> dict[str, Any]:
    return {
        "ws_id": wanted.ws_id,
        "agent": wanted.agent,
        "type": wanted.msg_type,
        "pending": wanted.pending or None,
        "set_aside": wanted.set_aside or None,
        "since": wanted.since,
        "before": wanted.before,
        "search": wanted.text,
        "broadcast": wanted.broadcast_id,
    }
