"""ws-manager: the connection registry and message ledger for agents that hold WebSocket connections.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ws_manager.version import __version__

if TYPE_CHECKING:
    from ws_manager.client.agent import AgentClient
    from ws_manager.client.handlers import AttemptFailed, MessageRejected
    from ws_manager.client.receipts import AgentMessage
    from ws_manager.core.functions import (
        add_connection,
        broadcast,
        connection_stats,
        get_active_connections,
        get_db,
        get_message_history,
        heartbeat_check,
        remove_connection,
        send_message,
    )
    from ws_manager.core.ledger import Ledger, open_ledger
    from ws_manager.core.pool import ConnectionPool
    from ws_manager.core.webhooks import WebhookOutcome
    from ws_manager.errors import (
        Conflict,
        GatewayUnavailable,
        InvalidInput,
        InvalidSignature,
        LedgerBusy,
        LedgerError,
        LedgerFull,
        LedgerReplaced,
        LedgerSealed,
        LedgerUnreachable,
        MissingExtra,
        NoAnswer,
        NotAuthorised,
        NotFound,
        TransactionOpen,
        WsManagerError,
    )
    from ws_manager.models import Connection, Message
    from ws_manager.settings import DB_PATH
    from ws_manager.stripe.events import EventRoute, handle_stripe_webhook

_HOMES = {
    "ws_manager.client.agent": ("AgentClient",),
    "ws_manager.client.handlers": ("AttemptFailed", "MessageRejected"),
    "ws_manager.client.receipts": ("AgentMessage",),
    "ws_manager.core.functions": (
        "add_connection",
        "broadcast",
        "connection_stats",
        "get_active_connections",
        "get_db",
        "get_message_history",
        "heartbeat_check",
        "remove_connection",
        "send_message",
    ),
    "ws_manager.core.ledger": ("Ledger", "open_ledger"),
    "ws_manager.core.pool": ("ConnectionPool",),
    "ws_manager.errors": (
        "Conflict",
        "GatewayUnavailable",
        "InvalidInput",
        "InvalidSignature",
        "LedgerBusy",
        "LedgerError",
        "LedgerFull",
        "LedgerReplaced",
        "LedgerUnreachable",
        "LedgerSealed",
        "MissingExtra",
        "NoAnswer",
        "NotAuthorised",
        "NotFound",
        "TransactionOpen",
        "WsManagerError",
    ),
    "ws_manager.models": ("Connection", "Message"),
    "ws_manager.settings": ("DB_PATH",),
    "ws_manager.core.webhooks": ("WebhookOutcome",),
    "ws_manager.stripe.events": ("EventRoute", "handle_stripe_webhook"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DB_PATH",
    "AgentClient",
    "AgentMessage",
    "AttemptFailed",
    "Conflict",
    "Connection",
    "ConnectionPool",
    "EventRoute",
    "GatewayUnavailable",
    "InvalidInput",
    "InvalidSignature",
    "Ledger",
    "LedgerBusy",
    "LedgerError",
    "LedgerFull",
    "LedgerReplaced",
    "LedgerSealed",
    "LedgerUnreachable",
    "Message",
    "MessageRejected",
    "MissingExtra",
    "NoAnswer",
    "NotAuthorised",
    "NotFound",
    "TransactionOpen",
    "WebhookOutcome",
    "WsManagerError",
    "__version__",
    "add_connection",
    "broadcast",
    "connection_stats",
    "get_active_connections",
    "get_db",
    "get_message_history",
    "handle_stripe_webhook",
    "heartbeat_check",
    "open_ledger",
    "remove_connection",
    "send_message",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
