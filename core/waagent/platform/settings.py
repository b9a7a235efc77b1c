"""What both encodings of the extension goal state share: numbers, levels, and which names are unusable."""

from __future__ import annotations

import re
from typing import Any

from waagent.errors import ExtensionsConfigError
from waagent.platform import jsondoc
from waagent.platform.names import is_file_name

REQUESTED_STATES = ("enabled", "disabled", "uninstall")
BLOB_TYPES = ("BlockBlob", "PageBlob")

_NUMBER = re.compile(r"[0-9]{1,18}\Z")


class InvalidHandler(ExtensionsConfigError):
    """One handler of the document is inconsistent; the text is the reason that its status reports."""


def number(value: Any) -> int | None:
    """Return a number from 0 up that came as such or as text, ``None`` for anything else."""
    if isinstance(value, str) and _NUMBER.match(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None


def dependency_level(value: Any, handler: str, notes: list[str]) -> int:
    """Return an ordering level; whatever is no number from 0 up counts as 0, with a note (wireserver §8.4)."""
    level = number(value)
    if level is None:
        notes.append(f"Could not parse dependencyLevel for handler {handler}. Setting it to 0")
        return 0
    return level


def blob_type(value: Any, notes: list[str]) -> str:
    """Return the status blob's type; a missing or unknown one counts as ``BlockBlob`` (wireserver §8.1, §10)."""
    if isinstance(value, str) and value in BLOB_TYPES:
        return value
    notes.append("Status blob type is missing or unknown, assuming BlockBlob")
    return "BlockBlob"


def check_names(handler: str, version: str, extensions: tuple[str, ...] = ()) -> None:
    """Make sure that names can be part of directory and file names.

    Raises:
        InvalidHandler: one cannot.
    """
    if not is_file_name(handler):
        raise InvalidHandler("The name of the handler cannot be part of a file name")
    if not is_file_name(version):
        raise InvalidHandler(f"The version of handler {handler} cannot be part of a file name")
    for name in extensions:
        if not is_file_name(name):
            raise InvalidHandler(f"The name of an extension of handler {handler} cannot be part of a file name")


def secret(protected: Any, thumbprint: Any, extension: str) -> tuple[str | None, str | None]:
    """Return protected settings and the upper-case thumbprint of one settings object; ``None`` stays ``None``.

    Raises:
        InvalidHandler: one is no text.
    """
    for name, value in (("protectedSettings", protected), ("protectedSettingsCertThumbprint", thumbprint)):
        if value is not None and not isinstance(value, str):
            kind = jsondoc.kind(value)
            raise InvalidHandler(f"{name} of the Extension: {extension}: expected text or null, found {kind}")
    return protected, thumbprint.strip().upper() if thumbprint else thumbprint
