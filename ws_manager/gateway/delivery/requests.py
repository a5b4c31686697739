"""What an agent asks of the gateway: to send to one, or to many."""

from __future__ import annotations

from ws_manager.core.delivery import Delivery
from ws_manager.core.validation import check_name
from ws_manager.errors import WsManagerError
from ws_manager.gateway.http.handshake import told_to_agents
from ws_manager.gateway.quotas import Account
from ws_manager.protocol.frames import AgentRequest, SendRequest, failure_frame, result_frame
from ws_manager.tokens import Claims


def perform(delivery: Delivery, sender: str, request: AgentRequest, claims: Claims, account: Account) -> str:
    """Do what a connection asks, in its name, and return the frame that answers it.

    Args:
        delivery: of the writing thread.
        sender: the asking connection's ws_id.
        request: what it asks.
        claims: of its token, which has to have the scope for it.
        account: pays for what is sent.
    """
    registry = delivery.registry
    try:
        if not isinstance(request, SendRequest):
            claims.require("broadcast")
            agent = None if request.agent is None else check_name(request.agent, "agent", known=True)
            account.check()
            sent = registry.broadcast(
                request.content,
                agent=agent,
                msg_type=request.msg_type,
                sender_id=sender,
                admit=account.spend,
            )
            return result_frame(request.ref, sent.broadcast_id, len(sent.recipients))
        claims.require("send")
        account.check()
        message = registry.send(
            check_name(request.to, "ws_id", known=True),
            request.content,
            request.msg_type,
            sender_id=sender,
            admit=account.spend,
        )
    except WsManagerError as error:
        return failure_frame(request.ref, error.code, told_to_agents(error))
    if message is None:
        return failure_frame(request.ref, "not_found", f"no active connection {request.to}")
    return result_frame(request.ref, message.msg_id)
