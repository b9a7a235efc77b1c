"""The artifacts profile: only its on-hold flag is used (wireserver §9, extensions §11.4)."""

from __future__ import annotations

from waagent.errors import ProtocolError
from waagent.platform import jsondoc

_DOCUMENT = "InVMArtifactsProfile"


def parse_on_hold(data: bytes) -> bool:
    """Return whether extensions are on hold.

    The caller takes any failure for "not on hold", with a warning. A profile without the flag is not on hold.

    Raises:
        ProtocolError: empty, not JSON, not an object, or a flag that is neither true nor false.
    """
    profile = jsondoc.fields(jsondoc.parse(data.strip(b" \t\r\n\0"), _DOCUMENT), _DOCUMENT)
    return flag(profile["onhold"], f"{_DOCUMENT}: onHold") if "onhold" in profile else False


def flag(value: object, where: str) -> bool:
    """Return a boolean that came as such or as text in any case.

    Raises:
        ProtocolError: anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ProtocolError(f"{where}: expected true or false, found {jsondoc.kind(value)}")
