"""The JavaScript client, with a clock that is moved: `tests/npm/test_client.py` has the one with gateways."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.nodes import Node, each_node
from ws_manager.protocol.close_codes import CloseCode, should_reconnect

HERE = Path(__file__).parent
CLIENT = HERE.parent.parent / "npm" / "client" / "index.mjs"


@pytest.mark.parametrize("node", each_node())
def test_its_times_and_repetitions(node: Node) -> None:
    ended = subprocess.run(
        [str(node.path), "--test", str(HERE / "javascript_client.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert int(re.findall(r"^\S pass (\d+)$", ended.stdout, re.MULTILINE)[0]) > 30


def test_it_stays_away_after_the_same_close_codes() -> None:
    (codes,) = re.findall(r"^const FINAL = \[([\d, ]+)\];$", CLIENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in codes.split(",")} == {
        code for code in CloseCode if not should_reconnect(code)
    }
