"""Environment and defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.settings import (
    DB_PATH,
    Sizes,
    database_location,
    heartbeat_timeout,
    located,
    parse_duration,
    parse_size,
    sizes,
)


def test_defaults() -> None:
    assert (database_location({}), heartbeat_timeout({})) == (DB_PATH, 30.0)


def test_default_database_is_in_the_home_folder() -> None:
    assert DB_PATH.parts[-2:] == (".blackroad", "websocket-manager.db")


def test_database_comes_from_the_environment() -> None:
    assert database_location({"BLACKROAD_WS_DB": "/var/agents.db"}) == Path("/var/agents.db")


def test_tilde_in_the_database_is_expanded() -> None:
    assert database_location({"BLACKROAD_WS_DB": "~/agents.db"}) == Path("~/agents.db").expanduser()


def test_empty_variable_is_the_default() -> None:
    assert database_location({"BLACKROAD_WS_DB": ""}) == DB_PATH
    assert heartbeat_timeout({"BLACKROAD_HB_TIMEOUT": ""}) == 30.0


@pytest.mark.parametrize("password", ["secret", "secret,x", "secret@x"])
def test_url_of_several_hosts_is_shown_without_its_password(password: str) -> None:
    hosts = "127.0.0.1:5432,[::1]:5433,other/db?target_session_attrs=read-write"
    assert str(located(f"postgresql://owner:{password}@{hosts}")) == f"postgresql://owner@{hosts}"


def test_variables_are_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLACKROAD_WS_DB", "/var/agents.db")
    monkeypatch.setenv("BLACKROAD_HB_TIMEOUT", "2m")
    assert (database_location(), heartbeat_timeout()) == (Path("/var/agents.db"), 120.0)


@pytest.mark.parametrize(("text", "seconds"), [("45", 45.0), ("0.5", 0.5), ("90s", 90.0), ("500ms", 0.5)])
def test_heartbeat_timeout(text: str, seconds: float) -> None:
    assert heartbeat_timeout({"BLACKROAD_HB_TIMEOUT": text}) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-1", "soon", "nan", "inf"])
def test_bad_heartbeat_timeout_names_the_variable(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^BLACKROAD_HB_TIMEOUT"):
        heartbeat_timeout({"BLACKROAD_HB_TIMEOUT": text})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (30, 30.0),
        (2.5, 2.5),
        ("0", 0.0),
        ("250ms", 0.25),
        ("90s", 90.0),
        ("1.5m", 90.0),
        ("5m", 300.0),
        ("24h", 86400.0),
        ("7d", 604800.0),
        (" 7d ", 604800.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "-5m", "1w", "1h30m", "ten", "nan", "inf", "1e300d", "5 000d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("300000", 300_000), ("64KiB", 65_536), ("64 kib", 65_536), ("1MiB", 1_048_576)],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text, "--max-content") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5MiB", "KiB", "64kB", "2MiB", "9" * 5000, "٣"])
def test_what_is_no_size_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(InvalidInput, match="--max-content is not a size"):
        parse_size(text, "--max-content")


def test_sizes_come_from_the_environment() -> None:
    environ = {"BLACKROAD_WS_MAX_CONTENT": "1MiB", "BLACKROAD_WS_MAX_METADATA": "2KiB"}
    assert sizes(environ) == Sizes(content=1_048_576, metadata=2048)


def test_sizes_have_defaults() -> None:
    assert sizes({"BLACKROAD_WS_MAX_CONTENT": ""}) == Sizes(content=262_144, metadata=16_384)
