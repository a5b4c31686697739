"""What a location of PostgreSQL says: a URL of libpq (PostgreSQL's manual, section 32.1.1.2, "Connection URIs")."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ws_manager.errors import InvalidInput

if TYPE_CHECKING:
    from ws_manager.repository.store import Location

_USER = re.compile(r"^(?P<scheme>[^:]+://)(?P<user>[^:@/?]*)(?P<password>:[^/?]*)?@")
_SECRET = re.compile(r"(?P<name>[?&](?:ssl)?password=)[^&]*", re.IGNORECASE)


def url_of(location: Location) -> str:
    """Return a location as libpq takes it.

    Raises:
        InvalidInput: a `Path` was made of the URL: that has lost a slash, and perhaps more.
    """
    if isinstance(location, Path):
        raise InvalidInput("a URL of PostgreSQL was given as a Path", hint="give it as text")
    return location


def shown(url: str) -> str:
    """Return a URL as people may see it: without its password."""
    return _SECRET.sub(r"\g<name>…", _USER.sub(r"\g<scheme>\g<user>@", url))
