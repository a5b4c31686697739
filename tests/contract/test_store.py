"""What every store does, whatever keeps the ledger: transactions, positions, holds. Nothing depends on numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from ws_manager import InvalidInput
from ws_manager.models import (
    Connection,
    Message,
    PendingMessage,
    Receipt,
    Registration,
    SignOfLife,
    new_id,
    utc_now,
)
from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import BroadcastState, MessageFilter, StoredEvent
from ws_manager.repository.records import DeliveryCounts, NewBroadcast, NewMessage
from ws_manager.repository.store import Changes, Store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest, database: Path) -> Iterator[Store]:
    """A store of each kind with three active connections: octavia twice, cipher once."""
    location = database if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = engine_of(location).open_to_write(location)
    with store.atomic():
        for ws_id, agent in (("ws-001", "octavia"), ("ws-002", "cipher"), ("ws-003", "octavia")):
            register(store, ws_id, agent)
    yield store
    store.close()


@pytest.fixture
def other(store: Store) -> Iterator[Store]:
    """A second store on the same ledger, as another process would have it."""
    other = store.again()
    yield other
    other.close()


def register(store: Store, ws_id: str, agent: str) -> Connection:
    return store.connections.register(Connection(ws_id, agent, gateway="g"), None)


def send(store: Store, ws_id: str, content: str = "1", retry_of: Optional[str] = None) -> str:
    """Send a message of the system and return its msg_id."""
    new = NewMessage(new_id(), ws_id, content, "data", None, utc_now(), retry_of)
    with store.atomic():
        store.messages.insert(new)
    return new.msg_id


def broadcast(
    store: Store, content: str = "1", agent: Optional[str] = None, sender: Optional[str] = None
) -> str:
    """Broadcast and return the broadcast_id."""
    new = NewBroadcast(new_id(), content, "news", sender, utc_now())
    with store.atomic():
        store.broadcasts.insert([new], store.connections.recipients(agent))
    return new.broadcast_id


def confirm(store: Store, ws_id: str, *seqs: int, at: Optional[str] = None) -> None:
    """Confirm messages under the present registration."""
    connection = store.connections.find(ws_id)
    assert connection is not None
    with store.atomic():
        assert store.receipts.settle([Receipt(ws_id, connection.epoch, seqs)], at or utc_now()) == set()


def wait_until_happened(changes: Changes) -> None:
    """Wait until a commit is noticed, bounded: how soon that is depends on the engine."""
    deadline = time.monotonic() + 10
    while not changes.happened():
        assert time.monotonic() < deadline, "it was not noticed"
        changes.wait()


def pending(store: Store, ws_id: str) -> list[PendingMessage]:
    return store.messages.pending(ws_id, 0, 10_000)


def contents(messages: list[PendingMessage]) -> list[str]:
    return [message.content for message in messages]


class TestAtomic:
    def test_commits_all_of_the_block(self, store: Store, other: Store) -> None:
        with store.atomic():
            register(store, "ws-004", "aria")
            assert other.connections.find("ws-004") is None
        assert other.connections.find("ws-004") is not None

    def test_writes_nothing_where_the_block_raises(self, store: Store, other: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.atomic():
            register(store, "ws-004", "aria")
            raise ZeroDivisionError
        assert store.connections.find("ws-004") is None
        assert other.connections.find("ws-004") is None

    def test_the_outermost_block_commits(self, store: Store, other: Store) -> None:
        with store.atomic():
            with store.atomic():
                register(store, "ws-004", "aria")
            assert store.in_transaction
            assert other.connections.find("ws-004") is None
        assert not store.in_transaction
        assert other.connections.find("ws-004") is not None

    def test_an_inner_block_that_raises_undoes_itself_alone(self, store: Store) -> None:
        with store.atomic():
            register(store, "ws-004", "aria")
            with pytest.raises(ZeroDivisionError), store.atomic():
                register(store, "ws-005", "aria")
                raise ZeroDivisionError
        assert store.connections.find("ws-004") is not None
        assert store.connections.find("ws-005") is None


class TestSnapshot:
    def test_shows_one_state(self, store: Store, other: Store) -> None:
        with store.snapshot():
            before = store.messages.count()
            send(other, "ws-001")
            assert store.messages.count() == before
        assert store.messages.count() == before + 1


class TestChanges:
    """An engine may say yes without a cause; so what is held here is only when it has to say yes."""

    def test_the_first_look_says_yes(self, store: Store) -> None:
        assert store.changes().happened()

    def test_what_others_commit(self, store: Store, other: Store) -> None:
        changes = store.changes()
        changes.happened()
        send(other, "ws-001")
        wait_until_happened(changes)

    def test_what_the_same_store_commits(self, store: Store) -> None:
        changes = store.changes()
        changes.happened()
        send(store, "ws-001")
        wait_until_happened(changes)


class TestConnections:
    def test_a_known_ws_id_keeps_its_number_and_gets_the_next_epoch(self, store: Store) -> None:
        before = store.connections.find("ws-001")
        with store.atomic():
            after = register(store, "ws-001", "octavia")
        assert before is not None
        assert (after.db_id, after.epoch) == (before.db_id, before.epoch + 1)

    def test_recipients_are_those_that_are_active(self, store: Store) -> None:
        with store.atomic():
            store.connections.disconnect("ws-003", utc_now(), "enough")
            everybody = store.connections.recipients()
            assert (sorted(everybody.ws_ids), everybody.everybody) == (["ws-001", "ws-002"], True)
            assert store.connections.recipients("octavia").ws_ids == ["ws-001"]

    def test_recipients_among_some(self, store: Store) -> None:
        with store.atomic():
            some = store.connections.recipients(None, {"ws-002", "ws-unknown"})
        assert (some.ws_ids, some.everybody) == (["ws-002"], False)

    def test_an_old_epoch_changes_nothing(self, store: Store) -> None:
        with store.atomic():
            register(store, "ws-001", "octavia")
            assert not store.connections.socket_closed("ws-001", 1, 1006, "lost")
            sign = SignOfLife("ws-001", 1, utc_now(), None, logged=False)
            assert store.connections.heard([sign], utc_now()) == set()
        found = store.connections.find("ws-001")
        assert found is not None
        assert (found.confirmed_seq, found.close_code) == (0, None)


class TestSignsOfLife:
    LATER = "2099-01-01T00:00:00.000000+00:00"

    def heard(self, store: Store, *signs: tuple[str, int, str], now: str = LATER) -> set[Registration]:
        with store.atomic():
            return store.connections.heard(
                [SignOfLife(ws_id, epoch, at, None, logged=False) for ws_id, epoch, at in signs], now
            )

    def test_of_many_are_written_together(self, store: Store) -> None:
        with store.atomic():
            store.connections.disconnect("ws-003", utc_now(), "done")
        at = utc_now()
        signs = [("ws-001", 1, at), ("ws-002", 2, at), ("ws-003", 1, at), ("ws-none", 1, at)]
        assert self.heard(store, *signs) == {("ws-001", 1)}
        found = [store.connections.find(ws_id) for ws_id in ("ws-001", "ws-002", "ws-003")]
        assert [each is not None and each.last_heartbeat == at for each in found] == [True, False, False]

    def test_a_later_one_stays_unless_it_is_in_the_future(self, store: Store) -> None:
        assert self.heard(store, ("ws-001", 1, self.LATER)) == {("ws-001", 1)}
        assert self.heard(store, ("ws-001", 1, utc_now())) == set()
        now = utc_now()
        assert self.heard(store, ("ws-001", 1, now), now=now) == {("ws-001", 1)}


class TestMessages:
    def test_seq_ascends_within_a_connection(self, store: Store) -> None:
        for content in ("1", "2", "3"):
            send(store, "ws-001", content)
            broadcast(store, content)
        messages = pending(store, "ws-001")
        assert contents(messages) == ["1", "1", "2", "2", "3", "3"]
        seqs = [message.seq for message in messages]
        assert seqs == sorted(set(seqs))

    def test_each_counts_for_its_recipient(self, store: Store) -> None:
        send(store, "ws-001")
        broadcast(store, agent="octavia")
        with store.atomic():
            some = store.connections.recipients(None, {"ws-002"})
            store.broadcasts.insert([NewBroadcast(new_id(), "1", "news", None, utc_now())] * 1, some)
            now = utc_now()
            store.messages.insert_each(
                [NewMessage(new_id(), ws_id, "1", "data", None, now) for ws_id in ("ws-003", "ws-003")]
            )
        counts = {connection.ws_id: connection.message_count for connection in store.connections.active()}
        assert counts == {"ws-001": 2, "ws-002": 1, "ws-003": 3}
        assert {ws_id: len(pending(store, ws_id)) for ws_id in counts} == counts

    def test_confirming_marks_what_is_pending(self, store: Store) -> None:
        for content in ("1", "2", "3", "4"):
            send(store, "ws-001", content)
        first, second, third, _ = pending(store, "ws-001")
        with store.atomic():
            store.messages.set_aside("ws-001", second.seq, second.seq, "no", utc_now())
            confirm(store, "ws-001", first.seq, second.seq, third.seq)
        assert contents(pending(store, "ws-001")) == ["4"]

    def test_setting_aside_to_the_end(self, store: Store) -> None:
        msg_ids = [send(store, "ws-001"), send(store, "ws-001")]
        send(store, "ws-002")
        with store.atomic():
            assert store.messages.set_aside("ws-001", 0, None, "moved", utc_now()) == msg_ids
        assert (len(pending(store, "ws-001")), len(pending(store, "ws-002"))) == (0, 1)

    def test_counts_by_ids_beyond_one_statement(self, store: Store) -> None:
        now = utc_now()
        written = [NewMessage(new_id(), "ws-001", str(n), "data", None, now) for n in range(5001)]
        with store.atomic():
            store.messages.insert_each(written)
            messages = pending(store, "ws-001")
            confirm(store, "ws-001", *(message.seq for message in messages[:-1]))
        counts = store.messages.delivery_counts([message.msg_id for message in written])
        assert counts == DeliveryCounts(confirmed=5000, pending=1, set_aside=0)


class TestReceipts:
    def confirmed(self, store: Store) -> list[str]:
        found = store.history.newest(MessageFilter(), 10_000)
        return [message.content for message in reversed(found) if message.delivered]

    def settle(self, store: Store, *receipts: Receipt) -> set[Registration]:
        with store.atomic():
            return store.receipts.settle(receipts, utc_now())

    def seqs(self, store: Store, ws_id: str) -> list[int]:
        return [message.seq for message in pending(store, ws_id)]

    def test_mark_what_they_name(self, store: Store) -> None:
        # Runs of every length, short and long, with gaps between them.
        named = {n for n in range(200) if n not in (3, 11, 20, 30, 41, 53, 66, 100, 101, 180)}
        with store.atomic():
            now = utc_now()
            store.messages.insert_each(
                [NewMessage(new_id(), "ws-001", str(n), "data", None, now) for n in range(200)]
            )
        seqs = self.seqs(store, "ws-001")
        assert self.settle(store, Receipt("ws-001", 1, [seqs[n] for n in sorted(named)])) == set()
        assert self.confirmed(store) == [str(n) for n in sorted(named)]

    def test_journal_has_what_they_marked(self, store: Store) -> None:
        cursor = store.feed.end()
        for _ in range(12):
            send(store, "ws-001")
        seqs = self.seqs(store, "ws-001")
        with store.atomic():
            store.receipts.settle_one("ws-001", seqs[4], utc_now())
            store.messages.set_aside("ws-001", seqs[7], seqs[7], "no", utc_now())
        self.settle(store, Receipt("ws-001", 1, seqs))
        self.settle(store, Receipt("ws-001", 1, seqs[:3]), Receipt("ws-002", 1, [seqs[11]]))
        with store.atomic():
            store.receipts.settle_one("ws-001", seqs[4], utc_now())
        found = [entry.seq for entry in store.feed.after(cursor, 100) if entry.kind == "confirmed"]
        assert sorted(seq or 0 for seq in found) == [seq for seq in seqs if seq != seqs[7]]
        assert store.feed.count_confirmed(cursor) == 11

    def test_of_many_connections(self, store: Store) -> None:
        for content in ("1", "2", "3"):
            broadcast(store, content)
        seqs = {ws_id: self.seqs(store, ws_id) for ws_id in ("ws-001", "ws-002", "ws-003")}
        void = self.settle(
            store,
            Receipt("ws-003", 1, seqs["ws-003"][:1]),
            Receipt("ws-001", 1, seqs["ws-001"][:2]),
            Receipt("ws-003", 1, seqs["ws-003"][1:]),
        )
        assert void == set()
        assert [len(pending(store, ws_id)) for ws_id in seqs] == [1, 3, 0]
        highest = {each.ws_id: each.confirmed_seq for each in store.connections.active()}
        assert highest == {"ws-001": seqs["ws-001"][1], "ws-002": 0, "ws-003": seqs["ws-003"][2]}

    @pytest.mark.parametrize("epoch", [0, 2, 3])
    def test_of_another_epoch_are_void_and_the_rest_counts(self, store: Store, epoch: int) -> None:
        broadcast(store)
        mine, theirs = self.seqs(store, "ws-001"), self.seqs(store, "ws-002")
        assert self.settle(store, Receipt("ws-001", epoch, mine), Receipt("ws-002", 1, theirs)) == {
            ("ws-001", epoch)
        }
        assert [len(pending(store, ws_id)) for ws_id in ("ws-001", "ws-002")] == [1, 0]
        connection = store.connections.find("ws-001")
        assert connection is not None
        assert connection.confirmed_seq == 0

    def test_of_two_epochs_of_one_connection(self, store: Store) -> None:
        send(store, "ws-001", "1")
        send(store, "ws-001", "2")
        first, second = self.seqs(store, "ws-001")
        with store.atomic():
            register(store, "ws-001", "octavia")
        void = self.settle(store, Receipt("ws-001", 1, [first]), Receipt("ws-001", 2, [second]))
        assert void == {("ws-001", 1)}
        assert self.confirmed(store) == ["2"]

    def test_keep_the_first_time(self, store: Store) -> None:
        msg_id = send(store, "ws-001")
        (seq,) = self.seqs(store, "ws-001")
        confirm(store, "ws-001", seq, at="2026-01-01T00:00:00.000000+00:00")
        confirm(store, "ws-001", seq)
        message = store.history.find(msg_id)
        assert message is not None
        assert message.confirmed_at == "2026-01-01T00:00:00.000000+00:00"

    def test_bring_the_time_of_writing(self, store: Store) -> None:
        first, second = send(store, "ws-001"), send(store, "ws-001")
        one, other = self.seqs(store, "ws-001")
        at = "2026-01-01T00:00:00.000000+00:00"
        with store.atomic():
            store.messages.written("ws-001", other, other, at)
        self.settle(store, Receipt("ws-001", 1, [one], at), Receipt("ws-001", 1, [other]))
        found = [store.history.find(msg_id) for msg_id in (first, second)]
        assert [message and message.written_at for message in found] == [at, at]

    def test_of_an_unknown_connection_are_void(self, store: Store) -> None:
        assert self.settle(store, Receipt("ws-none", 1, [1])) == {("ws-none", 1)}


class TestPositions:
    def test_nothing_is_left_out_and_nothing_comes_twice(self, store: Store, other: Store) -> None:
        position, seen = store.messages.position("g"), []
        for number in range(7):
            broadcast(other, str(number))
            if number % 3 == 0:
                found, position, _whole = store.messages.after(position, 2)
                seen += found
        while True:
            found, reached, _whole = store.messages.after(position, 2)
            if not found:
                break
            seen, position = seen + found, reached
        for ws_id in ("ws-001", "ws-002", "ws-003"):
            mine = [message for message in seen if message.recipient_id == ws_id]
            assert contents(mine) == [str(number) for number in range(7)]

    def test_each_of_many_recipients_of_a_broadcast_has_its_trace(self, store: Store) -> None:
        with store.atomic():
            for number in range(1200):
                register(store, f"w-{number}", "aria")
        before, trace = (
            store.messages.position("g"),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        with store.atomic():
            recipients = store.connections.recipients("aria")
            traced = NewBroadcast(new_id(), "1", "news", None, utc_now(), trace)
            store.broadcasts.insert(
                [traced, NewBroadcast(new_id(), "2", "news", None, utc_now())], recipients
            )
        found = store.messages.after(before, 10_000).messages
        expected = [*[("1", trace)] * 1200, *[("2", None)] * 1200]
        assert [(message.content, message.traceparent) for message in found] == expected
        assert [each.traceparent for each in pending(store, "w-1199")] == [trace, None]

    def test_moves_on_where_nothing_is_pending(self, store: Store) -> None:
        before = store.messages.position("g")
        send(store, "ws-001")
        (message,) = pending(store, "ws-001")
        with store.atomic():
            confirm(store, "ws-001", message.seq)
        found, reached, whole = store.messages.after(before, 10)
        assert found == []
        assert reached != before
        assert whole
        assert store.messages.after(reached, 10) == ([], reached, True)

    def test_pending_messages_are_read_in_pieces(self, store: Store) -> None:
        for content in ("1", "2", "3"):
            send(store, "ws-001", content)
            send(store, "ws-002", content)
        first = store.messages.pending("ws-001", 0, 2)
        rest = store.messages.pending("ws-001", first[-1].seq, 10)
        assert contents(first + rest) == ["1", "2", "3"]

    def test_a_piece_ends_with_the_message_that_exceeds_its_characters(self, store: Store) -> None:
        for _ in range(3):
            send(store, "ws-001", "x" * 60)
        assert len(store.messages.pending("ws-001", 0, 10, 100)) == 2

    def test_of_events(self, store: Store, other: Store) -> None:
        position = store.events.position()
        assert store.events.after(position) == ([], position)
        with other.atomic():
            other.events.insert("closed", utc_now(), "ws-001", detail="1006")
        events, reached = store.events.after(position)
        assert [(event.kind, event.ws_id, event.detail) for event in events] == [("closed", "ws-001", "1006")]
        assert store.events.after(reached) == ([], reached)

    def test_of_the_history_by_time(self, store: Store) -> None:
        send(store, "ws-001", "1")
        later = utc_now()
        send(store, "ws-001", "2")
        found, _ = store.history.after(store.history.position(later), MessageFilter(), 10)
        assert [message.content for message in found] == ["2"]

    def test_of_the_history_comes_back_from_its_text(self, store: Store, other: Store) -> None:
        # One transaction has what is older too.
        with store.atomic():
            send(store, "ws-001", "older")
            began = utc_now()
            for number in range(5):
                send(store, "ws-001", str(number))
        for since, seen in ((began, ["0", "1", "2", "3", "4"]), (None, ["new"])):
            place = store.history.text_of(store.history.position(since))
            if since is None:
                send(store, "ws-001", "new")
            found: list[str] = []
            # Each step from the text alone, as somebody takes it who asks over HTTP; by any of several gateways.
            for reader in (store, other) * 3:
                assert not set(place) & set(" +&#%")
                messages, reached = reader.history.after(
                    reader.history.position_of(place), MessageFilter(), 2
                )
                found += [message.content for message in messages]
                place = reader.history.text_of(reached)
            assert found == seen

    @pytest.mark.parametrize(
        "text", ["", "x", "-1", "²", "9223372036854775808", "1:2", "5:4://0/", "1:2:7//0/", "0:0://0/"]
    )
    def test_of_the_history_is_no_other_text(self, store: Store, text: str) -> None:
        with pytest.raises(InvalidInput):
            store.history.position_of(text)


class TestBroadcasts:
    def test_a_message_names_its_broadcast(self, store: Store) -> None:
        alone, broadcast_id = send(store, "ws-001"), broadcast(store)
        found = {message.recipient_id: message for message in store.history.newest(MessageFilter(), 3)}
        assert {message.broadcast_id for message in found.values()} == {broadcast_id}
        message = store.history.find(alone)
        assert message is not None
        assert message.broadcast_id is None

    def test_states_newest_first(self, store: Store) -> None:
        first, second = broadcast(store, agent="octavia"), broadcast(store)
        (message, _) = pending(store, "ws-001")
        with store.atomic():
            confirm(store, "ws-001", message.seq)
            store.messages.set_aside("ws-003", 0, None, "no", utc_now())
        newest, oldest = store.broadcasts.latest(10)
        assert (newest.broadcast_id, newest.recipients, newest.counts) == (second, 3, DeliveryCounts(0, 2, 1))
        assert (oldest.broadcast_id, oldest.recipients, oldest.counts) == (first, 2, DeliveryCounts(1, 0, 1))
        assert store.broadcasts.find(first) == oldest
        assert store.broadcasts.delivery_counts(first) == oldest.counts
        assert store.broadcasts.latest(1) == [newest]

    def test_those_of_a_sender(self, store: Store) -> None:
        own, other, _ = (broadcast(store, sender=sender) for sender in ("ws-001", "ws-002", None))
        own_too, third, _ = (broadcast(store, sender=sender) for sender in ("ws-001", "ws-003", "unknown"))

        def latest(limit: int = 10, after: Optional[str] = None, **sender: str) -> list[str]:
            return [state.broadcast_id for state in store.broadcasts.latest(limit, after, **sender)]

        assert latest(sender_agent="octavia") == [third, own_too, own]
        assert latest(sender_agent="cipher") == [other]
        assert latest(sender_agent="nobody") == []
        assert latest(sender_id="ws-001") == [own_too, own]
        assert latest(sender_id="unknown") == []
        assert latest(sender_agent="octavia", sender_id="ws-003") == [third]
        assert latest(sender_agent="cipher", sender_id="ws-001") == []
        # The limit counts what is wanted, and not what lies between.
        assert latest(1, third, sender_agent="octavia") == [own_too]
        assert latest(2, own_too, sender_agent="octavia") == [own]

    def test_to_nobody(self, store: Store) -> None:
        broadcast_id = broadcast(store, agent="nobody")
        state = store.broadcasts.find(broadcast_id)
        assert isinstance(state, BroadcastState)
        assert (state.recipients, state.counts) == (0, DeliveryCounts(0, 0, 0))
        assert store.broadcasts.unconfirmed(broadcast_id, 10) == []

    def test_unconfirmed_and_times(self, store: Store) -> None:
        broadcast_id = broadcast(store)
        send(store, "ws-002")
        (message,) = pending(store, "ws-001")
        now = utc_now()
        with store.atomic():
            confirm(store, "ws-001", message.seq, at=now)
        assert store.broadcasts.confirmation_times(broadcast_id) == (now, now)
        assert [each.recipient_id for each in store.broadcasts.unconfirmed(broadcast_id, 10)] == [
            "ws-002",
            "ws-003",
        ]

    def test_of_one_that_is_unknown(self, store: Store) -> None:
        assert store.broadcasts.find("unknown") is None
        assert store.broadcasts.delivery_counts("unknown") == DeliveryCounts(0, 0, 0)


class TestHistory:
    def newest(self, store: Store, **wanted: object) -> list[str]:
        found: list[Message] = store.history.newest(MessageFilter(**wanted), 100)  # type: ignore[arg-type]
        return [message.content for message in found]

    def test_by_what_is_wanted(self, store: Store) -> None:
        send(store, "ws-001", '"one"')
        broadcast_id = broadcast(store, '"two"', "octavia")
        send(store, "ws-002", '"three"')
        assert self.newest(store) == ['"three"', '"two"', '"two"', '"one"']
        assert self.newest(store, ws_id="ws-001") == ['"two"', '"one"']
        assert self.newest(store, agent="cipher") == ['"three"']
        assert self.newest(store, msg_type="news") == ['"two"', '"two"']
        assert self.newest(store, text="THREE") == ['"three"']
        assert self.newest(store, broadcast_id=broadcast_id) == ['"two"', '"two"']
        assert self.newest(store, broadcast_id=broadcast_id, ws_id="ws-003") == ['"two"']

    def test_by_what_became_of_it(self, store: Store) -> None:
        for content in ("1", "2", "3"):
            send(store, "ws-001", content)
        first, second, _ = pending(store, "ws-001")
        with store.atomic():
            confirm(store, "ws-001", first.seq)
            store.messages.set_aside("ws-001", second.seq, second.seq, "no", utc_now())
        assert self.newest(store, pending=True) == ["3"]
        assert self.newest(store, set_aside=True) == ["2"]
        assert self.newest(store, pending=True, set_aside=True) == ["3", "2"]


class TestHold:
    def test_excludes_another_until_it_is_released(self, store: Store, other: Store) -> None:
        connection = store.connections.find("ws-001")
        assert connection is not None
        hold = store.hold(connection)
        assert hold is not None
        assert other.hold(connection) is None
        hold.release()
        again = other.hold(connection)
        assert again is not None
        again.release()

    def test_of_gateway_processes_that_live(self, store: Store, other: Store) -> None:
        assert store.living_gateways() == frozenset()
        first, second = store.hold_gateway("g-1"), other.hold_gateway("g-2")
        assert store.living_gateways() == other.living_gateways() == {"g-1", "g-2"}
        first.release()
        assert other.living_gateways() == {"g-2"}
        second.release()
        assert store.living_gateways() == frozenset()


class TestWebhookEvents:
    def test_wait_until_they_are_routed(self, store: Store) -> None:
        with store.atomic():
            store.webhook_events.put("evt_1", "invoice.paid", "billing", "paid", '{"id":1}', utc_now(), None)
        assert store.webhook_events.waiting("") == ["evt_1"]
        assert store.webhook_events.payload("evt_1") == '{"id":1}'
        with store.atomic():
            store.webhook_events.routed("evt_1", "b-1", 2, utc_now())
        assert store.webhook_events.waiting("") == []
        event = store.webhook_events.find("evt_1")
        assert isinstance(event, StoredEvent)
        assert (event.status, event.recipients, event.broadcast_id) == ("routed", 2, "b-1")

    def test_pages_of_what_came_at_one_time(self, store: Store) -> None:
        now = utc_now()
        with store.atomic():
            for number in range(4):
                store.webhook_events.put(f"evt_{number}", f"type.{number % 2}", None, "x", "{}", now, None)

        def listed(limit: int, after: Optional[str], pattern: Optional[str] = None) -> list[str]:
            return [event.event_id for event in store.webhook_events.listed(None, "", pattern, limit, after)]

        assert listed(2, None) == ["evt_3", "evt_2"]
        assert listed(2, "evt_2") == ["evt_1", "evt_0"]
        assert listed(2, "evt_3", "*.1") == ["evt_1"]
        assert listed(2, "evt_0") == []
        # Only `*` stands for something else.
        assert listed(2, None, "type.?") == listed(2, None, "type.[01]") == []


class TestMaintenance:
    def test_an_export_fills_an_empty_ledger(self, store: Store, tmp_path: Path) -> None:
        broadcast(store)
        empty = engine_of(tmp_path / "new.db").open_to_write(tmp_path / "new.db")
        rows = list(store.maintenance.rows())
        assert empty.maintenance.is_empty()
        with empty.atomic():
            for table, row in rows:
                empty.maintenance.insert(table, [row])
            empty.maintenance.complete_import(utc_now())
        assert list(empty.maintenance.rows()) == rows
        assert not empty.maintenance.is_empty()
        empty.close()

    def test_a_row_that_is_there_already_is_refused(self, store: Store) -> None:
        table, row = next(iter(store.maintenance.rows()))
        with pytest.raises(InvalidInput), store.atomic():
            store.maintenance.insert(table, [row])

    def test_an_unknown_version_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidInput, match="has schema"):
            store.maintenance.columns(store.version + 1)


class TestSameLedger:
    def test_is_known(self, store: Store, other: Store, tmp_path: Path) -> None:
        assert store.is_same(other)
        elsewhere = engine_of(tmp_path / "new.db").open_to_write(tmp_path / "new.db")
        assert not store.is_same(elsewhere)
        elsewhere.close()


class TestHolds:
    def test_a_hold_is_found_until_it_is_deleted_by_its_name(self, store: Store) -> None:
        assert store.holds.find("ws-001") is None
        with store.atomic():
            store.holds.put("ws-001", "first", "2026-01-01")
            store.holds.put("ws-001", "second", "2026-01-02")
            store.holds.put("ws-002", "other", "2026-01-03")
        assert store.holds.find("ws-001") == ("second", "2026-01-02")
        with store.atomic():
            assert not store.holds.delete("ws-001", "first")
            assert store.holds.delete("ws-001", "second")
        assert store.holds.find("ws-001") is None

    def test_those_that_have_ended_are_deleted(self, store: Store) -> None:
        with store.atomic():
            store.holds.put("ws-001", "old", "2026-01-01")
            store.holds.put("ws-002", "new", "2026-01-03")
            store.holds.delete_before("2026-01-02")
        assert (store.holds.find("ws-001"), store.holds.find("ws-002")) == (None, ("new", "2026-01-03"))


class TestKeys:
    def test_requests_are_found_by_subject_operation_name_and_time(self, store: Store) -> None:
        names = [f"key-{number}" for number in range(1200)]
        with store.atomic():
            store.keys.insert(
                "octavia", "send", [(name, "print", f"of {name}") for name in names], "2026-01-02"
            )
        found = store.keys.find("octavia", "send", [*names, "unknown"], "2026-01-01")
        assert found == {name: ("print", f"of {name}") for name in names}
        for subject, operation, since in (
            ("cipher", "send", "2026-01-01"),
            ("octavia", "broadcast", "2026-01-01"),
            ("octavia", "send", "2026-01-03"),
        ):
            assert store.keys.find(subject, operation, names, since) == {}

    def test_a_newer_one_replaces_an_older_one(self, store: Store) -> None:
        with store.atomic():
            store.keys.insert("octavia", "send", [("key", "old", "1")], "2026-01-01")
            store.keys.insert("octavia", "send", [("key", "new", "2")], "2026-01-02")
        assert store.keys.find("octavia", "send", ["key"], "2025-01-01") == {"key": ("new", "2")}
