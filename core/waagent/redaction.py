"""Take secrets out of free text before anybody sees it (wireserver §22). Standard library alone."""

from __future__ import annotations

import re

MARK = "<redacted>"

# "&" and "?" also as XML, JSON and percent-encoding write them: a URL often travels inside another text.
_BREAK = r"(?:[?&;]|\\u0026|\\u003f|%26|%3b|%3f)"
_QUERY = re.compile(r"\?([^\s\"'<>]+)")
_SAS = re.compile(rf"(?:^|{_BREAK})(?:amp;)?(?:sv|st|se|sr|sp|sip|spr|sig)(?:=|%3d)", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"(?:(?<![a-z0-9])|(?<=%26)|(?<=%3f)|(?<=u0026)|(?<=u003f))(sig(?:=|%3d))[^\s\"'<>&]+", re.IGNORECASE
)
_USER = re.compile(r"(?<=://)[^\s\"'<>/?#@]+@")
_TAIL = ".,;:!)]}"


def redact(text: str) -> str:
    """Return *text* without what opens doors.

    The whole query of a URL or path that carries a SAS parameter, at any position, becomes ``<redacted>`` (punctuation
    after the URL stays); so do the value of a ``sig=`` that stands outside a query, and the ``user:password`` of a URL.
    """
    if "?" in text:
        text = _QUERY.sub(_without_query, text)
    if "=" in text or "%" in text:
        text = _SIGNATURE.sub(rf"\1{MARK}", text)
    if "@" in text:
        text = _USER.sub(f"{MARK}@", text)
    return text


def bare_url(url: str) -> str:
    """Return scheme, host, port and path of *url*: what may be logged of an address."""
    return _USER.sub("", url.split("?", 1)[0].split("#", 1)[0])


def _without_query(match: re.Match[str]) -> str:
    query = match.group(1)
    if not _SAS.search(query):
        return match.group(0)
    return "?" + MARK + query[len(query.rstrip(_TAIL)) :]
