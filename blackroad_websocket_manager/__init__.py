"""The name under which ws-manager is installed: it hands on the names of `ws_manager`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ws_manager
from ws_manager import __all__ as __all__
from ws_manager import __version__ as __version__

if TYPE_CHECKING:
    from ws_manager import *


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(ws_manager, name)


def __dir__() -> list[str]:
    return sorted(__all__)
