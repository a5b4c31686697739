"""What an agent asks the gateway to send, in its connection's name."""

from __future__ import annotations

import asyncio
from typing import Union

from ws_manager.core.ledger import Ledger
from ws_manager.core.once import broadcasting_key, sending_key
from ws_manager.core.validation import check_name
from ws_manager.errors import NotFound, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.quotas import Account
from ws_manager.protocol.attempt_frames import (
    CountPending,
    Failed,
    Started,
    attempt_frame,
    pending_count_frame,
)
from ws_manager.protocol.frames import (
    AgentRequest,
    BroadcastRequest,
    SendRequest,
    broadcasted_frame,
    failure_frame,
    sent_frame,
)
from ws_manager.tokens import Claims


class RequestPerformer:
    """Performs the requests of one connection.

    Args:
        threads: of the ledger.
        sender: the connection's ws_id.
        epoch: of its registration.
        claims: what its token allows.
        account: pays for what is sent.
    """

    __slots__ = ("_account", "_claims", "_epoch", "_sender", "_threads")

    def __init__(
        self, threads: LedgerThreads, sender: str, epoch: int, claims: Claims, account: Account
    ) -> None:
        self._threads = threads
        self._sender = sender
        self._epoch = epoch
        self._claims = claims
        self._account = account

    def perform(self, request: AgentRequest) -> asyncio.Future[str]:
        """Perform a request on the writing thread, and return the frame that answers it."""
        return self._threads.write(lambda ledger: self._perform(ledger, request))

    def _perform(self, ledger: Ledger, request: AgentRequest) -> str:
        try:
            if isinstance(request, SendRequest):
                return self._send(ledger, request)
            if isinstance(request, BroadcastRequest):
                return self._broadcast(ledger, request)
            if isinstance(request, CountPending):
                return pending_count_frame(request.ref, ledger.delivery.count_pending(self._sender))
            return self._attempt(ledger, request)
        except WsManagerError as error:
            return failure_frame(request.ref, error.code, error.public_message)

    def _attempt(self, ledger: Ledger, request: Union[Started, Failed]) -> str:
        registration = self._sender, self._epoch
        if isinstance(request, Started):
            attempt = ledger.delivery.begin(*registration, request.seq)
        else:
            attempt = ledger.delivery.fail(*registration, request.seq, request.reason)
        return attempt_frame(request.ref, attempt.number, set_aside=attempt.set_aside)

    def _send(self, ledger: Ledger, request: SendRequest) -> str:
        self._claims.require("send")
        self._account.check()
        to = check_name(request.to, "ws_id", known=True)

        def sent() -> str:
            message = ledger.send(
                to, request.content, request.msg_type, sender_id=self._sender, admit=self._account.spend
            )
            if message is None:
                raise NotFound(f"no active connection {to}")
            return message.msg_id

        key = sending_key(
            self._claims.agent, request.key, to, request.content, request.msg_type, self._sender
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
