"""Conditions on connections."""

from __future__ import annotations

import pytest

from ws_manager import InvalidInput
from ws_manager.core.ledger import ledger_over
from ws_manager.core.read.conditions import all_of, equalities, parse_condition
from ws_manager.models import Connection, seconds_before, utc_now
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import Json


def connection() -> Connection:
    """One whose heartbeat is a minute old when it is asked for."""
    return Connection(
        ws_id="ws-001",
        agent="octavia",
        metadata={
            "region": "us-west",
            "cpus": 10,
            "load": 1.5,
            "version": "1.9",
            "gpu": True,
            "zone": None,
            "tags": ["a", {"name": "b"}],
            "rack": {"row": {"n": 3}},
            "": "empty",
            "app.kubernetes.io/name": "web",
            'it\'s "x" = y\\': {"a b": 1},
            "größe": "XL",
        },
        connected_at=seconds_before(utc_now(), 7200),
        last_heartbeat=seconds_before(utc_now(), 60),
        message_count=12,
    )


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("agent=octavia", True),
        (" agent = octavia ", True),
        ("agent!=octavia", False),
        ("ws_id~^ws-", True),
        ("ws_id~^x", False),
        ("metadata.region=us-west", True),
        ("metadata.region~WEST", False),
        ("metadata.region~(?i)WEST", True),
        ("metadata.rack.row.n=3", True),
        ("metadata.tags.0=a", True),
        ("metadata.tags.1.name=b", True),
        ("metadata.tags.7=a", False),
        ("metadata.tags.0!=a", False),
        ('metadata."app.kubernetes.io/name"=web', True),
        ("metadata.'app.kubernetes.io/name'=web", True),
        ('metadata."app.kubernetes.io/name"~^w', True),
        ('metadata."app.kubernetes.io/name" != web', False),
        ('metadata."app.kubernetes\\u002eio/name"=web', True),
        (r"""metadata."it's \"x\" = y\\".'a b'=1""", True),
        (r"""metadata."it's \"x\" = y\\"."a b"<1""", False),
        ("metadata.\"region\"='us-west'", False),
        ("metadata.größe=XL", True),
        ('metadata.""=empty', True),
        ("metadata.''=empty", True),
        ('metadata."rack"."row".n=3', True),
        ("metadata.nothing=us-west", False),
        ("metadata.nothing!=us-west", True),
        ("metadata.nothing<5", False),
        ("metadata.nothing~.", False),
        ("metadata.cpus>9", True),
        ("metadata.cpus<9", False),
        ("metadata.cpus=10.0", True),
        ("metadata.cpus!=10.0", False),
        ("metadata.load<1.75", True),
        ("metadata.version<2", True),
        ("metadata.gpu=true", True),
        ("metadata.zone=null", True),
        ("metadata.region=", False),
        ("metadata.cpus>nan", False),
        ("message_count>11", True),
        ("message_count<12", False),
        ("last_heartbeat<30", True),
        ("last_heartbeat<5m", False),
        ("last_heartbeat>5m", True),
        ("connected_at<1h", True),
        ("connected_at>2020-01-01T00:00:00Z", True),
    ],
)
def test_condition(text: str, holds: bool) -> None:
    assert parse_condition(text)(connection()) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "agent",
        "octavia",
        "=octavia",
        "agent==octavia",
        "message_count<=5",
        "message_count>=5",
        "message_count>many",
        "status=active",
        "metadata=1",
        "metadata.=1",
        "metadata..a=1",
        "agent.name=1",
        "metadata.app.kubernetes.io/name=web",
        'metadata."a=1',
        "metadata.'a\"=1",
        'metadata."a"b=1',
        'metadata."\\x"=1',
        'metadata."a" "b"=1',
        '"metadata".a=1',
        'agent."name"=1',
        "agent~(",
        "last_heartbeat<soon",
        "1=1; DROP TABLE connections",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_condition(text)
    assert caught.value.hint or "regular expression" in caught.value.message


def test_all_have_to_hold_and_those_that_do_not_are_named() -> None:
    both = all_of(["agent=octavia", "metadata.region=eu", "message_count<5"])
    assert not both(connection())
    assert both.failed(connection()) == ["metadata.region=eu", "message_count<5"]
    assert all_of(["agent=octavia", "message_count>5"])(connection())
    assert all_of([])(connection())


def test_a_key_that_needs_quotes_is_shown_how() -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_condition("metadata.app.kubernetes.io/name=web")
    assert 'metadata."app.kubernetes.io/name"=web' in str(raised.value.hint)


def test_equalities_hold_for_the_connection_that_they_are_of() -> None:
    found = list(equalities(connection().metadata))
    assert 'metadata."app.kubernetes.io/name"=web' in found
    assert "metadata.tags.1.name=b" in found
    assert len(found) == 13
    assert all(parse_condition(text)(connection()) for text in found)


def test_equalities_that_could_not_be_written_are_left_out() -> None:
    assert list(equalities({"a": " b", "b": "=b", "c": "c"})) == ["metadata.c=c"]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (r"metadata.v~^1\.10$", True),
        (r"metadata.v~^1\.1$", False),
        ("metadata.v=1.10", True),
        ("metadata.v=1.1", True),
        ("metadata.big=77950e8", True),
        ("metadata.big~^77950e8$", True),
    ],
)
def test_numbers_of_a_ledger_are_compared_as_numbers_and_searched_as_text(
    db: Database, condition: str, holds: bool
) -> None:
    connection = ledger_over(db).connect("octavia", "ws-001", Json('{"v":1.10,"big":77950e8}'))
    assert parse_condition(condition)(connection) is holds


@pytest.mark.parametrize("place", ["9" * 5000, "0" * 5000], ids=["nines", "zeros"])
def test_a_place_of_any_length_is_only_not_there(db: Database, place: str) -> None:
    connection = ledger_over(db).connect("octavia", "ws-001", {"list": ["a"]})
    assert not parse_condition(f"metadata.list.{place}=a")(connection)
    assert parse_condition(f"metadata.list.{place}!=a")(connection)


@pytest.mark.parametrize(("condition", "holds"), [(r"metadata.v~^-0$", True), ("metadata.v=0", True)])
def test_minus_zero_keeps_its_text(db: Database, condition: str, holds: bool) -> None:
    connection = ledger_over(db).connect("octavia", "ws-001", Json('{"v":-0}'))
    assert parse_condition(condition)(connection) is holds
