"""Asking and answering, wherever the ledger is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import pytest

from ws_manager import Conflict, InvalidInput, Ledger, NotFound, open_ledger
from ws_manager.core import asks
from ws_manager.models import Message, seconds_before, utc_now
from ws_manager.repository.findings import MessageFilter
from ws_manager.settings import Sizes


@pytest.fixture
def two(ledger: Ledger) -> Ledger:
    """A ledger with octavia and cipher."""
    ledger.connect("octavia", "ws-001")
    ledger.connect("cipher", "ws-002")
    return ledger


def asked(
    ledger: Ledger,
    content: object = "status?",
    to: str = "ws-001",
    *,
    msg_type: str = "data",
    sender_id: Optional[str] = None,
    traceparent: Optional[str] = None,
) -> Message:
    message = ledger.ask(to, content, msg_type, sender_id, traceparent=traceparent)
    assert message is not None
    return message


def answer(ledger: Ledger, message: Message, content: object = "fine", ws_id: str = "ws-001") -> str:
    with ledger.delivery.holding(ws_id) as connection:
        return ledger.delivery.reply_held(connection, message.db_id or 0, content)


def contents(ledger: Ledger, ws_id: str) -> list[str]:
    """What is pending."""
    return [each.content for each in ledger.messages(MessageFilter(ws_id=ws_id, pending=True))][::-1]


def test_an_ask_is_a_message_that_wants_an_answer(two: Ledger) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    sent = asked(two, {"task": "status"}, msg_type="query", traceparent=trace)
    message = two.message(sent.msg_id)
    assert message == sent
    assert message.traceparent == trace
    assert (message.wants_reply, message.reply_to, message.msg_type) == (True, None, "query")
    ask = two.asked(sent.msg_id)
    assert (ask.state, ask.recipient_id, ask.answer) == ("pending", "ws-001", None)


def test_the_answer_is_kept_and_confirms_this_message_alone(two: Ledger) -> None:
    two.send("ws-001", "before")
    sent = asked(two)
    two.send("ws-001", "behind")
    answer_id = answer(two, sent, {"up": 1.10})
    ask = two.asked(sent.msg_id)
    assert (ask.state, ask.answer_id, ask.answer) == ("answered", answer_id, '{"up":1.1}')
    assert ask.answered_at is not None
    message = two.message(sent.msg_id)
    assert message is not None
    assert (message.delivered, message.confirmed_at) == (True, ask.answered_at)
    assert contents(two, "ws-001") == ['"before"', '"behind"']


def test_of_a_reply_box_nothing_is_seen_elsewhere(two: Ledger) -> None:
    before = two.stats()
    sent = asked(two)
    answer_id = answer(two, sent)
    assert two.message(answer_id) is None
    assert two.stats() == {**before, "total_messages": 1}
    assert [each.connection.ws_id for each in two.connections(include_disconnected=True)] == [
        "ws-001",
        "ws-002",
    ]
    assert two.broadcast(1).recipients == ["ws-001", "ws-002"]


def test_a_connection_that_asks_gets_the_answer_as_a_message(two: Ledger) -> None:
    sent = asked(two, sender_id="ws-002")
    answer_id = answer(two, sent)
    message = two.message(answer_id)
    assert message is not None
    assert (message.reply_to, message.recipient_id, message.sender_id) == (sent.msg_id, "ws-002", "ws-001")
    assert (message.content, message.msg_type, message.delivered) == ('"fine"', "reply", False)
    assert two.asked(sent.msg_id).answer == '"fine"'


def test_a_connection_that_is_disconnected_gets_the_answer_when_it_comes_back(two: Ledger) -> None:
    sent = asked(two, sender_id="ws-002")
    two.disconnect("ws-002")
    answer(two, sent)
    assert contents(two, "ws-002") == ['"fine"']


def test_an_asker_that_is_no_connection_has_only_the_kept_answer(two: Ledger) -> None:
    sent = asked(two, sender_id="ws-gone")
    answer_id = answer(two, sent)
    assert two.message(answer_id) is None
    assert two.asked(sent.msg_id).answer_id == answer_id


def test_the_same_answer_again_is_the_first_and_another_is_refused(two: Ledger) -> None:
    sent = asked(two)
    first = answer(two, sent, {"up": True})
    assert answer(two, sent, {"up": True}) == first
    with pytest.raises(Conflict, match="was answered before"):
        answer(two, sent, {"up": False})


def test_only_the_recipient_answers(two: Ledger) -> None:
    sent = asked(two)
    with pytest.raises(NotFound, match="ws-002 has no message"):
        answer(two, sent, ws_id="ws-002")
    assert two.asked(sent.msg_id).state == "pending"


def test_an_old_registration_does_not_answer(two: Ledger, on_the_file: Ledger) -> None:
    sent = asked(two)
    with on_the_file.delivery.holding("ws-001") as connection:
        two.connect("octavia", "ws-001")
        with pytest.raises(Conflict, match="registered again"):
            on_the_file.delivery.reply_held(connection, sent.db_id or 0, 1)


def test_what_is_no_ask_is_not_answered(two: Ledger) -> None:
    message = two.send("ws-001", 1)
    assert message is not None
    with pytest.raises(InvalidInput, match="wants no answer"):
        answer(two, message)
    assert contents(two, "ws-001") == ["1"]


def test_what_is_confirmed_may_still_be_answered(two: Ledger) -> None:
    sent = asked(two)
    with two.delivery.holding("ws-001") as connection:
        two.delivery.confirm_held(connection, [sent.db_id or 0])
    assert two.asked(sent.msg_id).state == "confirmed"
    answer(two, sent)
    assert two.asked(sent.msg_id).state == "answered"


def test_what_is_set_aside_is_not_answered_and_ends_the_waiting(two: Ledger, on_the_file: Ledger) -> None:
    sent = asked(two)
    with on_the_file.delivery.holding("ws-001") as connection:
        on_the_file.delivery.reject_held(connection, sent.db_id or 0, "no such task")
    ask = two.wait_for_answer(sent.msg_id, 60)
    assert (ask.state, ask.reject_reason) == ("set_aside", "no such task")
    with pytest.raises(Conflict, match="was set aside"):
        answer(two, sent)


def test_sent_again_it_wants_no_answer(two: Ledger, on_the_file: Ledger) -> None:
    sent = asked(two)
    with on_the_file.delivery.holding("ws-001") as connection:
        on_the_file.delivery.reject_held(connection, sent.db_id or 0, "no such task")
    again = two.message(two.retry(sent.msg_id).msg_id)
    assert again is not None
    assert not again.wants_reply


def test_waiting_ends_with_the_answer(two: Ledger, location: Union[Path, str]) -> None:
    sent = asked(two)

    def later() -> None:
        with open_ledger(location) as ledger:
            answer(ledger, sent)

    thread = threading.Thread(target=later)
    thread.start()
    ask = two.wait_for_answer(sent.msg_id, 60)
    thread.join()
    assert ask.answer == '"fine"'


def test_waiting_ends_with_the_time(two: Ledger) -> None:
    assert two.wait_for_answer(asked(two).msg_id, 0.02).state == "pending"


class TestTo:
    def test_an_agent_is_its_connection_that_was_heard_last(self, two: Ledger) -> None:
        two.connect("octavia", "ws-003")
        two.heartbeat("ws-001")
        assert asked(two, to="octavia").recipient_id == "ws-001"
        two.heartbeat("ws-003")
        assert asked(two, to="octavia").recipient_id == "ws-003"
        two.disconnect("ws-003")
        assert asked(two, to="octavia").recipient_id == "ws-001"

    def test_a_ws_id_wins(self, two: Ledger) -> None:
        two.connect("aria", "octavia")
        assert asked(two, to="octavia").recipient_id == "octavia"
        two.disconnect("octavia")
        assert two.ask("octavia", 1) is None

    @pytest.mark.parametrize("to", ["ws-001", "octavia", "nobody"])
    def test_nobody(self, two: Ledger, to: str) -> None:
        two.disconnect("ws-001")
        assert two.ask(to, 1) is None
        assert two.messages(MessageFilter()) == []

    def test_one_that_was_heard_in_the_future_comes_last(self, two: Ledger, on_the_file: Ledger) -> None:
        ahead = seconds_before(utc_now(), -3600)
        on_the_file._store.connections.find("ws-001")
        two.connect("octavia", "ws-003")
        with on_the_file._store.atomic():
            on_the_file._store.connections.heartbeat("ws-003", ahead)
        assert asked(two, to="octavia").recipient_id == "ws-001"


class TestDay:
    """An ask and its answer are kept for a day."""

    @pytest.fixture
    def old(self, two: Ledger, on_the_file: Ledger, monkeypatch: pytest.MonkeyPatch) -> Message:
        with monkeypatch.context() as patched:
            patched.setattr(asks, "utc_now", lambda: seconds_before(utc_now(), asks.KEPT_SECONDS + 1))
            return asked(on_the_file)

    def test_after_it_nothing_is_found_and_no_answer_taken(self, two: Ledger, old: Message) -> None:
        with pytest.raises(NotFound, match=f"no ask {old.msg_id}"):
            two.asked(old.msg_id)
        with pytest.raises(Conflict, match="asked too long ago"):
            answer(two, old)
        assert contents(two, "ws-001") == ['"status?"']

    def test_the_janitor_deletes_what_is_over(self, two: Ledger, on_the_file: Ledger, old: Message) -> None:
        young = asked(two)
        assert on_the_file.maintenance.trim("asks", asks.KEPT_SECONDS) == 1
        assert on_the_file.maintenance.trim("asks", asks.KEPT_SECONDS) == 0
        assert two.asked(young.msg_id).state == "pending"


def test_an_answer_outlives_the_pruned_ask(two: Ledger, on_the_file: Ledger) -> None:
    sent = asked(two)
    answer_id = answer(two, sent)
    two.maintenance.prune(0)
    assert two.message(sent.msg_id) is None
    assert two.asked(sent.msg_id).answer_id == answer_id


@pytest.mark.parametrize("content", [float("nan"), "x" * (256 * 1024 - 1), {"a": "\udfff"}])
def test_an_answer_that_is_no_json_or_too_large_changes_nothing(two: Ledger, content: object) -> None:
    sent = asked(two)
    with pytest.raises(InvalidInput):
        answer(two, sent, content)
    assert two.asked(sent.msg_id).state == "pending"


def test_show_tells_of_the_answer(two: Ledger) -> None:
    sent = asked(two)
    assert two.explain(sent.msg_id).facts["answer_id"] is None
    answer_id = answer(two, sent)
    explained = two.explain(sent.msg_id)
    assert explained.verdict.endswith(f"it was sent; answered by {answer_id}")
    assert explained.facts["answer_id"] == answer_id
    assert [entry.what for entry in explained.timeline] == ["sent", "confirmed", "answered"]


def test_show_tells_that_no_answer_has_come(two: Ledger) -> None:
    sent = asked(two)
    with two.delivery.holding("ws-001") as connection:
        two.delivery.confirm_held(connection, [sent.db_id or 0])
    assert two.explain(sent.msg_id).verdict.endswith("; not answered yet")


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "copy.db", sizes=Sizes()) as opened:
        yield opened


def test_export_and_import_keep_what_messages_say_of_asks(two: Ledger, copy: Ledger) -> None:
    sent = asked(two, sender_id="ws-002")
    answer_id = answer(two, sent)
    copy.maintenance.import_lines(list(two.maintenance.export_lines()))
    assert (copy.message(sent.msg_id), copy.message(answer_id)) == (
        two.message(sent.msg_id),
        two.message(answer_id),
    )
