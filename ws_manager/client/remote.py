"""A ledger over HTTP: every verb of `Ledger`, through a gateway.

Whoever has one calls the same verbs, and gets the same values and errors. What only the machine of the ledger can do
(such as `import`) is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast

from ws_manager.client.api import Answer, ApiClient, path_of
from ws_manager.client.remote_parts import (
    NO_STORE,
    RemoteBatch,
    RemoteChanges,
    RemoteDelivery,
    RemoteMaintenance,
    RemoteSampler,
    RemoteWebhooks,
)
from ws_manager.core.ledger import Ledger
from ws_manager.core.read.conditions import Conditions
from ws_manager.core.registry import BY_AN_OPERATOR
from ws_manager.core.validation import check_limit, check_name, check_timeout, encode_content
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.forms import broadcast_of, connection_of, message_of
from ws_manager.models import Broadcast, Connection, Gateway, Message, new_id
from ws_manager.repository.findings import Backlog, BroadcastState, Finding, MessageFilter
from ws_manager.repository.records import DeliveryCounts, ListedConnection
from ws_manager.settings import HEARTBEAT_TIMEOUT, Sizes, sizes
from ws_manager.strict_json import Json, elements, members

if TYPE_CHECKING:
    from ws_manager.core.heartbeat import HeartbeatReport
    from ws_manager.core.once import Key
    from ws_manager.core.read.explain import Explanation, Unconfirmed
    from ws_manager.core.read.listings import Recipient
    from ws_manager.core.read.lookup import Thing
    from ws_manager.core.retry import Retried
    from ws_manager.core.sending import Admit, Sent

_PAGE = 1000
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 0.5


class RemoteLedger(Ledger):
    """The ledger of a gateway.

    Args:
        api: the gateway's API. It is closed with the ledger.

    Every verb may raise `GatewayUnavailable` if the gateway does not answer, and `NotAuthorised` if the token does
    not allow it. What a verb sends has a random key, so that a request whose answer was lost is not done twice.
    """

    def __init__(self, api: ApiClient) -> None:
        self.api = api
        self.location = api.url
        # The gateway decides; these are what the library checks before that.
        self.sizes: Sizes = sizes()
        self._store = NO_STORE
        self._key: Optional[str] = None
        self._replayed = False

    def __enter__(self) -> RemoteLedger:
        return self

    def close(self) -> None:
        """Close its connections to the gateway."""
        self.api.close()

    # Connections

    def connect(
        self,
        agent: str,
        ws_id: Optional[str] = None,
        metadata: Union[Mapping[str, Any], Json, None] = None,
    ) -> Connection:
        """Register a connection; the ws_id of a new one is made here, so that repeating the request is safe."""
        check_name(agent, "agent", known=ws_id is not None)
        named = new_id() if ws_id is None else check_name(ws_id, "ws_id", known=True)
        body: dict[str, Any] = {"agent": agent}
        if metadata is not None:
            body["metadata"] = _object(metadata)
        return connection_of(self.api.call("PUT", path_of("connections", named), body=body).text)

    def disconnect(self, ws_id: str, reason: str = BY_AN_OPERATOR) -> bool:
        """Mark a connection as disconnected."""
        return bool(self.disconnect_all([ws_id], reason))

    def disconnect_all(self, ws_ids: Iterable[str], reason: str = BY_AN_OPERATOR) -> list[str]:
        """Do the same with many connections, 100 in one transaction."""
        named, ended = list(ws_ids), list[str]()
        for start in range(0, len(named), 100):
            query = {"ws_id": named[start : start + 100], "reason": reason}
            ended += self.api.call("DELETE", path_of("connections"), query=query).body["ws_ids"]
        return ended

    def bar(self, agent: str) -> tuple[bool, list[str]]:
        """Stop an agent from connecting."""
        answer = self.api.call("PUT", path_of("bars", agent))
        return answer.status == 201, answer.body["disconnected"]

    def unbar(self, agent: str) -> bool:
        """Let an agent in again."""
        try:
            self.api.call("DELETE", path_of("bars", agent))
        except NotFound:
            return False
        return True

    def barred(self) -> list[tuple[str, str]]:
        """Return the barred agents."""
        items = self.api.call("GET", path_of("bars")).body["items"]
        return [(item["agent"], item["at"]) for item in items]

    def revoke(self, token: str) -> tuple[bool, list[str]]:
        """Revoke a token."""
        answer = self.api.call("PUT", path_of("revocations", token))
        return answer.status == 201, answer.body["disconnected"]

    def heartbeat(self, ws_id: str, latency_ms: Optional[float] = None) -> bool:
        """Record a sign of life."""
        try:
            self.api.call("POST", path_of("connections", ws_id, "heartbeat"), body={"latency_ms": latency_ms})
        except NotFound:
            return False
        return True

    def heartbeat_check(self, timeout: float = HEARTBEAT_TIMEOUT) -> HeartbeatReport:
        """Disconnect the connections without a recent heartbeat."""
        from ws_manager.core.heartbeat import HeartbeatReport

        body = {"timeout": check_timeout(timeout)}
        return HeartbeatReport(**self.api.call("POST", path_of("heartbeat-checks"), body=body).body)

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
        found = self._pages("connections", query, None if limit is None else check_limit(limit), after)
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

    def count(self) -> int:
        """Return the number of active connections."""
        return int(self.stats()["active_connections"])

    def count_pending(self, connection: Connection) -> int:
        """Return how many messages a connection has not confirmed yet."""
        answer = self._found("connections", connection.ws_id)
        return 0 if answer is None else int(answer.body["pending"])

    # Messages

    def send(
        self,
        ws_id: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        admit: Optional[Admit] = None,
    ) -> Optional[Message]:
        """Commit one message. The token says who sends, unless an operator names a sender."""
        body = {"to": ws_id, **self._content(content, msg_type, sender_id)}
        try:
            return message_of(self._keyed("POST", path_of("messages"), body).text)
        except NotFound:
            return None

    def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
        msg_type: str = "broadcast",
        sender_id: Optional[str] = None,
        admit: Optional[Admit] = None,
    ) -> Broadcast:
        """Commit one message to each active connection. A filter has to be conditions: see `all_of`."""
        body = self._content(content, msg_type, sender_id)
        if agent is not None:
            body["agent"] = check_name(agent, "agent", known=True)
        if filter_fn is not None:
            if not isinstance(filter_fn, Conditions):
                raise InvalidInput("a gateway takes conditions only", hint="such as metadata.region=us-west")
            body["where"] = [condition.text for condition in filter_fn.each]
        answer = self._keyed("POST", path_of("broadcasts"), body).body
        return Broadcast(answer["broadcast_id"], answer["ws_ids"])

    def wait(self, sent: Sent, seconds: float) -> DeliveryCounts:
        """Wait until nothing of what was sent is pending, or the time is over."""
        until, pause = time.monotonic() + seconds, _FIRST_LOOK
        while True:
            counts = self._counts(sent)
            left = until - time.monotonic()
            if not counts.pending or left <= 0:
                return counts
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_LOOK)

    def retry(self, msg_id: str) -> Retried:
        """Send one set-aside message again."""
        from ws_manager.core.retry import Retried

        answer = self._keyed("POST", path_of("messages", msg_id, "retry"))
        if answer.status == 200 and not answer.replayed:
            raise Conflict(f"message {msg_id} was sent again before, as {answer.body['msg_id']}")
        return Retried(**answer.body)

    def retry_all(self, since: str = "", agent: Optional[str] = None) -> tuple[list[Retried], int]:
        """Send everything again that was set aside."""
        from ws_manager.core.retry import Retried

        body = {name: value for name, value in (("since", since), ("agent", agent)) if value}
        answer = self._keyed("POST", path_of("retries"), body).body
        return [Retried(**again) for again in answer["retried"]], answer["beyond_limits"]

    def replay(self, message: Message, ws_id: str) -> Optional[Message]:
        """Send the content of any message again, to any active connection."""
        try:
            answer = self._keyed("POST", path_of("messages", message.msg_id, "replay"), {"to": ws_id})
        except NotFound:
            return None
        return self.message(answer.body["msg_id"])

    def once(self, key: Optional[Key], work: Callable[[], str]) -> tuple[str, bool]:
        """Do something for a key: what `work` sends carries the key, and the gateway does it once."""
        self._key, self._replayed = None if key is None else key.name, False
        try:
            return work(), self._replayed
        finally:
            self._key = None

    def message(self, msg_id: str) -> Optional[Message]:
        """Return a message."""
        answer = self._found("messages", msg_id)
        return None if answer is None else message_of(answer.text)

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
            message_of(text) for text in self._pages("messages", _filter(wanted), check_limit(limit), after)
        ]

    def messages_after(
        self, after: Optional[int], wanted: MessageFilter, limit: int
    ) -> tuple[list[Message], str]:
        """Return messages in the order of their commits."""
        query = {**_filter(wanted), "order": "oldest", "after": after, "limit": min(limit, _PAGE)}
        form = members(self.api.call("GET", path_of("messages"), query=query).text)
        return [message_of(text) for text in elements(form["items"])], json.loads(form["next"])

    def follow(self, wanted: MessageFilter, pause: Callable[[], None]) -> Iterator[Sequence[Message]]:
        """Give messages as they are committed."""
        found, after = self.messages_after(None, wanted, _PAGE)
        looked = time.monotonic()
        while True:
            if found:
                yield found
            else:
                while time.monotonic() - looked < _LONGEST_LOOK:
                    pause()
            looked = time.monotonic()
            found, after = self.messages_after(int(after), wanted, _PAGE)

    def find_broadcast(self, broadcast_id: str) -> Optional[BroadcastState]:
        """Return a broadcast and how far its delivery is."""
        answer = self._found("broadcasts", broadcast_id)
        return None if answer is None else broadcast_of(answer.text)

    def broadcasts(self, limit: int = 50, after: Optional[str] = None) -> list[BroadcastState]:
        """Return the latest broadcasts."""
        return [broadcast_of(text) for text in self._pages("broadcasts", {}, check_limit(limit), after)]

    def addressed(self, broadcast_id: str) -> list[str]:
        """Return the recipients of a broadcast."""
        found = self._pages("messages", {"broadcast": broadcast_id}, None)
        return [message_of(text).recipient_id for text in found][::-1]

    # The whole

    def look_up(self, identifier: str) -> Thing:
        """Return the connection, the message or the broadcast that an identifier, or a part of one, means."""
        form = members(self.api.call("GET", path_of("show", identifier)).text)
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

        form = members(self.api.call("GET", path_of("show", identifier)).text)
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

    def _stats(self) -> dict[str, Any]:
        return self.api.call("GET", path_of("stats")).body  # type: ignore[no-any-return]

    # What only some callers need

    def doctor(self) -> list[Finding]:
        """Return what the gateway finds when it looks at its ledger and at itself."""
        return [Finding(**each) for each in self.api.call("GET", path_of("doctor")).body["checks"]]

    def token(self, agent: str, ws_id: Optional[str], scopes: Iterable[str], ttl: float) -> tuple[str, str]:
        """Have a token made that allows no more than one's own, and return it with its end (RFC 3339)."""
        body: dict[str, Any] = {"agent": agent, "scopes": list(scopes), "ttl": ttl}
        if ws_id is not None:
            body["ws_id"] = ws_id
        made = self.api.call("POST", path_of("tokens"), body=body).body
        return made["token"], made["expires_at"]

    def sampler(self, timeout: float = HEARTBEAT_TIMEOUT) -> RemoteSampler:
        """Return what takes overviews. The gateway says from when on a connection is slow."""
        return RemoteSampler(self.api)

    @cached_property
    def delivery(self) -> RemoteDelivery:
        """Receiving without a socket."""
        return RemoteDelivery(self.api, self.sizes)

    @property
    def batch(self) -> RemoteBatch:
        """Many messages in one request."""
        return RemoteBatch(self.api, self.sizes)

    @property
    def webhooks(self) -> RemoteWebhooks:
        """Events that another service brought."""
        return RemoteWebhooks(self.api)

    @property
    def maintenance(self) -> RemoteMaintenance:
        """Prune, export, backup."""
        return RemoteMaintenance(self.api)

    def changes(self) -> RemoteChanges:
        """Return a `Changes`, which asks to look again about four times a second."""
        return RemoteChanges()

    def again(self) -> RemoteLedger:
        """Return the same ledger for another thread."""
        return RemoteLedger(self.api.again())

    # Requests

    def _found(self, *parts: str) -> Optional[Answer]:
        try:
            return self.api.call("GET", path_of(*parts))
        except NotFound:
            return None

    def _keyed(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> Answer:
        answer = self.api.call(method, path, body=body, key=self._key)
        self._replayed = answer.replayed
        return answer

    def _pages(
        self, what: str, query: Mapping[str, Any], limit: Optional[int], after: Optional[str] = None
    ) -> list[str]:
        """Return the texts of the items of all pages: at most `limit`."""
        found: list[str] = []
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            form = members(
                self.api.call("GET", path_of(what), query={**query, "limit": size, "after": after}).text
            )
            found += elements(form["items"])
            after = json.loads(form["next"])
            if after is None:
                break
        return found

    def _counts(self, sent: Sent) -> DeliveryCounts:
        broadcast_id = getattr(sent, "broadcast_id", None)
        if broadcast_id is not None:
            state = self.find_broadcast(broadcast_id)
            return DeliveryCounts(0, 0, 0) if state is None else state.counts
        found = [self.message(message.msg_id) for message in cast("Sequence[Message]", sent)]
        there = [message for message in found if message is not None]
        confirmed = sum(message.delivered for message in there)
        aside = sum(message.rejected_at is not None for message in there)
        return DeliveryCounts(confirmed, len(there) - confirmed - aside, aside)

    def _content(self, content: object, msg_type: str, sender_id: Optional[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "content": Json(encode_content(content, self.sizes.content)),
            "msg_type": check_name(msg_type, "message type"),
        }
        return body if sender_id is None else {**body, "sender_id": sender_id}


def _object(metadata: Union[Mapping[str, Any], Json]) -> Json:
    from ws_manager.core.validation import encode_metadata

    return encode_metadata(metadata, sizes().metadata)


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
