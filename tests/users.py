"""Other users, for tests of what belongs to whom: they need root, who can become anybody."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ws_manager

ALICE, BOB = 4001, 4002

as_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can become two other users"
)


class Ended(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    stdout: str
    stderr: str


def as_user(user: int, function: Callable[[], Any]) -> Any:
    """Run a function in a forked process of another user, and return what it returns, a JSON value.

    Everything is imported before: the other user need not be able to read the program.
    """
    for module in pkgutil.walk_packages(ws_manager.__path__, "ws_manager."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    importlib.import_module("sqlite_utils")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            answer = json.dumps([True, function()])
        except BaseException:
            answer = json.dumps([False, traceback.format_exc()])
        with os.fdopen(writing, "w") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    done, answer = json.loads(text)
    assert done, answer
    return answer


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The owners and sizes of the files of a folder, by their names."""
    return {path.name: (path.lstat().st_uid, path.lstat().st_size) for path in folder.iterdir()}
