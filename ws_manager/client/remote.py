"""A ledger over HTTP: every verb of `Ledger`, through a gateway.

Whoever has one calls the same verbs, and gets the same values and errors. What only the machine of the ledger can do
(such as `import`) is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Optional, Union, cast
from urllib.parse import quote

from ws_manager.client.answers import Answer
from ws_manager.client.api import ApiClient, path_of
from ws_manager.client.remote_delivery import RemoteDelivery
from ws_manager.client.remote_parts import (
    NO_STORE,
    RemoteBatch,
    RemoteChanges,
    RemoteMaintenance,
    RemoteWebhooks,
)
from ws_manager.client.remote_questions import RemoteQuestions
from ws_manager.core.ledger import Ledger
from ws_manager.core.read.conditions import Conditions
from ws_manager.core.registry import BY_AN_OPERATOR
from ws_manager.core.traceparent import check_traceparent
from ws_manager.core.validation import check_latency, check_name, check_timeout, encode_content
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.forms import connection_of, message_of
from ws_manager.models import Broadcast, Connection, Message, new_id
from ws_manager.repository.records import DeliveryCounts
from ws_manager.settings import HEARTBEAT_TIMEOUT, Sizes, sizes
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.core.heartbeat import HeartbeatReport
    from ws_manager.core.once import Key
    from ws_manager.core.retry import Retried
    from ws_manager.core.sending import Admit, Sent

_NAMES_BYTES = 6000
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 0.5


class RemoteLedger(RemoteQuestions, Ledger):
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
        """Do the same with many connections, as many in one transaction as fit into one address."""
        ended: list[str] = []
        for some in _short_enough(list(ws_ids)):
            query = {"ws_id": some, "reason": reason}
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
        body = {"latency_ms": check_latency(latency_ms)}
        try:
            self.api.call("POST", path_of("connections", ws_id, "heartbeat"), body=body)
        except NotFound:
            return False
        return True

    def heartbeat_check(self, timeout: float = HEARTBEAT_TIMEOUT) -> HeartbeatReport:
        """Disconnect the connections without a recent heartbeat."""
        from ws_manager.core.heartbeat import HeartbeatReport

        body = {"timeout": check_timeout(timeout)}
        return HeartbeatReport(**self.api.call("POST", path_of("heartbeat-checks"), body=body).body)

    # Messages

    def send(
        self,
        ws_id: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        traceparent: Optional[str] = None,
        admit: Optional[Admit] = None,
    ) -> Optional[Message]:
        """Commit one message. The token says who sends, unless an operator names a sender."""
        body = {"to": ws_id, **self._content(content, msg_type, sender_id, traceparent)}
        try:
            return message_of(self._keyed("POST", path_of("messages"), body).text)
        except NotFound:
            return None

    def ask(
        self,
        to: str,
        content: object,
        msg_type: str = "data",
        sender_id: Optional[str] = None,
        *,
        subject: str = "*",
        traceparent: Optional[str] = None,
        admit: Optional[Admit] = None,
    ) -> Optional[Message]:
        """Commit a message that wants an answer. The token says who asks, unless an operator names a sender."""
        body = {"to": to, **self._content(content, msg_type, sender_id, traceparent)}
        try:
            form = self._keyed("POST", path_of("asks"), body).body
        except NotFound:
            return None
        return Message(
            form["msg_id"],
            msg_type,
            form["sender_id"],
            form["recipient_id"],
            body["content"],
            form["asked_at"],
            delivered=form["state"] in ("confirmed", "answered"),
            db_id=form["seq"],
            traceparent=body.get("traceparent"),
            wants_reply=True,
        )

    def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
        msg_type: str = "broadcast",
        sender_id: Optional[str] = None,
        traceparent: Optional[str] = None,
        admit: Optional[Admit] = None,
    ) -> Broadcast:
        """Commit one message to each active connection. A filter has to be conditions: see `all_of`."""
        body = self._content(content, msg_type, sender_id, traceparent)
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

    def once(self, key: Optional[Key], work: Callable[[], str], *, many: bool = False) -> tuple[str, bool]:
        """Do something for a key: what `work` sends carries the key, and the gateway does it once."""
        self._key, self._replayed = None if key is None else key.name, False
        try:
            return work(), self._replayed
        finally:
            self._key = None

    # What only some callers need
    def token(
        self, agent: str, ws_id: Optional[str], scopes: Iterable[str], ttl: Optional[float]
    ) -> tuple[str, str]:
        """Have a token made that allows no more than one's own, and return it with its end (RFC 3339).

        `ttl` is in seconds; None is a day, or until one's own token ends.
        """
        body: dict[str, Any] = {"agent": agent, "scopes": list(scopes), "ttl": ttl and int(ttl)}
        if ws_id is not None:
            body["ws_id"] = ws_id
        made = self.api.call("POST", path_of("tokens"), body=body).body
        return made["token"], made["expires_at"]

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
        return RemoteWebhooks(self.api, self.sizes)

    @property
    def maintenance(self) -> RemoteMaintenance:
        """Prune, export, backup."""
        return RemoteMaintenance(self.api)

    def changes(self, gateway: Optional[str] = None) -> RemoteChanges:
        """Return a `Changes`, which asks to look again about four times a second."""
        return RemoteChanges()

    def again(self) -> RemoteLedger:
        """Return the same ledger for another thread."""
        return RemoteLedger(self.api.again())

    # Requests

    def _keyed(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None) -> Answer:
        answer = self.api.call(method, path, body=body, key=self._key)
        self._replayed = answer.replayed
        return answer

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

    def _content(
        self, content: object, msg_type: str, sender_id: Optional[str], traceparent: Optional[str]
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "content": Json(encode_content(content, self.sizes.content)),
            "msg_type": check_name(msg_type, "message type"),
        }
        if sender_id is not None:
            body["sender_id"] = sender_id
        if traceparent is not None:
            body["traceparent"] = check_traceparent(traceparent)
        return body


def _short_enough(names: Sequence[str]) -> Iterator[list[str]]:
    """Split names into lists that fit into the address of a request."""
    some, size = list[str](), 0
    for name in names:
        length = len(quote(name, errors="replace")) + len("&ws_id=")
        if some and size + length > _NAMES_BYTES:
            yield some
            some, size = [], 0
        some.append(name)
        size += length
    if some:
        yield some


def _object(metadata: Union[Mapping[str, Any], Json]) -> Json:
    from ws_manager.core.validation import encode_metadata

    return encode_metadata(metadata, sizes().metadata)
