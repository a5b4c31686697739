"""The options of `serve` that are refused before anything is done. What it does is in tests/acceptance."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_several_workers_need_linux(cli, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr("ws_manager.cli.commands.serve.sys.platform", platform)
    refused = cli("serve", "--workers", "2")
    assert (refused.exit_code, "--workers above 1 needs Linux" in refused.stderr) == (2, True)
