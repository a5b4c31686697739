"""The script that builds the npm package, as a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent


def builder() -> ModuleType:
    """Return npm/build.py."""
    spec = importlib.util.spec_from_file_location("npm_build", ROOT / "npm" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
