"""Take secrets out of free text before anybody sees it (wireserver §22). Standard library alone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from re import Match

MARK = "<redacted>"

# The patterns are used through re's own cache, and re is imported by the first text that may hold a secret: the
# supervisor, whose lines hold none, does without its 0.6 MB.
# "&" and "?" also as XML, JSON and percent-encoding write them: a URL often travels inside another text.
_BREAK = r"(?:[?&;]|\\u0026|\\u003f|%26|%3b|%3f)"
_QUERY = r"\?([^\s\"'<>]+)"
_SAS = rf"(?i)(?:^|{_BREAK})(?:amp;)?(?:sv|st|se|sr|sp|sip|spr|sig)(?:=|%3d)"
_SIGNATURE = r"(?i)(?:(?<![a-z0-9])|(?<=%26)|(?<=%3f)|(?<=u0026)|(?<=u003f))(sig(?:=|%3d))[^\s\"'<>&]+"
_USER = r"(?<=://)[^\s\"'<>/?#@]+@"
_TAIL = ".,;:!)]}"


_SHORTEST = 3
_concealed: tuple[str, ...] = ()


def conceal(secret: str) -> None:
    """Have :func:`redact` take *secret* out of every text from now on, for as long as this process lives.

    Also as it looks in one line, and in a message that quotes it. A secret of one or two characters is no secret.
    """
    global _concealed
    forms = {secret, secret.strip(), " ".join(secret.split()), repr(secret)[1:-1], *_concealed}
    _concealed = tuple(sorted((form for form in forms if len(form) >= _SHORTEST and form not in MARK), key=len)[::-1])


def redact(text: str) -> str:
    """Return *text* without what opens doors.

    The whole query of a URL or path that carries a SAS parameter, at any position, becomes ``<redacted>`` (punctuation
    after the URL stays); so do the value of a ``sig=`` that stands outside a query, the ``user:password`` of a URL, and
    every secret that was given to :func:`conceal`.
    """
    for secret in _concealed:
        text = text.replace(secret, MARK)
    if "?" in text:
        text = _replace(_QUERY, _without_query, text)
    lowered = text.lower()
    if "g=" in lowered or "g%3d" in lowered:  # letters like the long s count as an s in the pattern, not in lower()
        text = _replace(_SIGNATURE, rf"\1{MARK}", text)
    if "@" in text and "://" in text:
        text = _replace(_USER, f"{MARK}@", text)
    return text


def bare_url(url: str) -> str:
    """Return scheme, host, port and path of *url*: what may be logged of an address."""
    bare = url.split("?", 1)[0].split("#", 1)[0]
    return _replace(_USER, "", bare) if "@" in bare else bare


def _replace(pattern: str, by: str | Callable[[Match[str]], str], text: str) -> str:
    import re

    return re.sub(pattern, by, text)


def _without_query(match: Match[str]) -> str:
    import re

    query: str = match.group(1)
    if not re.search(_SAS, query):
        return match.group(0)
    return "?" + MARK + query[len(query.rstrip(_TAIL)) :]
