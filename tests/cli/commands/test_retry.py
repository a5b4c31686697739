"""`retry` as an operator types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.processes import command
from ws_manager import ConnectionPool, add_connection, get_message_history, send_message
from ws_manager.repository.sqlite.database import Database

pytestmark = pytest.mark.over_http


@pytest.fixture
def set_aside(db: Database, pool: ConnectionPool) -> list[str]:
    """The ids of two messages to a ws_id that then moved to another agent."""
    add_connection(pool, "ws-001", "octavia")
    sent = [send_message(pool, db, "ws-001", number) for number in range(2)]
    add_connection(pool, "ws-001", "cipher")
    return [message.msg_id for message in sent if message is not None]


def test_one_message(database: Path, db: Database, set_aside: list[str]) -> None:
    ended = command(database, "retry", set_aside[0])
    again = get_message_history(db, limit=1)[0]
    assert again["retry_of"] == set_aside[0]
    assert (ended.returncode, ended.stdout) == (
        0,
        f"Retried 1 message(s)\n{set_aside[0]} as {again['msg_id']}\n",
    )


def test_several_by_parts_of_their_ids(database: Path, set_aside: list[str]) -> None:
    ended = command(database, "retry", *(msg_id[-8:] for msg_id in set_aside))
    assert ended.stdout.startswith("Retried 2 message(s)\n")


def test_of_an_agent(database: Path, set_aside: list[str]) -> None:
    assert command(database, "retry", "--agent", "octavia").stdout == "Retried 0 message(s)\n"
    assert len(command(database, "retry", "--agent", "cipher", "-o", "id").stdout.splitlines()) == 2


def test_all_as_json_names_old_and_new(database: Path, set_aside: list[str]) -> None:
    retried = json.loads(command(database, "retry", "--all", "--json").stdout)["retried"]
    assert [again["retry_of"] for again in retried] == set_aside
    assert {again["ws_id"] for again in retried} == {"ws-001"}


def test_since_leaves_out_what_is_older(database: Path, set_aside: list[str]) -> None:
    assert command(database, "retry", "--all", "--since", "0s").stdout == "Retried 0 message(s)\n"


def test_again_is_a_conflict(database: Path, set_aside: list[str]) -> None:
    command(database, "retry", set_aside[0])
    ended = command(database, "retry", set_aside[0])
    assert (ended.returncode, "already" in ended.stderr) == (6, True)


def test_unknown_message(database: Path, db: Database) -> None:
    assert command(database, "retry", "nope").returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [(), ("id", "--all"), ("id", "--agent", "cipher"), ("id", "--since", "2h"), ("--all", "--since", "soon")],
)
def test_usage(arguments: tuple[str, ...], database: Path, db: Database) -> None:
    ended = command(database, "retry", *arguments)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2)
