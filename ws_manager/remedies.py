"""What whoever gets an error can do about it, as codes.

An error of the ledger does not know whether it is read at a command line, over HTTP or in a program. So it
carries a code, and each face says in its own words what its reader can do: the command line in
`ws_manager.cli.hints`, the gateway in `ws_manager.gateway.http.errors`, the library in `LIBRARY` below. What every
reader can do in the same way is the error's `hint`.
"""

from __future__ import annotations

CHECK_LOCATION = "check_location"
MAKE_LEDGER = "make_ledger"
CHECK_ACCESS = "check_access"
CHOOSE_LOCATION = "choose_location"
USE_ANOTHER_FILE = "use_another_file"
SHARE_FILE = "share_file"
NAME_LOCATION = "name_location"
BACK_UP = "back_up"
COPY = "copy"
IMPORT_INTO_NEW = "import_into_new"
EXPORT = "export"
LIST_CONNECTIONS = "list_connections"
LIST_ALL = "list_all"
LIST_SET_ASIDE = "list_set_aside"
LIST_BROADCASTS = "list_broadcasts"
LIST_WEBHOOK_EVENTS = "list_webhook_events"
SHOW = "show"
SHOW_CONTENT = "show_content"
FOLLOW_PLAINLY = "follow_plainly"
START_GATEWAY = "start_gateway"

LIBRARY = {
    CHECK_LOCATION: "check the path and BLACKROAD_WS_DB",
    MAKE_LEDGER: "check the path and BLACKROAD_WS_DB; get_db() makes a new one",
    CHECK_ACCESS: "check its owner and mode, or use another file",
    CHOOSE_LOCATION: "choose another place, with a path or BLACKROAD_WS_DB",
    USE_ANOTHER_FILE: "nothing was changed; use another file",
    SHARE_FILE: "check the path; to keep a ledger in it beside what is there: get_db(path, shared=True)",
    NAME_LOCATION: "say where the database is, with a path or BLACKROAD_WS_DB",
    BACK_UP: "its owner can make a copy of it",
    IMPORT_INTO_NEW: "import into a new file",
    LIST_SET_ASIDE: "look for it with get_message_history()",
    FOLLOW_PLAINLY: "leave out pending, set_aside and before",
}
"""What a program can do. What is not here, it can do nothing about by a call."""
