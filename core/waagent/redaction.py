"""Take secrets out of free text before anybody sees it (wireserver §22)."""

from __future__ import annotations

import re

MARK = "<redacted>"

_URL = re.compile(r"(https?://[^\s\"'<>]+?\?)([^\s\"'<>]+)", re.IGNORECASE)
_SAS = re.compile(r"(?:^|&|;)(?:sv|st|se|sr|sp|sip|spr|sig)(?:=|%3d)", re.IGNORECASE)
_TAIL = ".,;:!)]}"


def redact(text: str) -> str:
    """Return *text* with the query of every URL that carries a SAS parameter replaced by ``<redacted>``.

    Any position of the parameter counts, and ``http`` counts like ``https``; punctuation after the URL stays.
    """
    if "?" not in text:
        return text

    def cut(match: re.Match[str]) -> str:
        query = match.group(2)
        if not _SAS.search(query.replace("&amp;", "&")):
            return match.group(0)
        kept = query[len(query.rstrip(_TAIL)) :]
        return match.group(1) + MARK + kept

    return _URL.sub(cut, text)


def bare_url(url: str) -> str:
    """Return scheme, host, port and path of *url*: what may be logged of an address."""
    return url.split("?", 1)[0].split("#", 1)[0]
