"""What an agent asks the gateway to send, in its connection's name."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Optional, Union

from ws_manager.core.ledger import Ledger
from ws_manager.core.once import broadcasting_key, sending_key
from ws_manager.core.validation import check_name
from ws_manager.errors import Conflict, LedgerBusy, NotFound, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.quotas import Account
from ws_manager.protocol.ask_frames import ReplyRequest
from ws_manager.protocol.attempt_frames import (
    CountPending,
    Failed,
    Started,
    attempt_frame,
    pending_count_frame,
)
from ws_manager.protocol.frames import (
    AgentRequest,
    broadcasted_frame,
    failure_frame,
    sent_frame,
)
from ws_manager.protocol.request_frames import BroadcastRequest, SendRequest
from ws_manager.tokens import Claims


class Performed(NamedTuple):
    """A request that was performed.

    Attributes:
        frame: answers it.
        settled: the seq of the message that it has settled; None if it has settled nothing.
        confirmed: whether that message is confirmed; otherwise it is set aside.
    """

    frame: str
    settled: Optional[int] = None
    confirmed: bool = False


class RequestPerformer:
    """Performs the requests of one connection.

    Args:
        threads: of the ledger.
        sender: the connection's ws_id.
        epoch: of its registration.
        claims: what its token allows.
        account: pays for what is sent.
    """

    __slots__ = ("_account", "_claims", "_registration", "_sender", "_threads")

    def __init__(
        self, threads: LedgerThreads, sender: str, epoch: int, claims: Claims, account: Account
    ) -> None:
        self._threads = threads
        self._sender = sender
        self._registration = sender, epoch
        self._claims = claims
        self._account = account

    def perform(self, request: AgentRequest) -> asyncio.Future[Performed]:
        """Perform a request on the writing thread."""
        return self._threads.write(lambda ledger: self._perform(ledger, request))

    def _perform(self, ledger: Ledger, request: AgentRequest) -> Performed:
        try:
            if isinstance(request, SendRequest):
                return Performed(self._send(ledger, request))
            if isinstance(request, ReplyRequest):
                msg_id = ledger.delivery.reply(*self._registration, request.seq, request.content)
                # It is not paid for: there is at most one to each ask, which was.
                return Performed(sent_frame(request.ref, msg_id), request.seq, confirmed=True)
            if isinstance(request, BroadcastRequest):
                return Performed(self._broadcast(ledger, request))
            if isinstance(request, CountPending):
                count = ledger.delivery.count_pending(self._sender)
                return Performed(pending_count_frame(request.ref, count))
            return self._attempt(ledger, request)
        except WsManagerError as error:
            if isinstance(error, Conflict) and ledger.delivery.why_void(
                *self._registration, self._claims.agent
            ):
                # The socket is being closed. The agent may say it on its next one, and clients repeat what was busy.
                what = "this socket's registration is void: say it again on the next one"
                error = LedgerBusy(what, cause=what)
            return Performed(failure_frame(request.ref, error.code, error.public_message))

    def _attempt(self, ledger: Ledger, request: Union[Started, Failed]) -> Performed:
        if isinstance(request, Started):
            attempt = ledger.delivery.begin(*self._registration, request.seq)
        else:
            attempt = ledger.delivery.fail(*self._registration, request.seq, request.reason)
        frame = attempt_frame(request.ref, attempt.number, set_aside=attempt.set_aside)
        return Performed(frame, request.seq if attempt.set_aside else None)

    def _send(self, ledger: Ledger, request: SendRequest) -> str:
        self._claims.require("send")
        self._account.check()
        to = check_name(request.to, "ws_id", known=True)
        subject = self._claims.agent

        def sent() -> str:
            content, msg_type, trace = request.content, request.msg_type, request.traceparent
            admit = self._account.spend
            if request.asks:
                message = ledger.ask(
                    to, content, msg_type, self._sender, subject=subject, traceparent=trace, admit=admit
                )
            else:
                message = ledger.send(to, content, msg_type, self._sender, traceparent=trace, admit=admit)
            if message is None:
                raise NotFound(f"no active connection {to}")
            return message.msg_id

        operation = "ask" if request.asks else "send"
        key = sending_key(
            subject, request.key, to, request.content, request.msg_type, self._sender, operation
        )
        return sent_frame(request.ref, ledger.once(key, sent)[0])

    def _broadcast(self, ledger: Ledger, request: BroadcastRequest) -> str:
        self._claims.require("broadcast")
        agent = None if request.agent is None else check_name(request.agent, "agent", known=True)
        self._account.check()
        count = 0

        def sent() -> str:
            nonlocal count
            broadcast = ledger.broadcast(
                request.content,
                agent=agent,
                msg_type=request.msg_type,
                sender_id=self._sender,
                traceparent=request.traceparent,
                admit=self._account.spend,
            )
            count = len(broadcast.recipients)
            return broadcast.broadcast_id

        key = broadcasting_key(
            self._claims.agent, request.key, agent, None, request.content, request.msg_type, self._sender
        )
        broadcast_id, replayed = ledger.once(key, sent)
        known = ledger.find_broadcast(broadcast_id) if replayed else None
        return broadcasted_frame(request.ref, broadcast_id, count if known is None else known.recipients)
