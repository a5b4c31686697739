"""An operator's answers, of every ledger: what is stuck, who is missing, who may come in, what a name means."""

from __future__ import annotations

import pytest

from ws_manager.core.ledger import Ledger
from ws_manager.core.read.conditions import all_of
from ws_manager.errors import InvalidInput, NotAuthorised, NotFound
from ws_manager.models import Connection, Message, Receipt, Rejection
from ws_manager.repository.findings import MessageFilter


def confirm(ledger: Ledger, ws_id: str, *seqs: int) -> set[str]:
    connection = ledger.find(ws_id)
    assert connection is not None
    return ledger.delivery.settle([Receipt(ws_id, connection.epoch, seqs)])


def sent(ledger: Ledger, ws_id: str, content: object = 1) -> Message:
    message = ledger.send(ws_id, content)
    assert message is not None
    assert message.db_id is not None
    return message


@pytest.fixture
def three(ledger: Ledger) -> Ledger:
    """ws-001 and ws-003 are octavia's, ws-002 is cipher's."""
    ledger.connect("octavia", "ws-001", {"region": "us"})
    ledger.connect("cipher", "ws-002", {"region": "eu"})
    ledger.connect("octavia", "ws-003")
    return ledger


class TestBacklog:
    def test_of_an_empty_ledger(self, ledger: Ledger) -> None:
        assert ledger.backlog() == (0, 0, 0, None)

    def test_counts_what_waits_and_what_was_set_aside(self, three: Ledger, on_the_file: Ledger) -> None:
        first, second, third = (sent(three, "ws-001", number) for number in range(3))
        other = sent(three, "ws-002")
        assert three.backlog() == (4, 0, 0, first.sent_at)
        confirm(on_the_file, "ws-001", first.db_id or 0)
        assert three.backlog() == (3, 0, 0, second.sent_at)
        on_the_file.delivery.settle([Rejection("ws-001", 1, second.db_id or 0, "no")])
        assert three.backlog() == (2, 1, 0, third.sent_at)
        confirm(on_the_file, "ws-001", third.db_id or 0)
        assert three.backlog() == (1, 1, 0, other.sent_at)
        three.disconnect("ws-002")
        assert three.backlog().pending == 1

    def test_counts_beyond_one_page(self, three: Ledger) -> None:
        for number in range(1200):
            sent(three, "ws-001", number)
        three.broadcast("all")
        assert three.backlog().pending == 1203


class TestUnconfirmed:
    def test_of_a_broadcast_says_who_and_why(self, three: Ledger, on_the_file: Ledger) -> None:
        broadcast = three.broadcast("all")
        confirm(on_the_file, "ws-001", 1)
        three.disconnect("ws-002", "away")
        missing = three.unconfirmed(broadcast)
        assert [one.ws_id for one in missing] == ["ws-002", "ws-003"]
        assert "ws-002 is disconnected" in missing[0].why
        assert "registered by a command" in missing[1].why

    def test_of_messages(self, three: Ledger, on_the_file: Ledger) -> None:
        both = [sent(three, "ws-001"), sent(three, "ws-002")]
        confirm(on_the_file, "ws-001", both[0].db_id or 0)
        assert [one.msg_id for one in three.unconfirmed(both)] == [both[1].msg_id]


class TestLookUp:
    def test_whole_names_come_first(self, three: Ledger) -> None:
        found = three.look_up("ws-001")
        assert isinstance(found, Connection)
        assert found.ws_id == "ws-001"

    def test_beginning_and_end_of_a_message(self, three: Ledger) -> None:
        message = sent(three, "ws-001")
        for part in (message.msg_id[:8], message.msg_id[:20], message.msg_id[-8:], message.msg_id[-5:]):
            found = three.look_up(part)
            assert isinstance(found, Message)
            assert found.msg_id == message.msg_id

    def test_beginning_of_a_broadcast_and_of_its_messages_means_the_broadcast(self, three: Ledger) -> None:
        broadcast = three.broadcast("all")
        three.broadcast("another")
        found = three.look_up(broadcast.broadcast_id[:8])
        assert getattr(found, "broadcast_id", None) == broadcast.broadcast_id
        assert getattr(found, "recipients", None) == 3
        for message in three.messages(MessageFilter(broadcast_id=broadcast.broadcast_id)):
            assert three.look_up(message.msg_id[-8:]) == message

    def test_part_that_fits_several_is_refused_with_their_names(self, three: Ledger) -> None:
        with pytest.raises(InvalidInput, match="ws-0 fits several identifiers: ws-001, ws-002, ws-003"):
            three.look_up("ws-0")

    @pytest.mark.parametrize("part", ["", "ws", "nothing", "%", "ws-00_", "\U0010ffff" * 4])
    def test_what_fits_nothing_is_not_found(self, three: Ledger, part: str) -> None:
        with pytest.raises(NotFound):
            three.look_up(part)


class TestChoosing:
    def test_order_and_limit_after_conditions(self, three: Ledger) -> None:
        for _ in range(2):
            sent(three, "ws-003")
        sent(three, "ws-002")

        def names(**options: object) -> list[str]:
            return [listed.connection.ws_id for listed in three.connections(**options)]  # type: ignore[arg-type]

        assert names() == names(order="age") == ["ws-001", "ws-002", "ws-003"]
        assert names(order="pending") == names(order="sent") == ["ws-003", "ws-002", "ws-001"]
        assert names(order="agent") == ["ws-002", "ws-001", "ws-003"]
        assert names(order="pending", limit=1) == ["ws-003"]
        assert names(where=all_of(["metadata.region!=us"]), limit=1) == ["ws-002"]
        with pytest.raises(InvalidInput, match="no such order"):
            names(order="colour")

    def test_disconnect_many_at_once(self, three: Ledger) -> None:
        three.disconnect("ws-002")
        assert three.disconnect_all(["ws-001", "ws-002", "nobody", "ws-003"], "maintenance") == [
            "ws-001",
            "ws-003",
        ]
        ended = three.find("ws-001")
        assert ended is not None
        assert (ended.status, ended.close_reason) == ("disconnected", "maintenance")

    @pytest.mark.parametrize("reason", ["", "x" * 129, "a\nb"])
    def test_reason_that_cannot_be_accepted(self, three: Ledger, reason: str) -> None:
        with pytest.raises(InvalidInput):
            three.disconnect("ws-001", reason)
        assert three.count() == 3


class TestBars:
    def test_barred_agent_is_ended_and_not_let_in_until_it_is_unbarred(
        self, three: Ledger, on_the_file: Ledger
    ) -> None:
        assert three.bar("octavia") == (True, ["ws-001", "ws-003"])
        assert three.bar("octavia") == (False, [])
        assert [name for name, _at in three.barred()] == ["octavia"]
        ended = three.find("ws-001")
        assert ended is not None
        assert (ended.status, ended.close_code, ended.close_reason) == (
            "disconnected",
            4003,
            "the agent is barred",
        )
        with pytest.raises(NotAuthorised, match="barred"):
            on_the_file.delivery.open_socket("octavia", "ws-001", None, "g")
        on_the_file.delivery.open_socket("cipher", "ws-002", None, "g")
        assert three.unbar("octavia") is True
        assert three.unbar("octavia") is False
        on_the_file.delivery.open_socket("octavia", "ws-001", None, "g")

    def test_receipts_of_a_revoked_token_do_not_count(self, three: Ledger, on_the_file: Ledger) -> None:
        connection, *_ = on_the_file.delivery.open_socket("octavia", "ws-001", None, "g", "jti-1")
        message = sent(three, "ws-001")
        assert three.revoke("jti-1") == (True, ["ws-001"])
        void = on_the_file.delivery.settle([Receipt("ws-001", connection.epoch, [message.db_id or 0])])
        assert void == {"ws-001"}
        assert three.backlog().pending == 1
        assert on_the_file.delivery.why_void("ws-001", connection.epoch, "octavia") == "barred"
        with pytest.raises(NotAuthorised, match="revoked"):
            on_the_file.delivery.open_socket("octavia", "ws-001", None, "g", "jti-1")
        on_the_file.delivery.open_socket("octavia", "ws-001", None, "g", "jti-2")

    def test_revoked_token_ends_only_the_sockets_that_it_opened_last(
        self, three: Ledger, on_the_file: Ledger
    ) -> None:
        on_the_file.delivery.open_socket("octavia", "ws-001", None, "g", "jti-1")
        on_the_file.delivery.open_socket("octavia", "ws-001", None, "g", "jti-2")
        on_the_file.delivery.open_socket("octavia", "ws-003", None, "g", "jti-1")
        three.connect("octavia", "ws-003")
        assert three.revoke("jti-1") == (True, [])


class TestAgain:
    def test_replay_sends_any_message_to_any_connection(self, three: Ledger, on_the_file: Ledger) -> None:
        message = sent(three, "ws-001", {"a": 1.10})
        confirm(on_the_file, "ws-001", message.db_id or 0)
        again = three.replay(message, "ws-002")
        assert again is not None
        assert (again.recipient_id, again.content, again.retry_of) == (
            "ws-002",
            message.content,
            message.msg_id,
        )
        assert three.look_up(again.msg_id) == again
        three.disconnect("ws-003")
        assert three.replay(message, "ws-003") is None

    def test_retry_of_one_agents_messages(self, three: Ledger, on_the_file: Ledger) -> None:
        for ws_id in ("ws-001", "ws-002"):
            seq = sent(three, ws_id).db_id or 0
            on_the_file.delivery.settle([Rejection(ws_id, 1, seq, "no")])
        retried, beyond = three.retry_all(agent="cipher")
        assert ([again.ws_id for again in retried], beyond) == (["ws-002"], 0)
