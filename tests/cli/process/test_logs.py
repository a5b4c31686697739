"""The log: for people on a terminal, lines of JSON otherwise."""

from __future__ import annotations

import json
import logging
import sys

from ws_manager.cli.process.logs import JsonFormatter, TerminalFormatter


def record(message: str, *arguments: object, **attributes: object) -> logging.LogRecord:
    made = logging.LogRecord("ws_manager.gateway", logging.WARNING, __file__, 1, message, arguments, None)
    vars(made).update(attributes)
    return made


def test_json_line_has_time_level_logger_and_message() -> None:
    line = JsonFormatter().format(record("%s closed", "ws-001", created=1764000000.25, msecs=250.0))
    assert json.loads(line) == {
        "time": "2025-11-24T16:00:00.250Z",
        "level": "warning",
        "logger": "ws_manager.gateway",
        "message": "ws-001 closed",
    }


def test_json_line_has_the_fields_that_were_given() -> None:
    line = JsonFormatter().format(record("closed", fields={"ws_id": "ws-001", "code": 1001}))
    assert json.loads(line).items() >= {"ws_id": "ws-001", "code": 1001}.items()


def test_the_lines_of_a_worker_say_which_one_it_is() -> None:
    assert json.loads(JsonFormatter(2).format(record("closed")))["worker"] == 2
    assert TerminalFormatter(2).format(record("closed")).endswith("WARNING [2] closed")


def test_json_stays_on_one_line_whatever_is_in_it() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = JsonFormatter().format(record("a\nb", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "two\nlines" in json.loads(line)["exception"]


def test_what_an_agent_has_put_into_it_cannot_steer_a_terminal() -> None:
    line = TerminalFormatter().format(record("closed: \x1b[2J\u202e\nforged line"))
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert "\n" not in line


def test_a_traceback_cannot_steer_a_terminal_either() -> None:
    try:
        raise ValueError("\x1b[2J\u200b")
    except ValueError:
        text = TerminalFormatter().format(record("failed", exc_info=sys.exc_info()))
    assert r"ValueError: \u001b[2J\u200b" in text
    assert text.count("\n") > 2


def test_json_stays_on_one_line_for_every_reader() -> None:
    line = JsonFormatter().format(record("closed: a\u2028b\x85c"))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == "closed: a\u2028b\x85c"
