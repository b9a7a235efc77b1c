"""The ``openssl`` tool, for what the library does not have (``OS.OpensslPath``; wireserver §11.3 last bullet).

Only the certificate helper uses it. Messages and keys go through pipes; nothing decrypted touches the disk.
"""

from __future__ import annotations

import base64
import os
import re

from waagent import commands
from waagent.errors import CryptError
from waagent.platform import keys, pfx

_LIMIT = 16 << 20
_PEM = re.compile(r"-----BEGIN (CERTIFICATE|PRIVATE KEY)-----\s+([A-Za-z0-9+/=\s]+?)-----END \1-----")


def decrypt(openssl: str, message: bytes, lib_dir: str, reason: Exception) -> bytes:
    """Open a CMS message for the transport key.

    Args:
        openssl: the tool.
        message: DER.
        lib_dir: where the transport key lies.
        reason: why the library did not do.

    Raises:
        CryptError: the tool cannot do it either; says both reasons.
    """
    key, certificate = (os.path.join(lib_dir, name) for name in (keys.KEY_FILE, keys.CERTIFICATE_FILE))
    argv = [openssl, "cms", "-decrypt", "-inform", "DER", "-inkey", key, "-recip", certificate]
    done = _run(argv, message)
    if not done.ok:
        raise CryptError(f"{reason}; and openssl cannot open it: {done.describe()}")
    return done.stdout.encode("latin-1")


def read_pfx(openssl: str, data: bytes, reason: str) -> pfx.Bundle:
    """Read a PFX file with an empty password, with the tool's legacy algorithms where it sets them apart.

    Raises:
        CryptError: the tool cannot do it either; says both reasons.
    """
    argv = [openssl, "pkcs12", "-nodes", "-nomacver", "-passin", "pass:"]
    done = _run(argv, data)
    if not done.ok:
        done = _run([*argv, "-legacy"], data)
    if not done.ok:
        raise CryptError(f"{reason}; and openssl cannot read it: {done.describe()}")
    certificates: list[bytes] = []
    private: list[bytes] = []
    for kind, text in _PEM.findall(done.stdout):
        (certificates if kind == "CERTIFICATE" else private).append(base64.b64decode("".join(text.split())))
    if not certificates:
        raise CryptError(f"{reason}; and openssl finds no certificate in it")
    return pfx.pair(certificates, private)


def _run(argv: list[str], data: bytes) -> commands.Completed:
    return commands.run(argv, input=data, timeout=30, output_limit=_LIMIT, encoding="latin-1")
