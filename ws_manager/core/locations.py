"""Questions about the place of a ledger that is not open, or cannot be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ws_manager.repository.engines import engine_of

if TYPE_CHECKING:
    from ws_manager.repository.store import Hold
    from ws_manager.settings import Location


def exists(location: Location) -> bool:
    """Return whether there is a ledger, or something else that is not empty.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`.
    """
    return engine_of(location).exists(location)


def check_location(location: Location, *, shared: bool = False) -> None:
    """Refuse a location that cannot be served. Nothing at all, and an empty file, may still become a ledger.

    Raises:
        InvalidInput, LedgerError: as `open_ledger`.
    """
    engine_of(location).check(location, shared=shared)


def hold_gateway(location: Location) -> Optional[Hold]:
    """Hold the right to be the gateway of a ledger, which need not be open; None if another has it."""
    return engine_of(location).hold_gateway(location)


def caveats(location: Location) -> list[str]:
    """Return what a reader of this ledger should know."""
    return engine_of(location).caveats(location)


def engine_caveat(location: Location) -> Optional[str]:
    """Return a known fault of the installed engine, or None."""
    return engine_of(location).engine_caveat()


def complete(location: Location, kind: str, prefix: str) -> list[str]:
    """Return names of a kind that begin with a prefix, without waiting: at most 100. See `Engine.complete`."""
    return engine_of(location).complete(location, kind, prefix)
