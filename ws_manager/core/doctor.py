"""What `doctor` looks at: the ledger, its engine, and what the gateway runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import OK, PROBLEM, WARNING, Finding
from ws_manager.settings import Location

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger

# The first aiohttp without CVE-2026-54274 (its WebSocket reader) and CVE-2026-69243 (its upgrade parsing).
_SAFE_AIOHTTP = (3, 14, 3)


def is_safe(version: str) -> bool:
    """Return whether a version of aiohttp is without the vulnerabilities that other machines could use."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdecimal()) >= _SAFE_AIOHTTP


def examine(location: Location, aiohttp: Optional[str]) -> list[Finding]:
    """Look at a ledger and at what the program runs on. Nothing is created, migrated or repaired.

    Args:
        location: of the ledger; there may be anything, or nothing.
        aiohttp: the installed version; None if it is not installed.
    """
    return [*engine_of(location).examine(location), _aiohttp(aiohttp)]


def examine_open(ledger: Ledger, aiohttp: str) -> list[Finding]:
    """Do the same with an open ledger, whose location is only a text for people."""
    return [*ledger.doctor(), _aiohttp(aiohttp)]


def _aiohttp(version: Optional[str]) -> Finding:
    if version is None:
        return Finding("aiohttp", PROBLEM, "it is not installed", "install ws-manager again")
    if not is_safe(version):
        return Finding(
            "aiohttp",
            WARNING,
            f"{version} has CVE-2026-54274 and CVE-2026-69243",
            "keep the gateway on loopback, or use Python 3.10 with aiohttp 3.14.3 or newer",
        )
    return Finding("aiohttp", OK, version)
