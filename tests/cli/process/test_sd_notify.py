"""What a service manager is told."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ws_manager.cli.process.sd_notify import notify_supervisor

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


@pytest.fixture
def supervisor() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        yield listening


def test_gets_the_state(supervisor: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    supervisor.bind(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify_supervisor("READY=1")
    assert supervisor.recv(100) == b"READY=1"


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_gets_it_under_an_abstract_name(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor.bind("\0ws-manager-test-of-notify")
    monkeypatch.setenv("NOTIFY_SOCKET", "@ws-manager-test-of-notify")
    notify_supervisor("READY=1")
    assert supervisor.recv(100) == b"READY=1"


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_supervisor("READY=1")


def test_one_that_is_gone_is_no_reason_not_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify_supervisor("STOPPING=1")
    assert "cannot tell STOPPING=1 to the service manager" in caplog.text
