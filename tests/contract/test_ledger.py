"""What every ledger does, wherever its ledger is. Only verbs and their results: no database, no file."""

from __future__ import annotations

import json
import re
import uuid

import pytest

from ws_manager import Connection, InvalidInput, get_message_history
from ws_manager.core.ledger import Ledger
from ws_manager.core.once import sending_key
from ws_manager.models import Rejection
from ws_manager.repository.findings import MessageFilter

FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
LONG_AGO = "2020-01-01T00:00:00.000000+00:00"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"


@pytest.fixture
def three(ledger: Ledger) -> Ledger:
    """A ledger with octavia twice and cipher once."""
    ledger.connect("octavia", "ws-001", {"region": "us-west"})
    ledger.connect("cipher", "ws-002", {"region": "eu-central"})
    ledger.connect("octavia", "ws-003")
    return ledger


class TestConnect:
    def test_returns_the_connection_as_the_ledger_has_it(self, ledger: Ledger) -> None:
        connection = ledger.connect("octavia", "ws-001", {"region": "us-west"})
        assert (connection.ws_id, connection.agent, connection.metadata, connection.status) == (
            "ws-001",
            "octavia",
            {"region": "us-west"},
            "active",
        )
        assert connection.message_count == 0
        assert connection.db_id == 1
        assert connection.disconnected_at is None
        assert FIXED_WIDTH.fullmatch(connection.connected_at)
        assert connection.last_heartbeat == connection.connected_at

    def test_makes_an_id_where_none_is_given(self, ledger: Ledger) -> None:
        assert uuid.UUID(ledger.connect("octavia").ws_id).version == 4

    def test_metadata_is_empty_where_none_is_given(self, ledger: Ledger) -> None:
        assert ledger.connect("octavia", "ws-001").metadata == {}

    @pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1bb", "x" * 129, "\ud800"])
    def test_refuses_a_bad_name(self, ledger: Ledger, name: str) -> None:
        with pytest.raises(InvalidInput):
            ledger.connect(name)
        with pytest.raises(InvalidInput):
            ledger.connect("octavia", name)
        assert ledger.count() == 0

    def test_refuses_metadata_that_is_no_object(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidInput, match="must be a JSON object"):
            ledger.connect("octavia", "ws-001", [1])  # type: ignore[arg-type]

    def test_keeps_any_unicode(self, ledger: Ledger) -> None:
        ledger.connect("Übersetzer 🛰", "ws [/x] שלום", {"größe": "日本"})
        assert ledger.active()[0].agent == "Übersetzer 🛰"
        assert ledger.active()[0].metadata == {"größe": "日本"}


class TestReactivation:
    def test_keeps_row_count_and_metadata(self, three: Ledger) -> None:
        three.send("ws-001", 1)
        before = three.get("ws-001")
        three.disconnect("ws-001")
        after = three.connect("octavia", "ws-001")
        assert before is not None
        assert (after.db_id, after.message_count, after.metadata) == (before.db_id, 1, {"region": "us-west"})
        assert (after.status, after.disconnected_at, after.close_reason) == ("active", None, None)

    def test_takes_metadata_that_is_given(self, three: Ledger) -> None:
        assert three.connect("octavia", "ws-001", {"new": 1}).metadata == {"new": 1}

    def test_takes_empty_metadata_that_is_given(self, three: Ledger) -> None:
        assert three.connect("octavia", "ws-001", {}).metadata == {}

    def test_begins_a_new_epoch(self, three: Ledger) -> None:
        assert three.connect("octavia", "ws-001").epoch == 2

    def test_keeps_what_is_pending(self, three: Ledger) -> None:
        three.send("ws-001", 1)
        three.disconnect("ws-001")
        connection = three.connect("octavia", "ws-001")
        assert three.count_pending(connection) == 1

    def test_does_not_count_twice(self, three: Ledger) -> None:
        three.connect("octavia", "ws-001")
        assert three.stats()["total_ever_connected"] == 3


class TestMove:
    def test_to_another_agent(self, three: Ledger) -> None:
        moved = three.connect("cipher", "ws-001")
        assert (moved.agent, moved.db_id) == ("cipher", 1)
        assert three.stats()["agents"] == {"cipher": 2, "octavia": 1}

    def test_sets_aside_what_is_pending(self, three: Ledger) -> None:
        three.send("ws-001", "for octavia")
        moved = three.connect("cipher", "ws-001")
        assert three.count_pending(moved) == 0
        message = get_message_history(three, "ws-001")[0]
        assert (message["delivered"], message["reject_reason"]) == (0, "agent changed")
        assert FIXED_WIDTH.fullmatch(message["rejected_at"])

    def test_of_a_disconnected_one(self, three: Ledger) -> None:
        three.send("ws-001", "for octavia")
        three.disconnect("ws-001")
        assert three.count_pending(three.connect("cipher", "ws-001")) == 0


class TestAdd:
    def test_keeps_its_own_timestamps(self, on_the_file: Ledger) -> None:
        added = on_the_file.import_connection(
            Connection("ws-001", "octavia", {}, LONG_AGO, "2021-05-06T07:08:09")
        )
        assert (added.connected_at, added.last_heartbeat) == (LONG_AGO, "2021-05-06T07:08:09.000000+00:00")

    def test_ignores_what_is_the_ledgers_business(self, on_the_file: Ledger) -> None:
        added = on_the_file.import_connection(
            Connection("ws-001", "octavia", message_count=99, db_id=77, epoch=5)
        )
        assert (added.message_count, added.db_id, added.epoch) == (0, 1, 1)

    def test_keeps_metadata_where_it_has_none(self, on_the_file: Ledger) -> None:
        on_the_file.connect("octavia", "ws-001", {"region": "us-west"})
        assert on_the_file.import_connection(Connection("ws-001", "octavia")).metadata == {
            "region": "us-west"
        }

    def test_refuses_what_is_no_timestamp(self, on_the_file: Ledger) -> None:
        with pytest.raises(InvalidInput, match="not a timestamp"):
            on_the_file.import_connection(Connection("ws-001", "octavia", {}, "yesterday"))


class TestDisconnect:
    def test_marks_and_keeps_the_row(self, three: Ledger) -> None:
        assert three.disconnect("ws-001")
        gone = three.find("ws-001")
        assert gone is not None
        assert (gone.status, gone.close_reason) == ("disconnected", "disconnected by an operator")
        assert FIXED_WIDTH.fullmatch(str(gone.disconnected_at))

    def test_active_ones_are_without_it(self, three: Ledger) -> None:
        three.disconnect("ws-001")
        assert three.get("ws-001") is None
        assert [c.ws_id for c in three.active()] == ["ws-002", "ws-003"]
        assert three.count() == 2

    def test_twice(self, three: Ledger) -> None:
        three.disconnect("ws-001")
        assert not three.disconnect("ws-001")

    def test_of_an_unknown_one(self, ledger: Ledger) -> None:
        assert not ledger.disconnect("ws-001")

    def test_keeps_what_is_pending(self, three: Ledger) -> None:
        three.send("ws-001", 1)
        three.disconnect("ws-001")
        assert get_message_history(three, "ws-001")[0]["rejected_at"] is None


class TestReading:
    def test_unknown_one(self, ledger: Ledger) -> None:
        assert ledger.get("ws-001") is None
        assert ledger.find("ws-001") is None

    def test_active_ones_oldest_first(self, three: Ledger) -> None:
        assert [c.ws_id for c in three.active()] == ["ws-001", "ws-002", "ws-003"]

    def test_active_ones_of_an_agent(self, three: Ledger) -> None:
        assert [c.ws_id for c in three.active("octavia")] == ["ws-001", "ws-003"]

    def test_pending_counts(self, three: Ledger) -> None:
        three.broadcast(1)
        three.send("ws-002", 2)
        counts = {connection.ws_id: three.count_pending(connection) for connection in three.active()}
        assert counts == {"ws-001": 1, "ws-002": 2, "ws-003": 1}


class TestSend:
    def test_returns_the_message(self, three: Ledger) -> None:
        message = three.send("ws-001", {"ping": True}, "probe", "ws-002")
        assert message is not None
        assert uuid.UUID(message.msg_id).version == 4
        assert (message.msg_type, message.sender_id, message.recipient_id) == ("probe", "ws-002", "ws-001")
        assert (message.content, message.payload) == ('{"ping":true}', {"ping": True})
        assert not message.delivered
        assert FIXED_WIDTH.fullmatch(message.sent_at)

    def test_is_in_the_history_and_pending(self, three: Ledger) -> None:
        message = three.send("ws-001", 1)
        assert message is not None
        row = get_message_history(three)[0]
        assert (row["msg_id"], row["delivered"], row["confirmed_at"]) == (message.msg_id, 0, None)

    def test_counts(self, three: Ledger) -> None:
        three.send("ws-001", 1)
        three.send("ws-001", 2)
        assert {c.ws_id: c.message_count for c in three.active()} == {"ws-001": 2, "ws-002": 0, "ws-003": 0}

    @pytest.mark.parametrize("ws_id", ["ws-999", "ws-001"])
    def test_to_nobody(self, three: Ledger, ws_id: str) -> None:
        three.disconnect("ws-001")
        assert three.send(ws_id, 1) is None
        assert get_message_history(three) == []

    def test_text_is_a_json_string_and_never_parsed(self, three: Ledger) -> None:
        message = three.send("ws-001", '{"a":1}')
        assert message is not None
        assert message.payload == '{"a":1}'

    @pytest.mark.parametrize(
        "content",
        [float("nan"), float("inf"), "\ud800", {1, 2}, object(), "x" * (256 * 1024), {"a": "\udfff"}],
        ids=["nan", "infinity", "surrogate", "set", "object", "too large", "nested surrogate"],
    )
    def test_refuses_what_is_no_json(self, three: Ledger, content: object) -> None:
        with pytest.raises(InvalidInput):
            three.send("ws-001", content)
        with pytest.raises(InvalidInput):
            three.broadcast(content)
        assert get_message_history(three) == []

    @pytest.mark.parametrize(
        ("msg_type", "sender"), [("", None), ("a\tb", None), ("data", ""), ("data", "a\x00")]
    )
    def test_refuses_bad_labels(self, three: Ledger, msg_type: str, sender: str) -> None:
        with pytest.raises(InvalidInput):
            three.send("ws-001", 1, msg_type, sender)
        with pytest.raises(InvalidInput):
            three.broadcast(1, msg_type=msg_type, sender_id=sender)
        assert get_message_history(three) == []


class TestBroadcast:
    def test_to_all(self, three: Ledger) -> None:
        assert three.broadcast({"event": "ping"}).recipients == ["ws-001", "ws-002", "ws-003"]
        rows = get_message_history(three)
        assert {row["recipient_id"] for row in rows} == {"ws-001", "ws-002", "ws-003"}
        assert {row["content"] for row in rows} == {'{"event":"ping"}'}
        assert {row["delivered"] for row in rows} == {0}
        assert {row["msg_type"] for row in rows} == {"broadcast"}

    def test_to_one_agent(self, three: Ledger) -> None:
        assert three.broadcast(1, agent="octavia").recipients == ["ws-001", "ws-003"]

    def test_each_recipient_has_a_message_id_of_its_own(self, three: Ledger) -> None:
        three.broadcast(1)
        assert len({row["msg_id"] for row in get_message_history(three)}) == 3

    def test_its_messages_name_it(self, three: Ledger) -> None:
        three.send("ws-001", 0)
        sent = three.broadcast(1)
        named = [row["broadcast_id"] for row in get_message_history(three)]
        assert named == [sent.broadcast_id] * 3 + [None]

    def test_counts(self, three: Ledger) -> None:
        three.broadcast(1)
        three.broadcast(2, agent="cipher")
        assert {c.ws_id: c.message_count for c in three.active()} == {"ws-001": 1, "ws-002": 2, "ws-003": 1}

    def test_not_to_the_disconnected(self, three: Ledger) -> None:
        three.disconnect("ws-002")
        assert three.broadcast(1).recipients == ["ws-001", "ws-003"]

    def test_to_nobody(self, ledger: Ledger) -> None:
        sent = ledger.broadcast(1)
        assert sent.recipients == []
        assert ledger.wait(sent, 60) == (0, 0, 0)

    def test_to_an_agent_without_connections(self, three: Ledger) -> None:
        assert three.broadcast(1, agent="nobody").recipients == []

    def test_sender_and_type(self, three: Ledger) -> None:
        three.broadcast(1, msg_type="stripe_event", sender_id="ws-002")
        assert {(row["msg_type"], row["sender_id"]) for row in get_message_history(three)} == {
            ("stripe_event", "ws-002")
        }


class TestTraceparent:
    def test_of_a_message_is_kept_and_given_to_its_receiver(self, three: Ledger) -> None:
        message = three.send("ws-001", 1, traceparent=TRACEPARENT)
        assert message is not None
        assert (message.traceparent, three.message(message.msg_id)) == (TRACEPARENT, message)
        with three.delivery.holding("ws-001") as held:
            assert [each.traceparent for each in three.delivery.pending_held(held, 0, 10)] == [TRACEPARENT]

    def test_of_a_broadcast_is_that_of_its_messages(self, three: Ledger) -> None:
        sent = three.broadcast(1, agent="octavia", traceparent=TRACEPARENT)
        three.broadcast(2)
        found = [(row["content"], row["traceparent"]) for row in get_message_history(three)]
        assert sorted(found, key=str) == [*[("1", TRACEPARENT)] * 2, *[("2", None)] * 3]
        state = three.find_broadcast(sent.broadcast_id)
        assert state is not None
        assert state.traceparent == TRACEPARENT
        assert [each.traceparent for each in three.broadcasts()] == [None, TRACEPARENT]

    def test_of_a_broadcast_to_nobody_is_kept(self, ledger: Ledger) -> None:
        ledger.broadcast(1, traceparent=TRACEPARENT)
        assert [each.traceparent for each in ledger.broadcasts()] == [TRACEPARENT]

    def test_in_a_batch_is_that_of_each(self, three: Ledger) -> None:
        traces = [None, TRACEPARENT, OTHER_TRACEPARENT] * 400
        batch = three.batch
        batch.send([batch.message(n, "data", "ws-001", trace) for n, trace in enumerate(traces)])
        found = three.messages(MessageFilter(ws_id="ws-001"), len(traces))
        assert [each.traceparent for each in found][::-1] == traces
        sent = batch.broadcast([batch.message("all", "data", None, trace) for trace in traces[:3]])
        assert len(sent) == 3
        assert [each.traceparent for each in three.broadcasts()] == traces[2::-1]

    def test_of_a_later_version_is_kept_in_the_known_form(self, three: Ledger) -> None:
        message = three.send("ws-001", 1, traceparent=f"cc{TRACEPARENT[2:]}-more")
        assert message is not None
        assert message.traceparent == TRACEPARENT

    @pytest.mark.parametrize("text", ["", "nonsense", TRACEPARENT.upper(), f"ff{TRACEPARENT[2:]}"])
    def test_that_is_invalid_is_refused_and_nothing_is_sent(self, three: Ledger, text: str) -> None:
        for sending in (
            lambda: three.send("ws-001", 1, traceparent=text),
            lambda: three.broadcast(1, traceparent=text),
            lambda: three.batch.message(1, "data", "ws-001", text),
        ):
            with pytest.raises(InvalidInput, match="the traceparent is not valid"):
                sending()
        assert get_message_history(three) == []

    def test_is_no_part_of_what_a_key_stands_for(self, three: Ledger) -> None:
        key = sending_key("*", "one", "ws-001", "1", "data")

        def send_within(trace: str) -> tuple[str, bool]:
            def sent() -> str:
                message = three.send("ws-001", 1, traceparent=trace)
                assert message is not None
                return message.msg_id

            return three.once(key, sent)

        # Whoever traces gives a request that it repeats a new parent-id.
        msg_id, _ = send_within(TRACEPARENT)
        again, _ = send_within(OTHER_TRACEPARENT)
        assert again == msg_id
        assert [row["traceparent"] for row in get_message_history(three)] == [TRACEPARENT]

    def test_comes_again_with_a_retry_and_a_replay(self, three: Ledger, on_the_file: Ledger) -> None:
        message = three.send("ws-001", 1, traceparent=TRACEPARENT)
        assert message is not None
        on_the_file.delivery.settle([Rejection("ws-001", 1, message.db_id or 0, "no")])
        retried = three.message(three.retry(message.msg_id).msg_id)
        replayed = three.replay(message, "ws-002")
        assert retried is not None
        assert replayed is not None
        assert (retried.traceparent, replayed.traceparent) == (TRACEPARENT, TRACEPARENT)


class TestDoctor:
    def test_looks_at_the_open_ledger(self, three: Ledger) -> None:
        told = {finding.check: finding.status for finding in three.doctor()}
        assert told["database"] == told["schema"] == told["pending"] == "ok"


class TestHistory:
    def test_newest_first(self, three: Ledger) -> None:
        for number in range(3):
            three.send("ws-001", number)
        assert [json.loads(row["content"]) for row in get_message_history(three)] == [2, 1, 0]

    def test_limit(self, three: Ledger) -> None:
        for number in range(3):
            three.send("ws-001", number)
        assert [row["content"] for row in get_message_history(three, limit=2)] == ["2", "1"]
        assert get_message_history(three, limit=0) == []

    def test_of_one_has_what_it_received_or_sent(self, three: Ledger) -> None:
        three.send("ws-001", "received")
        three.send("ws-002", "sent", sender_id="ws-001")
        three.send("ws-002", "of others")
        three.send("ws-001", "to itself", sender_id="ws-001")
        contents = [json.loads(row["content"]) for row in get_message_history(three, "ws-001")]
        assert contents == ["to itself", "sent", "received"]

    def test_of_one_with_a_limit(self, three: Ledger) -> None:
        for number in range(3):
            three.send("ws-001", number)
            three.send("ws-002", number, sender_id="ws-001")
        assert [row["content"] for row in get_message_history(three, "ws-001", 3)] == ["2", "2", "1"]

    @pytest.mark.parametrize("limit", [-1, 1.5, True, "5", None])
    def test_refuses_what_is_no_limit(self, ledger: Ledger, limit: int) -> None:
        with pytest.raises(InvalidInput, match="not a limit"):
            get_message_history(ledger, limit=limit)


class TestHeartbeat:
    def test_is_a_sign_of_life(self, ledger: Ledger, on_the_file: Ledger) -> None:
        on_the_file.import_connection(Connection("ws-001", "octavia", {}, LONG_AGO, LONG_AGO))
        assert ledger.heartbeat("ws-001", 12)
        connection = ledger.get("ws-001")
        assert connection is not None
        assert connection.last_heartbeat > LONG_AGO

    def test_of_nobody(self, three: Ledger) -> None:
        three.disconnect("ws-001")
        assert not three.heartbeat("ws-001")
        assert not three.heartbeat("ws-999")

    @pytest.mark.parametrize("latency", [-1, float("nan"), float("inf"), "5", True])
    def test_refuses_what_is_no_latency(self, three: Ledger, latency: float) -> None:
        with pytest.raises(InvalidInput, match="not a latency"):
            three.heartbeat("ws-001", latency)

    def test_check_disconnects_the_silent(self, three: Ledger, on_the_file: Ledger) -> None:
        on_the_file.import_connection(Connection("ws-old", "octavia", {}, LONG_AGO, LONG_AGO))
        report = three.heartbeat_check(30)
        assert report.timed_out == ["ws-old"]
        assert sorted(report.active) == ["ws-001", "ws-002", "ws-003"]
        gone = three.find("ws-old")
        assert gone is not None
        assert (gone.status, gone.close_reason) == ("disconnected", "heartbeat timeout")

    def test_check_spares_who_gave_a_sign_of_life(self, three: Ledger, on_the_file: Ledger) -> None:
        on_the_file.import_connection(Connection("ws-old", "octavia", {}, LONG_AGO, LONG_AGO))
        three.heartbeat("ws-old")
        assert three.heartbeat_check(30).timed_out == []

    @pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "30", True])
    def test_check_refuses_what_is_no_timeout(self, ledger: Ledger, timeout: float) -> None:
        with pytest.raises(InvalidInput, match="not a timeout"):
            ledger.heartbeat_check(timeout)


class TestStats:
    def test_of_an_empty_ledger(self, ledger: Ledger) -> None:
        assert ledger.stats() == {
            "active_connections": 0,
            "total_ever_connected": 0,
            "total_messages": 0,
            "agents": {},
        }

    def test_documented_keys_come_first(self, three: Ledger) -> None:
        three.broadcast(1)
        three.disconnect("ws-003")
        assert list(three.stats().items())[:4] == [
            ("active_connections", 2),
            ("total_ever_connected", 3),
            ("total_messages", 3),
            ("agents", {"cipher": 1, "octavia": 1}),
        ]


class TestWait:
    def test_for_nothing_is_over_at_once(self, three: Ledger) -> None:
        sent = three.send("ws-001", 1)
        assert sent is not None
        three.connect("cipher", "ws-001")
        assert three.wait([sent], 60) == (0, 0, 1)

    def test_ends_when_the_time_is_over(self, three: Ledger) -> None:
        sent = three.broadcast(1)
        assert three.wait(sent, 0) == (0, 3, 0)
