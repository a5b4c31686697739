"""How a gateway runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Callable, Optional, Union

from ws_manager.gateway.http.stripe import StripeOptions
from ws_manager.gateway.limits import Limits
from ws_manager.settings import HEARTBEAT_TIMEOUT, Located


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway runs.

    Attributes:
        database: the ledger's file.
        hosts: the addresses to bind; `::` is every address. Without a key, only loopback addresses are allowed.
        port: the port of all addresses; 0 takes a free one.
        heartbeat_timeout: seconds without a sign of life after which a connection is lost.
        drain_seconds: over which the gateway spreads the closes of many sockets when it stops.
        key: the key that signs tokens, or a function that reads or creates it. The function runs in a thread, after
            the ledger was opened. None: no tokens are required, and every program on this machine may connect.
        public_hosts: further names by which clients address the gateway.
        origins: origins of web pages on other hosts that may connect.
        proxies: addresses and networks of proxies. The limits per address do not apply to them.
        tls: the TLS context for https and wss; None serves http and ws.
        limits: what agents may use.
        log_interval: least seconds between two rows of one connection in the heartbeat log.
        log_keep: seconds to keep those rows.
        receipts_keep: seconds to keep the journal of receipts.
        keep: seconds to keep confirmed messages and other finished rows; None keeps them for ever.
        stripe: how Stripe's webhook events are received; None turns that off.
        shared: True allows the ledger in another program's database.
        metrics_public: `/metrics` needs no token.
    """

    database: Located
    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8765
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT
    drain_seconds: float = 5.0
    # Not in the repr, because a repr may be logged.
    key: Union[bytes, Callable[[], bytes], None] = field(default=None, repr=False)
    public_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    tls: Optional[ssl.SSLContext] = None
    limits: Limits = field(default_factory=Limits)
    log_interval: float = 60.0
    log_keep: float = 86400.0
    receipts_keep: float = 86400.0
    keep: Optional[float] = None
    stripe: Optional[StripeOptions] = None
    shared: bool = False
    metrics_public: bool = False
