"""What the reader of an error can do about it, as codes.

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
LIST_AGENT = "list_agent"
LIST_SET_ASIDE = "list_set_aside"
LIST_PENDING = "list_pending"
RETRY = "retry"
REPLAY = "replay"
LIST_BROADCASTS = "list_broadcasts"
LIST_BARRED = "list_barred"
UNBAR = "unbar"
LIST_WEBHOOK_EVENTS = "list_webhook_events"
SHOW = "show"
SHOW_CONTENT = "show_content"
FOLLOW_PLAINLY = "follow_plainly"
START_GATEWAY = "start_gateway"
START_THIS_GATEWAY = "start_this_gateway"
MAKE_TOKEN = "make_token"
GIVE_TOKEN = "give_token"
CHECK_TOKEN = "check_token"
CHECK_TOKEN_FILE = "check_token_file"
PRINT_TOKEN = "print_token"
PUT_TOKEN_IN_FILE = "put_token_in_file"
PLACE_KEY = "place_key"
GIVE_KEY = "give_key"
CHECK_CA = "check_ca"
GIVE_CA = "give_ca"
CHECK_URL = "check_url"
CHECK_URL_AND_PROXY = "check_url_and_proxy"
SERVE_PUBLIC_HOST = "serve_public_host"
CHOOSE_WS_ID = "choose_ws_id"
CHECK_STRIPE_ROUTES = "check_stripe_routes"
USE_MOVED = "use_moved"
FINISH_COPY = "finish_copy"
UNSEAL = "unseal"
CHECK_COPY = "check_copy"
COPY_TO_EMPTY = "copy_to_empty"

LIBRARY = {
    UNBAR: "do not come back, unless an operator lets the agent in again",
    CHECK_LOCATION: "check the path and BLACKROAD_WS_DB",
    MAKE_LEDGER: "check the path and BLACKROAD_WS_DB; get_db() makes a new one",
    CHECK_ACCESS: "check its owner and mode, or use another file",
    CHOOSE_LOCATION: "choose another place, with a path or BLACKROAD_WS_DB",
    USE_ANOTHER_FILE: "nothing was changed; use another file",
    SHARE_FILE: "check the path; to keep a ledger in it beside what is there: get_db(path, shared=True)",
    NAME_LOCATION: "say where the database is, with a path or BLACKROAD_WS_DB",
    BACK_UP: "its owner can make a copy of it",
    IMPORT_INTO_NEW: "import into an empty ledger",
    LIST_SET_ASIDE: "look for it with get_message_history()",
    FOLLOW_PLAINLY: "leave out pending, set_aside and before",
    GIVE_TOKEN: "give one with the argument `token`",
    CHECK_TOKEN: "check the token's agent, ws_id and scope, and the address",
    CHECK_TOKEN_FILE: "check the file",
    PUT_TOKEN_IN_FILE: "for example http://127.0.0.1:8765; the token is an argument of its own",
    PLACE_KEY: "choose another place for the database, or set BLACKROAD_WS_SECRET",
    GIVE_KEY: "set BLACKROAD_WS_SECRET: in a database of PostgreSQL there is no place for a key",
    CHECK_CA: "check the file",
    GIVE_CA: "trust the certificate of its authority, or use the name that it is for",
    CHECK_URL: "check the URL",
    CHECK_URL_AND_PROXY: "check the URL, and what stands before the gateway",
    CHOOSE_WS_ID: "use another ws_id",
    CHECK_STRIPE_ROUTES: "check the path",
    USE_MOVED: "open the ledger where it is now",
    FINISH_COPY: "wait until the copy is finished",
    COPY_TO_EMPTY: "copy to a new place",
}
"""What a program can do. About the other codes it can do nothing with a call."""
