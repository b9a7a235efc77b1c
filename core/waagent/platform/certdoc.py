"""The certificates document, still encrypted (wireserver §11.2)."""

from __future__ import annotations

import attrs

from waagent.platform import xmldoc

PFX_FORMAT = "Pkcs7BlobWithPfxContents"

_DOCUMENT = "CertificateFile"


@attrs.frozen(eq=False)
class CertificateFile:
    """One answer to the certificates URI.

    Attributes:
        incarnation: as written, ``""`` when absent.
        format: as written, ``""`` when absent.
        data: base64 of the CMS message without white space; ``""`` when there is nothing to open.
        note: why there is nothing to open, one line for the log; ``""`` otherwise.
        is_warning: whether the note is a warning (an unknown format) or normal (no data).
    """

    incarnation: str
    format: str
    data: str = attrs.field(repr=False)
    note: str = ""
    is_warning: bool = False


def parse_certificate_file(data: bytes) -> CertificateFile:
    """Parse the document. Data of an unknown format is left out, with a warning in the note.

    Raises:
        ProtocolError: no such document.
    """
    root = xmldoc.parse(data, _DOCUMENT, _DOCUMENT)
    incarnation = root.find_text("Incarnation") or ""
    declared = root.find_text("Format") or ""
    content = "".join((root.find_text("Data") or "").split())
    if not content:
        return CertificateFile(incarnation, declared, "", "The certificates document holds no data")
    if declared not in ("", PFX_FORMAT):
        note = f"The certificates are in format {xmldoc.shown(declared)}; expected {PFX_FORMAT}. Will ignore them"
        return CertificateFile(incarnation, declared, "", note, is_warning=True)
    return CertificateFile(incarnation, declared, content)
