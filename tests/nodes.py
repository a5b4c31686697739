"""The Nodes of this machine, for the tests of the JavaScript client."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MORE = "BLACKROAD_WS_TEST_NODES"
"""Names further Nodes: paths of programs, separated as in PATH."""


@dataclass(frozen=True)
class Node:
    """A Node.

    Attributes:
        path: of the program.
        version: as it says it, for example `v20.20.2`.
        has_web_socket: whether it has a global WebSocket; versions before 22 have none.
    """

    path: Path
    version: str
    has_web_socket: bool


def _node(path: Path) -> Node:
    script = "console.log(process.version, typeof WebSocket)"
    said = subprocess.run(
        [str(path), "-e", script], capture_output=True, text=True, check=True
    ).stdout.split()
    return Node(path, said[0], said[1] == "function")


def nodes() -> list[Node]:
    """Return the Nodes in PATH, and those that `MORE` names; one of each version.

    Raises:
        FileNotFoundError: `MORE` names a program that is not there.
    """
    on_path = (Path(folder, "node") for folder in os.get_exec_path())
    found = [path for path in on_path if os.access(path, os.X_OK)]
    named = [Path(path) for path in os.environ.get(MORE, "").split(os.pathsep) if path]
    return list({node.version: node for node in map(_node, [*found, *named])}.values())


def each_node() -> list[Any]:
    """Return the parameters of a test or a fixture that is run with each Node; it is skipped if no Node is found."""
    missing = pytest.param(None, marks=pytest.mark.skip(reason="node is not installed"), id="no-node")
    return [pytest.param(node, id=node.version) for node in nodes()] or [missing]
