"""What was set aside is sent again, once."""

from __future__ import annotations

import pytest

from ws_manager import ConnectionPool, add_connection, get_message_history, send_message
from ws_manager.core.ledger import ledger_over
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.models import Message, utc_now
from ws_manager.repository.sqlite.database import Database


def set_aside(pool: ConnectionPool, db: Database, *contents: object) -> list[Message]:
    """Messages to a ws_id that then moved to another agent."""
    add_connection(pool, "ws-001", "octavia")
    sent = [send_message(pool, db, "ws-001", content) for content in contents]
    add_connection(pool, "ws-001", "cipher")
    return [message for message in sent if message is not None]


def test_writes_a_new_message_that_names_the_old(pool: ConnectionPool, db: Database) -> None:
    (old,) = set_aside(pool, db, {"a": 1})
    retried = ledger_over(db).retry(old.msg_id)
    new = get_message_history(db, limit=1)[0]
    assert (new["msg_id"], new["retry_of"], new["content"]) == (retried.msg_id, old.msg_id, old.content)
    assert (new["delivered"], new["rejected_at"]) == (0, None)


def test_leaves_the_old_one_set_aside(pool: ConnectionPool, db: Database) -> None:
    (old,) = set_aside(pool, db, 1)
    ledger_over(db).retry(old.msg_id)
    assert get_message_history(db)[-1]["rejected_at"] is not None


def test_counts_as_a_message_to_the_connection(pool: ConnectionPool, db: Database) -> None:
    (old,) = set_aside(pool, db, 1)
    ledger_over(db).retry(old.msg_id)
    connection = pool.get("ws-001")
    assert connection is not None
    assert connection.message_count == 2


def test_a_second_time_is_a_conflict(pool: ConnectionPool, db: Database) -> None:
    (old,) = set_aside(pool, db, 1)
    ledger_over(db).retry(old.msg_id)
    with pytest.raises(Conflict, match="already"):
        ledger_over(db).retry(old.msg_id)


def test_what_is_pending_cannot_be_sent_again(pool: ConnectionPool, db: Database) -> None:
    add_connection(pool, "ws-001", "octavia")
    sent = send_message(pool, db, "ws-001", 1)
    assert sent is not None
    with pytest.raises(Conflict, match="not set aside"):
        ledger_over(db).retry(sent.msg_id)


def test_an_unknown_message_is_not_found(db: Database) -> None:
    with pytest.raises(NotFound):
        ledger_over(db).retry("nope")


def test_all_keeps_the_order(pool: ConnectionPool, db: Database) -> None:
    old = set_aside(pool, db, 1, 2, 3)
    assert [again.retry_of for again in ledger_over(db).retry_all("")[0]] == [
        message.msg_id for message in old
    ]
    newest = [row["content"] for row in get_message_history(db, limit=3)]
    assert newest == ["3", "2", "1"]


def test_all_leaves_out_what_was_set_aside_before(pool: ConnectionPool, db: Database) -> None:
    set_aside(pool, db, 1)
    assert ledger_over(db).retry_all(utc_now()) == ([], 0)


def test_all_leaves_out_what_was_sent_again(pool: ConnectionPool, db: Database) -> None:
    set_aside(pool, db, 1)
    ledger_over(db).retry_all("")
    assert ledger_over(db).retry_all("") == ([], 0)


def beyond_limits(pool: ConnectionPool, db: Database) -> str:
    """A set-aside message of the time before there were limits."""
    (old,) = set_aside(pool, db, 1)
    db.execute("UPDATE messages SET content = ? WHERE msg_id = ?", ("[" * 101 + "]" * 101, old.msg_id))
    return old.msg_id


def test_what_is_beyond_the_limits_is_not_sent_again(pool: ConnectionPool, db: Database) -> None:
    msg_id = beyond_limits(pool, db)
    with pytest.raises(InvalidInput, match="beyond the limits"):
        ledger_over(db).retry(msg_id)
    assert len(get_message_history(db)) == 1


def test_all_leaves_out_and_counts_what_is_beyond_the_limits(pool: ConnectionPool, db: Database) -> None:
    beyond_limits(pool, db)
    (within,) = set_aside(pool, db, 2)
    sent, left = ledger_over(db).retry_all("")
    assert ([again.retry_of for again in sent], left) == ([within.msg_id], 1)
