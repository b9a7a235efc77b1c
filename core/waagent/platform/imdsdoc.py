"""Answers of the instance metadata service (wireserver §20)."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from waagent.errors import ProtocolError
from waagent.platform import jsondoc

COMPUTE_PATH = "instance/compute"
INSTANCE_PATH = "instance"
API_VERSION = "2018-02-01"

# What became of a health probe; the value says whether it counts against the service.
HEALTHY = "healthy"
BAD_DOCUMENT = "bad document"
INTERNAL_ERROR = "internal error"
CLIENT_ERROR = "client error"
CONNECTION_ERROR = "connection error"
IS_UNHEALTHY = {
    HEALTHY: False,
    BAD_DOCUMENT: True,
    INTERNAL_ERROR: True,
    CLIENT_ERROR: False,
    CONNECTION_ERROR: False,
}

IMAGE_UNKNOWN, IMAGE_CUSTOM, IMAGE_ENDORSED, IMAGE_PLATFORM = range(4)

_VERSION = re.compile(r"[0-9]{1,9}(?:[.-][0-9]{1,9}){0,7}")


def parse_compute(data: bytes) -> dict[str, Any]:
    """Return the answer to ``/metadata/instance/compute``, or the ``compute`` part of ``/metadata/instance``.

    Names stay as they came. SSH keys lose the line breaks that the portal lets people paste into them.

    Raises:
        ProtocolError: not JSON, or no object.
    """
    document = jsondoc.parse(data, "IMDS compute")
    if isinstance(document, dict) and isinstance(document.get("compute"), dict):
        document = document["compute"]
    if not isinstance(document, dict):
        raise ProtocolError(f"IMDS compute: expected an object, found {jsondoc.kind(document)}")
    keys = document.get("publicKeys")
    if isinstance(keys, list):
        document["publicKeys"] = [
            {**key, "keyData": clean_key(key["keyData"])} if _has_key(key) else key for key in keys
        ]
    return document


def _has_key(key: Any) -> bool:
    return isinstance(key, dict) and isinstance(key.get("keyData"), str)


def clean_key(text: str) -> str:
    """Return an SSH public key without the CR and LF that stand inside it."""
    return text.replace("\r", "").replace("\n", "").strip()


def boolean(value: Any, default: bool = False) -> bool:
    """Return one of the service's booleans, which are the texts ``true`` and ``false`` or real ones."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), default)
    return value if isinstance(value, bool) else default


def check_instance(data: bytes) -> None:
    """Make sure that the answer to a health probe holds what every machine has: a MAC address and a private address.

    Raises:
        ProtocolError: with the message that the probe reports: ``Missing field: [x]`` or ``Empty field: [x]``.
    """
    interface = _walk(jsondoc.parse(data, "IMDS instance"), ("network", "interface", 0))
    for path in (("macAddress",), ("ipv4", "ipAddress", 0, "privateIpAddress")):
        if not _walk(interface, path):
            raise ProtocolError(f"Empty field: [{path[-1]}]")


def _walk(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        if isinstance(key, int):
            if not isinstance(value, list) or not value:
                raise ProtocolError(f"Missing field: [{key}]")
            value = value[key]
        else:
            if not isinstance(value, dict) or key not in value:
                raise ProtocolError(f"Missing field: [{key}]")
            value = value[key]
    return value


def judge(status: int | None, *, exhausted: bool = False) -> str:
    """Return what an answer without a usable document means.

    Args:
        status: the last status code, ``None`` when no answer came.
        exhausted: whether retries ran out on it.
    """
    if status is None:
        return CONNECTION_ERROR
    if status == 429:
        return CLIENT_ERROR
    if status == 410 or status >= 500 or exhausted:
        return INTERNAL_ERROR
    return CLIENT_ERROR


def failure(path: str, text: str) -> str:
    """Return the message of a failed request to ``/metadata/<path>``."""
    return f"IMDS error in /metadata/{path}: {text}"


def image_origin(compute: dict[str, Any] | None, endorsed: dict[str, Any] | None = None) -> int:
    """Return where the machine's image came from: 0 unknown, 1 custom, 2 endorsed, 3 another platform image.

    Args:
        compute: as :func:`parse_compute` gave it, ``None`` when there was none.
        endorsed: publisher → offer → ``{"Minimum": version, "List": [sku, ...]}`` or a further level of SKUs;
            the list that is installed with the agent by default.
    """
    if compute is None:
        return IMAGE_UNKNOWN
    try:
        words = [compute.get(name) or "" for name in ("publisher", "offer", "sku", "version")]
        if not words[0]:
            return IMAGE_CUSTOM
        rules = endorsed_images() if endorsed is None else endorsed
        return IMAGE_ENDORSED if _is_endorsed(rules, [str(word).upper() for word in words]) else IMAGE_PLATFORM
    except (OSError, ValueError, AttributeError, TypeError):
        return IMAGE_UNKNOWN


def endorsed_images() -> dict[str, Any]:
    """Return the installed list of endorsed images; read each time, it is wanted once in a process's life.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON.
    """
    path = os.path.join(os.path.dirname(__file__), "endorsed_images.json")
    with open(path, encoding="utf-8") as stream:
        found: dict[str, Any] = json.load(stream)
    return found


def _is_endorsed(rules: dict[str, Any], words: list[str]) -> bool:
    for position, word in enumerate(words[:-1]):
        if word not in rules:
            return False
        rules = rules[word]
        following = words[position + 1]
        if following in (name.upper() for name in rules.get("List", ())):
            return True
        minimum, candidate = _numbers(rules.get("Minimum", "")), _numbers(following)
        if minimum and candidate:
            return candidate >= minimum
    return False


def _numbers(text: str) -> list[int]:
    """Return the numbers that a version or SKU begins with, without trailing zeros: ``7.0-LVM`` is ``[7]``."""
    match = _VERSION.match(text)
    numbers = [int(part) for part in re.split("[.-]", match.group(0))] if match else []
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return numbers
