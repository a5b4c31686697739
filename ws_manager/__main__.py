"""Run the command line: `python -m ws_manager`, or `ws-manager` where it is installed."""

from __future__ import annotations

from ws_manager.cli.app import main

if __name__ == "__main__":
    main()
