"""`ask`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import within_thread
from ws_manager.core.ledger import open_ledger
