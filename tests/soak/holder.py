"""Holds SQLite's write lock for a while: `holder.py DATABASE SECONDS [WS_ID AGENT]`.

With a ws_id, that connection is registered again in the transaction: receipts that wait for the lock are void then.
At the end one line of JSON says when that was: `begun` and `ended`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ws_manager import ConnectionPool, add_connection, get_db


def main() -> None:
    database, seconds, *registration = sys.argv[1:]
    db = get_db(Path(database))
    pool = ConnectionPool(db)
    begun = time.time()
    db.execute("BEGIN IMMEDIATE")
    if registration:
        ws_id, agent = registration
        add_connection(pool, ws_id, agent)
    time.sleep(float(seconds))
    db.execute("COMMIT")
    print(json.dumps({"begun": begun, "ended": time.time()}))
    db.close()


if __name__ == "__main__":
    main()
