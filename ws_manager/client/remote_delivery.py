"""The receiving side of a ledger over HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from ws_manager.client.answers import Answer
from ws_manager.client.api import ApiClient, path_of
from ws_manager.client.remote_parts import NO_STORE
from ws_manager.core.attempts import Attempt
from ws_manager.core.delivery import Delivery
from ws_manager.core.validation import encode_content
from ws_manager.errors import Conflict, GatewayUnavailable, NotFound, WsManagerError
from ws_manager.forms import connection_of, pending_message_of
from ws_manager.models import Connection, MessageWorker, PendingMessage, new_id
from ws_manager.settings import Sizes
from ws_manager.strict_json import Json

_RENEWED_SECONDS = 10.0
"""Seconds between two renewals of a hold, which lasts for 30 s."""


class _Hold(NamedTuple):
    """A hold: its name, which stays the same whenever it is taken again, and for whom it is taken."""

    name: str
    worker: Optional[MessageWorker]


class RemoteDelivery(Delivery):
    """Receiving without a socket: what `receive` needs of `Delivery`."""

    def __init__(self, api: ApiClient, sizes: Sizes) -> None:
        super().__init__(NO_STORE, sizes)
        self._api = api
        self._holds: dict[str, _Hold] = {}
        self._owed: dict[str, int] = {}
        # For a gateway, two requests for the same hold at the same time are two receivers.
        self._taking = threading.Lock()

    @contextlib.contextmanager
    def holding(self, ws_id: str, worker: Optional[MessageWorker] = None) -> Iterator[Connection]:
        """Hold a connection's messages, alone, until the block ends; errors are those of `Delivery.holding`.

        However long the block runs without a request, the hold lasts: a thread renews it.
        """
        self._holds[ws_id] = _Hold(new_id(), worker)
        self._take(ws_id)
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(ws_id, over), daemon=True)
        renewing.start()
        try:
            connection = connection_of(self._api.call("GET", path_of("connections", ws_id)).text)
            yield connection
            self._pay(connection)
        finally:
            # Not after the hold has ended: that would take it again.
            over.set()
            renewing.join()
            # If the gateway has gone, the hold ends by itself.
            with contextlib.suppress(GatewayUnavailable, NotFound):
                query = {"hold": self._holds.pop(ws_id).name}
                self._api.call("DELETE", path_of("connections", ws_id, "hold"), query=query)

    def pending_held(self, connection: Connection, after: int, limit: int) -> list[PendingMessage]:
        """Return a holder's pending messages above a `seq`, in order."""
        self._pay(connection)
        answer = self._as_holder(
            connection.ws_id,
            lambda hold: self._api.call(
                "GET",
                path_of("connections", connection.ws_id, "pending"),
                query={"hold": hold, "after": after, "limit": limit},
            ),
        )
        if answer.body["epoch"] != connection.epoch:
            raise Conflict(
                f"{connection.ws_id} was registered again meanwhile; the messages stay pending",
                hint="the present holder receives them again",
            )
        return [pending_message_of(text) for text in answer.items()]

    def begin(self, ws_id: str, epoch: int, seq: int) -> Attempt:
        """Note that the holder begins a message; see `Delivery.begin`."""
        return self._attempt(ws_id, {"epoch": epoch, "started": seq})

    def fail(self, ws_id: str, epoch: int, seq: int, reason: str) -> Attempt:
        """Note that an attempt at a message has failed; see `Delivery.fail`.

        A Conflict may also mean that it was noted, and that the answer was lost.
        """
        return self._attempt(ws_id, {"epoch": epoch, "failed": seq, "reason": reason})

    def confirm_held(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Confirm the messages that a holder has received, by their numbers in ascending order.

        If the gateway does not answer, they are confirmed with the next request, or when the hold ends.
        """
        self._owed[connection.ws_id] = seqs[-1]
        with contextlib.suppress(GatewayUnavailable):
            self._pay(connection)

    def reject_held(self, connection: Connection, seq: int, reason: str) -> None:
        """Set one of a holder's pending messages aside; see `Delivery.reject_held`."""
        self._pay(connection)
        self._post(connection.ws_id, "receipts", {"epoch": connection.epoch, "reject": seq, "reason": reason})

    def reply_held(self, connection: Connection, seq: int, content: object) -> str:
        """Answer one of a holder's messages, and return the msg_id of the answer."""
        answer = Json(encode_content(content, self._sizes.content))
        body = {"epoch": connection.epoch, "reply": seq, "content": answer}
        return str(self._post(connection.ws_id, "receipts", body).body["answer_id"])

    def heard_held(self, connection: Connection, *, logged: bool) -> None:
        """Write a holder's sign of life, unless its connection was registered again."""
        with contextlib.suppress(Conflict, NotFound):
            body = {"epoch": connection.epoch}
            self._api.call("POST", path_of("connections", connection.ws_id, "heartbeat"), body=body)

    def _pay(self, connection: Connection) -> None:
        """Confirm what was received and could not be confirmed yet."""
        ws_id = connection.ws_id
        if ws_id in self._owed:
            self._post(ws_id, "receipts", {"epoch": connection.epoch, "ack": self._owed[ws_id]})
            del self._owed[ws_id]

    def _attempt(self, ws_id: str, body: dict[str, Any]) -> Attempt:
        answer = self._post(ws_id, "attempts", body).body
        return Attempt(answer["attempt"], answer["set_aside"])

    def _post(self, ws_id: str, what: str, body: dict[str, Any]) -> Answer:
        path = path_of("connections", ws_id, what)
        return self._as_holder(ws_id, lambda hold: self._api.call("POST", path, body={**body, "hold": hold}))

    def _as_holder(self, ws_id: str, request: Callable[[str], Answer]) -> Answer:
        """Make a request with the hold of a connection; take that again, if the gateway was away for too long."""
        hold = self._holds[ws_id].name
        try:
            return request(hold)
        except Conflict:
            self._take(ws_id)
            return request(hold)

    def _take(self, ws_id: str, api: Optional[ApiClient] = None) -> None:
        """Take a connection's hold, or renew it if it is there still; through another client, only once."""
        name, worker = self._holds[ws_id]
        query: dict[str, Any] = {"hold": name}
        if worker is not None:
            query.update(worker=worker.name, max_attempts=worker.max_attempts)
        with self._taking:
            path = path_of("connections", ws_id, "hold")
            (api or self._api).call("POST", path, query=query, patient=api is None)

    def _renew(self, ws_id: str, over: threading.Event) -> None:
        api = self._api.again()
        while not over.wait(_RENEWED_SECONDS):
            # What is wrong shows at the holder's next request.
            with contextlib.suppress(WsManagerError):
                self._take(ws_id, api)
        api.close()
