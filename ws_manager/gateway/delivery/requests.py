"""An agent's requests: to send to one connection, or to many."""

from __future__ import annotations

from ws_manager.core.ledger import Ledger
from ws_manager.core.validation import check_name
from ws_manager.errors import WsManagerError
from ws_manager.gateway.quotas import Account
from ws_manager.protocol.frames import AgentRequest, SendRequest, failure_frame, result_frame
from ws_manager.tokens import Claims


def perform(ledger: Ledger, sender: str, request: AgentRequest, claims: Claims, account: Account) -> str:
    """Perform a request in the name of the connection that made it, and return the frame that answers it.

    Args:
        ledger: of the writing thread.
        sender: the ws_id of that connection.
        request: the request.
        claims: of its token, which needs the scope for it.
        account: pays for what is sent.
    """
    try:
        if not isinstance(request, SendRequest):
            claims.require("broadcast")
            agent = None if request.agent is None else check_name(request.agent, "agent", known=True)
            account.check()
            sent = ledger.broadcast(
                request.content,
                agent=agent,
                msg_type=request.msg_type,
                sender_id=sender,
                admit=account.spend,
            )
            return result_frame(request.ref, sent.broadcast_id, len(sent.recipients))
        claims.require("send")
        account.check()
        message = ledger.send(
            check_name(request.to, "ws_id", known=True),
            request.content,
            request.msg_type,
            sender_id=sender,
            admit=account.spend,
        )
    except WsManagerError as error:
        return failure_frame(request.ref, error.code, error.public_message)
    if message is None:
        return failure_frame(request.ref, "not_found", f"no active connection {request.to}")
    return result_frame(request.ref, message.msg_id)
