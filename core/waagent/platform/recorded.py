"""Recorded goal states: documents as the history keeps them, or as somebody captured them (wireserver §15.7)."""

from __future__ import annotations

import os

from waagent.errors import ProtocolError
from waagent.files import read_limited
from waagent.platform.models import ExtensionsGoalState
from waagent.redaction import MARK

LIMIT = 16 << 20


def load_goal_state(path: str) -> ExtensionsGoalState:
    """Return the extension part of the goal state in the file *path*.

    Args:
        path: an ExtensionsConfig document (XML) or a vmSettings document (JSON), redacted or not. In a directory of
            the history its incarnation or ETag is known from the directory's name.

    Raises:
        OSError: the file cannot be read.
        StateError: it is no regular file, or too large.
        ProtocolError: it is neither document; says what was expected.
    """
    data = read_limited(path, LIMIT)
    incarnation, etag = _tag(path)
    # What stands before the first mark: byte order marks (of both widths), blanks.
    head = data[:64].lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")
    if head.startswith(b"<"):
        from waagent.platform.extensionsconfig import parse_extensions_config

        # Where a URL's secret was cut out, the history's copy holds a mark that is no XML.
        return parse_extensions_config(data.replace(MARK.encode(), b"redacted"), incarnation)
    if head.startswith(b"{"):
        from waagent.platform.vmsettings import parse_vm_settings

        return parse_vm_settings(data, etag).extensions
    raise ProtocolError(f"{path}: an ExtensionsConfig (XML) or vmSettings (JSON) document was expected")


def _tag(path: str) -> tuple[str, str]:
    """Return incarnation and ETag as the name of a history directory tells them: ``<moment>__<incarnation>-<etag>``."""
    directory = os.path.basename(os.path.dirname(os.path.abspath(path)))
    _, mark, tag = directory.partition("__")
    incarnation, _, etag = tag.partition("-")
    return (incarnation if mark and incarnation else "recorded"), (etag if mark and etag else "recorded")
