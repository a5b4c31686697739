"""Several gateways on one ledger in PostgreSQL: which run, which can be called, and what becomes of theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import open_socket
from ws_manager import open_ledger
from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.output.standing import gateways_text
from ws_manager.core.ledger import Ledger
from ws_manager.core.presence import living_gateways
from ws_manager.errors import GatewayUnavailable
from ws_manager.models import Gateway, seconds_before, utc_now
from ws_manager.settings import located


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    with open_ledger(postgres_url) as ledger:
        yield ledger


def start(ledger: Ledger, url: str, name: str, *, host: str = "", left: float = 60.0) -> None:
    """Write a gateway, and its lease with the seconds that are left; on another machine where a host is given."""
    now = utc_now()
    hold = ledger.delivery.record_gateway(Gateway(name, 1, url, now, now), left)
    with psycopg.connect(ledger._store.db.url, autocommit=True) as session:  # type: ignore[attr-defined]
        session.execute(
            "UPDATE ws_manager.leases SET host = coalesce(nullif(%s, ''), host) WHERE gateway = %s",
            (host, name),
        )
    assert hold.lease is not None


def test_one_on_this_machine_is_called(ledger: Ledger, postgres_url: str) -> None:
    start(ledger, "http://127.0.0.1:1", "g-1")
    start(ledger, "http://127.0.0.1:2", "g-2", host="far")
    start(ledger, "http://127.0.0.1:3", "g-3", left=-1)
    assert living_gateways(ledger._store) == {"g-1", "g-2"}
    assert gateway_url(located(postgres_url)) == "http://127.0.0.1:1"
    assert [gateway.id for gateway in ledger.running_gateways()] == ["g-1", "g-2"]
    assert gateways_text(ledger.running_gateways()) == (
        "2 gateways run: http://127.0.0.1:1, http://127.0.0.1:2"
    )


def test_one_on_another_machine_is_called_by_an_address_that_others_reach(
    ledger: Ledger, postgres_url: str
) -> None:
    start(ledger, "http://127.0.0.1:1", "g-1", host="far")
    with pytest.raises(GatewayUnavailable, match="on another machine") as raised:
        gateway_url(located(postgres_url))
    assert raised.value.hint is not None
    assert "--url" in raised.value.hint
    start(ledger, "https://gateway.example.com:8765", "g-2", host="farther")
    assert gateway_url(located(postgres_url)) == "https://gateway.example.com:8765"


def test_the_same_address_on_two_machines_is_two_gateways(ledger: Ledger) -> None:
    start(ledger, "http://127.0.0.1:8765", "g-1")
    start(ledger, "http://127.0.0.1:8765", "g-2")
    start(ledger, "http://127.0.0.1:8765", "g-3", host="far")
    assert [gateway.id for gateway in ledger.running_gateways()] == ["g-2", "g-3"]


def test_show_says_where_the_socket_is(ledger: Ledger) -> None:
    start(ledger, "http://127.0.0.1:1", "g-1")
    start(ledger, "http://127.0.0.1:2", "g-2", host="far")
    open_socket(ledger, "octavia", "ws-001", gateway="g-2")
    explained = ledger.explain("ws-001")
    assert explained.verdict == "the socket of ws-001 is open at http://127.0.0.1:2"
    facts = json.loads(json.dumps(explained.facts))
    assert (facts["gateway"], facts["gateway_url"], facts["gateway_runs"]) == (
        "g-2",
        "http://127.0.0.1:2",
        True,
    )


def test_agents_have_one_timeout_after_the_lease_of_their_gateway(ledger: Ledger) -> None:
    """It may have kept their sockets until shortly before, and noted nothing meanwhile."""
    start(ledger, "http://127.0.0.1:1", "g-1")
    start(ledger, "http://127.0.0.1:2", "g-2")
    open_socket(ledger, "octavia", "ws-001", gateway="g-1")

    def swept(silent: float, lease_ended: float) -> list[str]:
        with psycopg.connect(ledger._store.db.url, autocommit=True) as session:  # type: ignore[attr-defined]
            session.execute("SET search_path = ws_manager")
            before = seconds_before(utc_now(), silent)
            session.execute("UPDATE connections SET last_heartbeat = %s", (before,))
            session.execute("UPDATE gateways SET seen_at = %s WHERE id = 'g-1'", (before,))
            session.execute(
                "UPDATE leases SET until = clock_timestamp() - %s * interval '1 s' WHERE gateway = 'g-1'",
                (lease_ended,),
            )
        return ledger.delivery.sweep("g-2", set(), 30.0, others=True)

    assert swept(200.0, -10.0) == []
    assert swept(200.0, 10.0) == []
    assert swept(200.0, 31.0) == ["ws-001"]
