"""Hints for the command line: a text for each code of `ws_manager.remedies`."""

from __future__ import annotations

from typing import Optional

from ws_manager import remedies
from ws_manager.errors import WsManagerError

_CHECK = "check --db and BLACKROAD_WS_DB"

HINTS = {
    remedies.CHECK_LOCATION: _CHECK,
    remedies.MAKE_LEDGER: f"{_CHECK}; ws-manager connect makes a new one",
    remedies.CHECK_ACCESS: "check its owner and mode, or use another --db",
    remedies.CHOOSE_LOCATION: "choose another place with --db or BLACKROAD_WS_DB",
    remedies.USE_ANOTHER_FILE: "nothing was changed; use another file with --db or BLACKROAD_WS_DB",
    remedies.SHARE_FILE: (
        f"{_CHECK}; to keep a ledger in it beside what is there: ws-manager connect --shared"
    ),
    remedies.NAME_LOCATION: "say where the database is, with --db or BLACKROAD_WS_DB",
    remedies.BACK_UP: "its owner can make a copy of it with: ws-manager backup FILE",
    remedies.COPY: "copy with: ws-manager backup FILE",
    remedies.IMPORT_INTO_NEW: "import into an empty ledger: --db new.db, or an empty database",
    remedies.EXPORT: "make one with: ws-manager export",
    remedies.LIST_CONNECTIONS: "ws-manager list shows who is connected",
    remedies.LIST_AGENT: "ws-manager list --agent {about} shows its connections",
    remedies.LIST_ALL: "ws-manager list --all and ws-manager history show what there is",
    remedies.LIST_SET_ASIDE: "ws-manager history --set-aside lists them",
    remedies.LIST_PENDING: "ws-manager history --pending lists them, and ws-manager show <msg_id> says why",
    remedies.RETRY: "ws-manager history --set-aside lists them, and ws-manager retry --all sends them again",
    remedies.REPLAY: "ws-manager stripe events --status unrouted lists them",
    remedies.LIST_BROADCASTS: "ws-manager broadcasts lists them",
    remedies.LIST_BARRED: "ws-manager bar lists who is barred",
    remedies.UNBAR: "ws-manager unbar {about} lets it in again",
    remedies.LIST_WEBHOOK_EVENTS: "ws-manager stripe events lists them",
    remedies.SHOW: "ws-manager show {about} shows its outcome",
    remedies.SHOW_CONTENT: "ws-manager show {about} --json has its content: send it in a smaller form",
    remedies.FOLLOW_PLAINLY: "use --follow without --pending, --set-aside and --before",
    remedies.START_GATEWAY: "start one with: ws-manager serve",
    remedies.START_THIS_GATEWAY: "start it with: ws-manager serve",
    remedies.MAKE_TOKEN: "make one with: ws-manager token <agent>",
    remedies.GIVE_TOKEN: "on its machine, ws-manager token <agent> prints one; give it with --token-file",
    remedies.CHECK_TOKEN: (
        "check the token's agent, ws_id and scope: ws-manager token --inspect; and the address"
    ),
    remedies.CHECK_TOKEN_FILE: "check --token-file",
    remedies.PRINT_TOKEN: "ws-manager token <agent> prints one",
    remedies.PUT_TOKEN_IN_FILE: "for example http://127.0.0.1:8765; a token goes into --token-file",
    remedies.PLACE_KEY: "choose another place with --db, or set BLACKROAD_WS_SECRET",
    remedies.GIVE_KEY: "set BLACKROAD_WS_SECRET, or give --key-file: the key is never stored in PostgreSQL",
    remedies.CHECK_CA: "check --ca",
    remedies.GIVE_CA: "give the certificate of its authority with --ca, or use the name that it is for",
    remedies.CHECK_URL: "check --url",
    remedies.CHECK_URL_AND_PROXY: "check --url, and what stands before the gateway",
    remedies.SERVE_PUBLIC_HOST: "check --url, and serve --public-host",
    remedies.CHOOSE_WS_ID: "use another --ws-id",
    remedies.CHECK_STRIPE_ROUTES: "check --stripe-routes",
    remedies.USE_MOVED: "use --db {about}; if it did not move, ws-manager copy --unseal takes the seal off",
    remedies.FINISH_COPY: "finish it with: ws-manager copy --from … --to … --seal",
    remedies.UNSEAL: "use it there; if it did not move, ws-manager copy --unseal --from … takes the seal off",
    remedies.CHECK_COPY: (
        "the source stays sealed: copy to a new place, or take the seal off: ws-manager copy --unseal --from {about}"
    ),
    remedies.COPY_TO_EMPTY: "copy to a new file, or to a database without a ledger: --to …",
}


def hint_of(error: WsManagerError) -> Optional[str]:
    """Return the hint for an error; None if there is none."""
    return error.hint if error.remedy is None else hint_for(error.remedy, error.about)


def hint_for(remedy: str, about: Optional[str] = None) -> str:
    """Return the text for a remedy and its subject."""
    return HINTS[remedy].replace("{about}", about or "")
