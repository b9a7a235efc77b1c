"""Just-in-time accounts (wireserver §12, service §12)."""

from __future__ import annotations

import re

from waagent.errors import ProtocolError
from waagent.platform import ticks, xmldoc
from waagent.platform.models import RemoteAccess, RemoteUser

_DOCUMENT = "RemoteAccess"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EXPIRATION = re.compile(
    rf"(?:{'|'.join(_DAYS)}), ?(\d{{1,2}}) ([A-Za-z]{{3}}) (\d{{4}}) (\d\d):(\d\d):(\d\d) (?:UTC|GMT)\Z", re.IGNORECASE
)


def parse_remote_access(data: bytes, notes: list[str] | None = None) -> RemoteAccess:
    """Parse the document; passwords stay encrypted, expirations stay text (:func:`expiration_seconds`).

    Args:
        data: the document.
        notes: takes one line for each user left out because the name is missing.

    Raises:
        ProtocolError: no such document.
    """
    root = xmldoc.parse(data, _DOCUMENT, _DOCUMENT)
    users: list[RemoteUser] = []
    listed = root.find("Users")
    for user in listed.find_all("User") if listed else ():
        name = user.find_text("Name") or ""
        if not name:
            if notes is not None:
                notes.append(f"{_DOCUMENT}: User/Name: expected text, found nothing; user left out")
            continue
        groups = user.find("Groups")
        users.append(
            RemoteUser(
                name=name,
                encrypted_password="".join((user.find_text("Password") or "").split()),
                expiration=user.find_text("Expiration") or "",
                groups=tuple(item.text for item in groups.find_all("GroupName") if item.text) if groups else (),
            )
        )
    return RemoteAccess(incarnation=root.find_text("Incarnation") or "", users=tuple(users))


def expiration_seconds(text: str) -> int:
    """Return an expiration such as ``Fri, 01 Jan 2027 12:00:00 GMT`` as seconds since 1970.

    Raises:
        ProtocolError: it has another form, or there is no such moment.
    """
    match = _EXPIRATION.match(text.strip())
    if match:
        day, month, year, hour, minute, second = match.groups()
        if month.lower() in _MONTHS:
            moment = ticks.unix_seconds(
                int(year), _MONTHS.index(month.lower()) + 1, int(day), int(hour), int(minute), int(second)
            )
            if moment is not None:
                return moment
    raise ProtocolError(f"{_DOCUMENT}: User/Expiration: expected a date like 'Fri, 01 Jan 2027 12:00:00 GMT'")
