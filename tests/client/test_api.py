"""Requests that get lost, or are answered by something that is not the gateway."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.road import Road, Way, answered, hang_up, ledger_behind, lose_the_answer, page, say
from tests.support import db_of, gateway_in_a_thread, run, until
from ws_manager import Conflict, GatewayUnavailable, open_ledger
from ws_manager.client import api, remote_delivery, remote_parts
from ws_manager.client.api import RETRIES, ApiClient
from ws_manager.client.remote import RemoteLedger
from ws_manager.core.read.overview import OverviewQuery
from ws_manager.models import MessageWorker
from ws_manager.repository.findings import MessageFilter


@pytest.fixture
def port(database: Path) -> Iterator[int]:
    """The port of a gateway that asks for no tokens."""
    with gateway_in_a_thread(database) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses."""
    for module in (api, remote_parts):
        monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.002)


@pytest.mark.parametrize(
    "way",
    [
        hang_up,
        lose_the_answer,
        answered(40),
        page("502 Bad Gateway"),
        page("503 Service Unavailable", "Retry-After: 3600"),
        page("504 Gateway Timeout"),
        page("408 Request Timeout"),
        page("429 Too Many Requests"),
    ],
    ids=["hung up", "answer lost", "answer cut off", "502", "503", "504", "408", "429"],
)
def test_a_request_is_sent_again_and_done_once(port: int, database: Path, way: Way) -> None:
    with open_ledger(database) as local:
        local.connect("octavia", "ws-001")
        with ledger_behind(port, way, way) as (ledger, road):
            sent = ledger.send("ws-001", 1)
            assert sent is not None
            assert ledger.broadcast(2).recipients == ["ws-001"]
            assert road.requests >= 3
        assert local.stats()["total_messages"] == 2
        assert local.message(sent.msg_id) == sent


def test_what_ends_is_ended_once_and_said_to_be(port: int, database: Path) -> None:
    with open_ledger(database) as local:
        local.connect("octavia", "ws-001")
    with ledger_behind(port, lose_the_answer) as (ledger, _):
        assert ledger.disconnect("ws-001", "maintenance")
    with open_ledger(database) as local:
        local.bar("octavia")
    with ledger_behind(port, lose_the_answer) as (ledger, _):
        assert ledger.unbar("octavia")


@pytest.mark.parametrize(
    "status", ["200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "302 Found"]
)
def test_a_proxys_answer_is_not_the_gateways(port: int, status: str) -> None:
    way = page(status, "Location: http://127.0.0.1:1/")
    with ledger_behind(port, way) as (ledger, road):
        with pytest.raises(GatewayUnavailable, match=rf"answered {status[:3]}, and not as a gateway does"):
            ledger.find("ws-001")
        assert road.requests == 1


def test_it_does_not_try_for_ever(port: int) -> None:
    with ledger_behind(port, *[hang_up] * 100) as (ledger, road):
        with pytest.raises(GatewayUnavailable, match="does not answer"):
            ledger.stats()
        assert road.requests == RETRIES + 1


def test_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with RemoteLedger(ApiClient(url, lambda: None)) as ledger, pytest.raises(GatewayUnavailable) as failed:
        ledger.stats()
    assert str(failed.value) == f"the gateway at {url} does not answer: Connection refused"


def as_json(body: str, kind: str = "application/json", status: str = "200 OK") -> Way:
    """Answer with a body that is said to be JSON."""
    head = f"HTTP/1.1 {status}\nContent-Type: {kind}\nContent-Length: {len(body)}\nConnection: close\n\n"
    return say(head + body)


def endless(head: str, piece: bytes) -> Way:
    """Answer without an end."""

    def way(peer: socket.socket, _road: Road) -> None:
        peer.recv(65536)
        peer.sendall(f"HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n".encode())
        while True:
            peer.sendall(piece)

    return way


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (as_json("hello"), "is not a JSON object"),
        (as_json("[1,2]"), "is not a JSON object"),
        (as_json("[" * 100_000), "is not a JSON object"),
        (as_json("{}"), "lacks items"),
        (as_json('{"items":5,"next":null}'), "has no list of items"),
        (as_json('{"items":[],"next":"1"}'), "has a next page without end"),
        (
            as_json('{"detail":1,"code":[]}', "application/problem+json", "409 Conflict"),
            "not as a gateway does",
        ),
        (endless("Content-Type: application/json\r\n", b"[1," * 20_000), "has no end"),
        (endless("Content-Type: application/problem+json\r\n", b"x" * 60_000), "has no end"),
    ],
)
def test_an_answer_that_no_gateway_gives_is_one_error(
    port: int, monkeypatch: pytest.MonkeyPatch, way: Way, told: str
) -> None:
    monkeypatch.setattr(api, "MOST_BYTES", 1_000_000)
    with ledger_behind(port, *[way] * 20) as (ledger, _), pytest.raises(GatewayUnavailable, match=told):
        ledger.connections()


def test_a_page_that_comes_again_and_again_is_noticed(port: int) -> None:
    connection = (
        '{"ws_id":"a","agent":"b","metadata":{},"connected_at":"","last_heartbeat":"","status":"active",'
        '"message_count":0,"db_id":1,"disconnected_at":null,"epoch":1,"confirmed_seq":0,"close_code":null,'
        '"close_reason":null,"gateway":null,"pending":0}'
    )
    with ledger_behind(port, *[as_json(f'{{"items":[{connection}],"next":"a"}}')] * 20) as (ledger, road):
        with pytest.raises(GatewayUnavailable, match="without end"):
            ledger.connections()
        assert road.requests == 2


@pytest.mark.parametrize(
    "line", ["hello", "[]", '{"line":0,"ok":true}', '{"line":2,"ok":true}', '{"line":1,"ok":false}']
)
def test_the_answer_to_a_line_that_no_gateway_gives(port: int, line: str) -> None:
    with ledger_behind(port, *[as_json(line + "\n", "application/x-ndjson")] * 20) as (ledger, _):
        (outcome,) = ledger.batch.send([ledger.batch.message(1, "data", "ws-001")])
        assert isinstance(outcome, GatewayUnavailable)


class TestBatch:
    @pytest.mark.parametrize("most", [0, 100, 300, 5000, 40_000])
    def test_lines_without_an_answer_are_sent_again_and_committed_once(
        self, port: int, database: Path, most: int
    ) -> None:
        with open_ledger(database) as local:
            local.connect("octavia", "ws-001")
            with ledger_behind(port, *[answered(most)] * 3) as (ledger, road):
                batch = ledger.batch
                outcomes = batch.send([batch.message(number, "data", "ws-001") for number in range(1300)])
                assert road.requests == 4
            assert all(isinstance(outcome, str) for outcome in outcomes)
            assert len(set(outcomes)) == local.stats()["total_messages"] == 1300
            for number in (0, 499, 500, 1299):
                message = local.message(str(outcomes[number]))
                assert message is not None
                assert message.payload == number

    def test_a_gateway_that_does_not_come_back_leaves_the_rest_with_its_error(
        self, port: int, database: Path
    ) -> None:
        with open_ledger(database) as local:
            local.connect("octavia", "ws-001")
        with ledger_behind(port, answered(50_000), *[hang_up] * 100) as (ledger, _):
            batch = ledger.batch
            outcomes = batch.send([batch.message(number, "data", "ws-001") for number in range(1300)])
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds == {str, GatewayUnavailable}


class TestDownload:
    def test_an_export_that_breaks_off_is_not_taken_for_whole(self, port: int, database: Path) -> None:
        with open_ledger(database) as local:
            local.connect("octavia", "ws-001")
            for _ in range(20):
                local.send("ws-001", "x" * 100_000)
        with (
            ledger_behind(port, answered(500_000)) as (ledger, _),
            pytest.raises(GatewayUnavailable, match="broke off"),
        ):
            list(ledger.maintenance.export_lines())

    def test_half_a_backup_is_not_left(self, port: int, tmp_path: Path) -> None:
        target = tmp_path / "copy.db"
        with ledger_behind(port, answered(50_000)) as (ledger, _):
            with pytest.raises(GatewayUnavailable, match="broke off"):
                ledger.maintenance.backup(target)
            assert not target.exists()
            while not target.exists():
                # Until the gateway has noticed that the first reader is gone.
                with contextlib.suppress(Conflict):
                    ledger.maintenance.backup(target)
        with open_ledger(target, read_only=True) as copy:
            assert copy.stats()["total_messages"] == 0


def test_a_hold_that_was_lost_is_taken_again(port: int, database: Path) -> None:
    with open_ledger(database) as local, ledger_behind(port) as (ledger, _):
        local.connect("octavia", "ws-001")
        local.send("ws-001", 1)
        with ledger.delivery.holding("ws-001") as connection:
            # As if the gateway had been away for longer than it lasts.
            local._store.holds.delete_before("9999")
            (message,) = ledger.delivery.pending_held(connection, 0, 10)
            ledger.delivery.confirm_held(connection, [message.seq])
        found = local.message(message.msg_id)
        assert found is not None
        assert found.delivered


def test_a_hold_lasts_however_long_its_holder_asks_nothing(
    port: int, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_delivery, "_RENEWED_SECONDS", 0.05)
    query = "SELECT until FROM holds"
    with open_ledger(database) as local, ledger_behind(port) as (ledger, _):
        local.connect("octavia", "ws-001")
        with ledger.delivery.holding("ws-001"):
            for _ in range(3):
                before = db_of(local).value(query)
                run(until(functools.partial(lambda before: db_of(local).value(query) != before, before)))
            # As if the gateway had been away for longer than it lasts.
            local._store.holds.delete_before("9999")
            run(until(lambda: db_of(local).value(query) is not None))
            with pytest.raises(Conflict, match="another receiver"), local.delivery.holding("ws-001"):
                pass
        with local.delivery.holding("ws-001"):
            pass


@pytest.mark.parametrize("verb", ["take", "begin", "fail", "reject"])
def test_a_receiver_whose_answer_was_lost_has_done_it_once(port: int, database: Path, verb: str) -> None:
    with open_ledger(database) as local, ledger_behind(port) as (ledger, road):
        local.connect("octavia", "ws-001")
        sent = local.send("ws-001", 1)
        assert sent is not None
        assert sent.db_id is not None
        delivery, seq = ledger.delivery, sent.db_id

        def lose(wanted: str) -> None:
            if wanted == verb:
                road.lose_the_next()

        lose("take")
        with delivery.holding("ws-001", MessageWorker("worker-1", 3)) as connection:
            lose("begin")
            assert delivery.begin("ws-001", connection.epoch, seq).number == 1
            if verb == "fail":
                lose("fail")
                with pytest.raises(Conflict, match="was not started"):
                    delivery.fail("ws-001", connection.epoch, seq, "exit code 1")
            lose("reject")
            delivery.reject_held(connection, seq, "why")
        timeline = [(entry.what, entry.detail) for entry in local.explain(sent.msg_id).timeline]
        assert [entry for entry in timeline if entry[0] in ("started", "failed")] == [
            ("started", "attempt 1 of 3"),
            *([("failed", "attempt 1 of 3: exit code 1")] if verb == "fail" else []),
        ]
        assert ("set aside", "why") in timeline


class TestWhoStays:
    """Follows, receives or watches while the gateway is away for longer than a request is repeated."""

    def test_who_follows_goes_on(self, port: int, database: Path) -> None:
        with open_ledger(database) as local, ledger_behind(port) as (ledger, road):
            local.connect("octavia", "ws-001")
            local.send("ws-001", 1)
            looks = 0

            def pause() -> None:
                nonlocal looks
                looks += 1
                if road.requests > 30:
                    road.come_back()

            following = ledger.follow(MessageFilter(since="2000-01-01T00:00:00.000000+00:00"), pause)
            assert [message.payload for message in next(following)] == [1]
            local.send("ws-001", 2)
            road.go_away()
            assert [message.payload for message in next(following)] == [2]
            assert looks

    def test_what_was_received_is_confirmed_when_it_is_back(self, port: int, database: Path) -> None:
        with open_ledger(database) as local, ledger_behind(port) as (ledger, road):
            local.connect("octavia", "ws-001")
            local.send("ws-001", 1)
            delivery = ledger.delivery
            with delivery.holding("ws-001") as connection:
                (message,) = delivery.pending_held(connection, 0, 10)
                road.go_away()
                delivery.confirm_held(connection, [message.seq])
                with pytest.raises(GatewayUnavailable):
                    delivery.pending_held(connection, message.seq, 10)
                # Its hold has ended meanwhile.
                local._store.holds.delete_before("9999")
                road.come_back()
                assert delivery.pending_held(connection, message.seq, 10) == []
            found = local.message(message.msg_id)
            assert found is not None
            assert found.delivered

    def test_what_cannot_be_confirmed_in_the_end_is_an_error(self, port: int, database: Path) -> None:
        with open_ledger(database) as local, ledger_behind(port) as (ledger, road):
            local.connect("octavia", "ws-001")
            local.send("ws-001", 1)
            with pytest.raises(GatewayUnavailable), ledger.delivery.holding("ws-001") as connection:
                (message,) = ledger.delivery.pending_held(connection, 0, 10)
                road.go_away()
                ledger.delivery.confirm_held(connection, [message.seq])

    def test_who_watches_sees_that_nobody_answers(self, port: int) -> None:
        with ledger_behind(port) as (ledger, road):
            sampler = ledger.sampler()
            assert sampler.sample(OverviewQuery()).gateway_runs
            road.go_away()
            asked = road.requests
            assert not sampler.sample(OverviewQuery()).gateway_runs
            # Asked once, so that the screen stays alive.
            assert road.requests <= asked + 2
            road.come_back()
            assert sampler.sample(OverviewQuery()).gateway_runs

    def test_who_begins_to_watch_gets_the_error(self, port: int) -> None:
        with ledger_behind(port, *[hang_up] * 100) as (ledger, _), pytest.raises(GatewayUnavailable):
            ledger.sampler().sample(OverviewQuery())
