"""What is refused leaves a line that says what it was and what lets it in, and never many."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Clock, RunningGateway, gateway, refusal
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.refusal_log import LINES, SECONDS, RefusalLog, quoted
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged about refusals, as it grows."""
    found: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "refused" in record.getMessage():
                found.append(record.getMessage())

    caplog.set_level(logging.DEBUG, logger="ws_manager.gateway")
    handler = Kept()
    logging.getLogger("ws_manager.gateway").addHandler(handler)
    yield found
    logging.getLogger("ws_manager.gateway").removeHandler(handler)


class TestRefusals:
    def test_first_ones_have_a_line_each_and_the_others_are_counted(self, lines: list[str]) -> None:
        clock = Clock()
        refusal_log = RefusalLog(clock)
        for number in range(1000):
            refusal_log.note("host", f"number {number}")
        assert lines == [f"refused: number {number}" for number in range(LINES)]
        clock.forward(SECONDS)
        refusal_log.tick()
        assert lines[LINES:] == [f"refused {1000 - LINES} more; the last: number 999"]
        clock.forward(SECONDS)
        refusal_log.tick()
        assert len(lines) == LINES + 1

    def test_each_kind_is_limited_by_itself(self, lines: list[str]) -> None:
        refusal_log = RefusalLog(Clock())
        for _ in range(100):
            refusal_log.note("host", "a host")
        refusal_log.note("origin", "an origin")
        assert lines[-1] == "refused: an origin"

    def test_what_a_stranger_sent_is_one_short_line(self) -> None:
        assert quoted("a\r\nb\x1b[2J") == r"'a\r\nb\x1b[2J'"
        assert len(quoted("x" * 100_000)) < 200


async def refused(running: RunningGateway, *headers: tuple[str, str], query: str = "agent=octavia") -> int:
    return await refusal(running.url, query, list(headers))


class TestGateway:
    @pytest.mark.parametrize(
        ("header", "value", "option"),
        [
            ("Host", "gateway.example.com", "--public-host gateway.example.com"),
            ("Host", "gateway.example.com:8443", "--public-host gateway.example.com"),
            ("Host", "[fd00::2]:8765", "--public-host fd00::2"),
            ("Origin", "https://app.example.com", "--allow-origin https://app.example.com"),
            ("Origin", "tauri://localhost", "--allow-origin tauri://localhost"),
        ],
    )
    async def test_foreign_host_or_origin_is_named_with_the_option_that_lets_it_in(
        self, database: Path, lines: list[str], header: str, value: str, option: str
    ) -> None:
        async with gateway(database) as running:
            assert await refused(running, (header, value)) == 403
        (line,) = lines
        assert repr(value) in line
        assert line.endswith(option)

    @pytest.mark.parametrize(("header", "value"), [("Host", "*.x"), ("Host", "a@b"), ("Origin", "null")])
    async def test_what_no_option_lets_in_is_named_without_one(
        self, database: Path, lines: list[str], header: str, value: str
    ) -> None:
        async with gateway(database) as running:
            assert await refused(running, (header, value)) == 403
        (line,) = lines
        assert repr(value) in line
        assert "--" not in line

    async def test_token_is_never_in_it(
        self, database: Path, lines: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        good, late = mint(KEY, "octavia"), mint(KEY, "octavia", ttl=1, now=0)
        other = mint(b"another key of another gateway, 32", "octavia")

        async with gateway(database, key=KEY) as running:
            assert await refused(running) == 401
            assert await refused(running, query=f"agent=octavia&access_token={late}") == 401
            assert await refused(running, ("Authorization", f"Bearer {other}")) == 401
            assert await refused(running, query=f"agent=cipher&access_token={good}") == 403
        causes = ["no token", "has expired", "is not valid here", "belongs to another agent"]
        assert len(lines) == len(causes)
        for line, cause in zip(lines, causes):
            assert cause in line
            assert "from 127.0.0.1" in line
            assert "ws-manager token" in line
        assert "agent 'cipher'" in lines[-1]
        for token in (good, late, other):
            for part in token.split(".")[1:]:
                assert part not in caplog.text

    async def test_proxy_without_tokens_is_told_of(self, database: Path, lines: list[str]) -> None:
        async with gateway(database) as running:
            assert await refused(running, ("X-Forwarded-For", "192.0.2.1")) == 403
        (line,) = lines
        assert "leave --no-auth out" in line

    async def test_full_gateway_is_told_of(self, database: Path, lines: list[str]) -> None:
        async with gateway(database, limits=Limits(connections=1)) as running:
            await running.agent()
            assert await refused(running, query="agent=cipher") == 503
        (line,) = lines
        assert "--max-connections" in line
        assert "'cipher'" in line

    async def test_many_leave_few_lines(self, database: Path, lines: list[str], monkeypatch) -> None:
        from ws_manager.gateway import server

        monkeypatch.setattr(server, "_TICK_SECONDS", 0.005)

        clock = Clock()
        async with gateway(database, now=clock, heartbeat_timeout=300) as running:
            for number in range(3 * LINES):
                await refused(running, ("Host", f"{number}.example.com"))
            assert len(lines) == LINES
            clock.forward(SECONDS)
            await running.until(lambda: len(lines) > LINES)
            assert lines[LINES].startswith(f"refused {2 * LINES} more; the last: the Host '14.example.com'")
