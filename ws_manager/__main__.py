"""Run the command line: `python -m ws_manager`, or `ws-manager` where it is installed."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line and exit."""
    # What is imported lives as long as the process. Looking for garbage in it, again and again while it
    # grows, is a tenth of the time of a one-shot command; `app` switches the collector on before it works.
    gc.disable()
    from ws_manager.cli import app

    app.main()


if __name__ == "__main__":
    main()
