"""Goal-state text as it may be saved and logged: without blob queries and protected settings (wireserver §22, DIFF-13).

Text that cannot be redacted for certain is not returned; a line that says so is. ExtensionsConfig keeps its form,
because people read it beside the platform's own logs; vmSettings is written anew from its parsed value, which leaves
no doubt.
"""

from __future__ import annotations

import json
import re
from typing import Any

from waagent.errors import ProtocolError
from waagent.platform import jsondoc, xmldoc
from waagent.redaction import redact

MARK = "***REDACTED***"

_EXTENSIONS_CONFIG = "ExtensionsConfig.xml"
_VM_SETTINGS = "VmSettings.json"

_BLOB_TAGS = ("StatusUploadBlob", "InVMArtifactsProfileBlob", "HealthStatusBlobUri")
_BLOB = re.compile(rf"<(?:[\w.-]+:)?(?:{'|'.join(_BLOB_TAGS)})(?=[\s>])[^>]*>")
_QUOTE = r"(?:\"|&quot;|&#34;|&#x22;|'|&apos;|&#39;)"
_KEY = re.compile(rf"{_QUOTE}protectedSettings{_QUOTE}\s*:\s*", re.IGNORECASE)
_OPEN = re.compile(_QUOTE, re.IGNORECASE)
_ANY_KEY = re.compile(r"protectedSettings(?!CertThumbprint)", re.IGNORECASE)
_HARMLESS = re.compile(rf"{_QUOTE}\s*:\s*(?:null|{_QUOTE}{re.escape(MARK)}{_QUOTE}?)", re.IGNORECASE)
_SIGNATURE = re.compile(r"(?:^|&)sig=([^&]*)", re.IGNORECASE)
_PIECE = 24
_SHORTEST = 8


def redact_extensions_config(data: bytes | str) -> str:
    """Return an ExtensionsConfig document without its secrets, or one line that says why that is not possible."""
    try:
        return _redact_extensions_config(data.encode("utf-8", "replace") if isinstance(data, str) else data)
    except ProtocolError as problem:
        return _refusal(_EXTENSIONS_CONFIG, problem)


def redact_vm_settings(data: bytes | str) -> str:
    """Return a vmSettings document without its secrets, indented, or one line that says why that is not possible."""
    try:
        document = jsondoc.parse(data, "vmSettings")
    except ProtocolError as problem:
        return _refusal(_VM_SETTINGS, problem)
    return json.dumps(_without_secrets(document, ""), indent=2) + "\n"


def _refusal(name: str, problem: ProtocolError) -> str:
    return f"Could not redact {name}, so it is not shown: {problem}\n"


def _without_secrets(value: Any, parent: str) -> Any:
    if isinstance(value, dict):
        found = {}
        for name, member in value.items():
            folded = name.casefold()
            if folded == "protectedsettings" and member is not None:
                found[name] = MARK
            elif folded == "value" and parent == "statusuploadblob" and isinstance(member, str):
                found[name] = _cut(member)
            else:
                found[name] = _without_secrets(member, folded)
        return found
    if isinstance(value, list):
        return [_without_secrets(member, parent) for member in value]
    return _text_without_secrets(value) if isinstance(value, str) else value


def _text_without_secrets(text: str) -> str:
    """Return a text of the document; one that holds settings itself, broken ones at that, loses their secrets too."""
    text = redact(text)
    if not _ANY_KEY.search(text):
        return text
    text = _cut_protected(text)
    return text if all(_HARMLESS.match(text, key.end()) for key in _ANY_KEY.finditer(text)) else MARK


def _cut(url: str) -> str:
    head, mark, query = url.partition("?")
    return f"{head}?{MARK}" if mark and query else url


def _redact_extensions_config(data: bytes) -> str:
    root = xmldoc.parse(data, "ExtensionsConfig")
    text = redact(_cut_protected(_cut_blobs(xmldoc.decode(data, "ExtensionsConfig"))))
    for match in _ANY_KEY.finditer(text):
        if not _HARMLESS.match(text, match.end()):
            raise ProtocolError("protectedSettings: expected text or null as its value, found something else")
    if any(piece in text for secret in _secrets(root) for piece in _pieces(secret)):
        raise ProtocolError("a secret is written in an unexpected way")
    return text


def _cut_blobs(text: str) -> str:
    """Replace the query in each blob element's text; one pass, so that no document makes it slow."""
    kept: list[str] = []
    position = 0
    while True:
        match = _BLOB.search(text, position)
        end = text.find("</", match.end()) if match else -1
        if match is None or end < 0:
            return "".join(kept) + text[position:]
        content = text[match.end() : end]
        mark = content.find("?")
        if mark >= 0 and content[mark + 1 :].strip():
            tail = "]]>" if content.rstrip().endswith("]]>") else ""
            content = content[: mark + 1] + MARK + tail
        kept += [text[position : match.end()], content]
        position = end


def _cut_protected(text: str) -> str:
    kept: list[str] = []
    position = 0
    while True:
        key = _KEY.search(text, position)
        if key is None:
            return "".join(kept) + text[position:]
        kept.append(text[position : key.end()])
        position = key.end()
        opening = _OPEN.match(text, position)
        if opening:
            quote = opening.group(0)
            position = _closing(text, opening.end(), quote)
            kept.append(quote + MARK + quote)


def _closing(text: str, position: int, quote: str) -> int:
    """Return where a JSON string ends: after its closing quote, or where its element does."""
    for match in re.compile(rf"\\.|<|({re.escape(quote)})", re.DOTALL).finditer(text, position):
        if match.group(1):
            return match.end()
        if match.group(0) == "<":
            return match.start()
    return len(text)


def _pieces(secret: str) -> set[str]:
    """Return pieces of a secret that tell whether it is still there: its beginning, middle and end."""
    if len(secret) < _SHORTEST:
        return set()
    middle = len(secret) // 2
    return {secret[:_PIECE], secret[-_PIECE:], secret[middle : middle + _PIECE]}


def _secrets(root: xmldoc.Element) -> list[str]:
    """Return the protected settings and the signatures in blob queries of a document."""
    found = []
    for element in root:
        if element.tag in _BLOB_TAGS:
            found.extend(_SIGNATURE.findall(element.text.partition("?")[2]))
        elif element.tag in ("RuntimeSettings", "ExtensionRuntimeSettings"):
            try:
                waiting = [jsondoc.parse(element.text, "settings")]
            except ProtocolError:
                continue  # what is no JSON was checked key by key
            while waiting:
                value = waiting.pop()
                if isinstance(value, list):
                    waiting.extend(value)
                elif isinstance(value, dict):
                    for name, member in value.items():
                        if name.casefold() == "protectedsettings" and isinstance(member, str):
                            found.append(member)
                        else:
                            waiting.append(member)
    return found
