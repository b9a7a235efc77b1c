"""The resident side of the certificate helper: starts it, asks, and forgets it (wireserver §11).

No key and no cryptography ever are in the process that imports this.
"""

from __future__ import annotations

import json
import os
import sys

from waagent import commands
from waagent.errors import CryptError
from waagent.platform.models import CertificateInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waagent.log import Log
    from waagent.paths import Paths

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "certhelper.py")
OPENSSL = "/usr/bin/openssl"
TIMEOUT = 60.0
"""Seconds for one helper; making a key takes up to a second on a slow machine."""
_ANSWER_LIMIT = 2 << 20


def transport_key(paths: Paths, vm_id: str | None = None, *, force: bool = False) -> bool:
    """Make the transport key pair where it is missing or no longer good; return whether one was made.

    Raises:
        CryptError: it cannot be made.
    """
    return bool(_ask(paths, {"op": "transport-key", "vm_id": vm_id, "force": force})["created"])


def open_certificates(
    paths: Paths, data: bytes, *, openssl: str = OPENSSL, log: Log | None = None
) -> tuple[CertificateInfo, ...]:
    """Open a certificates document: write ``<T>.crt`` and ``<T>.prv`` and return what there is.

    Args:
        paths: where the transport key lies and the files go.
        data: the document as it came, or the bare CMS message (DER).
        openssl: ``OS.OpensslPath``; used only where the library lacks an algorithm.
        log: gets what was odd about single keys.

    Raises:
        CryptError: it cannot be opened with the transport key, or is malformed.
    """
    import binascii

    text = binascii.b2a_base64(data, newline=False).decode("ascii")
    answer = _ask(paths, {"op": "open-certificates", "data": text, "openssl": openssl})
    if log is not None:
        for warning in answer["warnings"]:
            log.warning(f"Certificates: {warning}")
    return tuple(CertificateInfo(item["thumbprint"], item["hasPrivateKey"]) for item in answer["certificates"])


def decrypt_password(paths: Paths, encrypted: str, *, openssl: str = OPENSSL) -> str:
    """Return the password of a just-in-time user (wireserver §12); a secret.

    Raises:
        CryptError: it cannot be opened with the transport key, or is malformed.
    """
    return str(_ask(paths, {"op": "decrypt-password", "data": encrypted, "openssl": openssl})["password"])


def ssh_public_key(paths: Paths, thumbprint: str) -> str:
    """Return the public key of a certificate that lies in the state directory, as one line in OpenSSH form.

    Raises:
        CryptError: there is no such certificate, or its key is of a kind that SSH does not have.
    """
    return str(_ask(paths, {"op": "ssh-public-key", "thumbprint": thumbprint})["public_key"])


def _ask(paths: Paths, request: dict[str, Any]) -> dict[str, Any]:
    what = request["op"]
    request.update(lib_dir=paths.lib_dir, path=sys.path)
    done = commands.run(
        [sys.executable, "-I", "-S", SCRIPT],
        input=json.dumps(request),
        timeout=TIMEOUT,
        output_limit=_ANSWER_LIMIT,
    )
    try:
        answer = json.loads(done.stdout)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        # What it printed may hold a secret; what it said on standard error is the interpreter's.
        said = done.stderr.strip().rpartition("\n")[2][:300]
        how = "was out of time" if done.timed_out else f"ended with {done.returncode}"
        text = f"{what}: the certificate helper {how} without an answer{': ' + said if said else ''}"
        raise CryptError(text, passing=True)
    if "error" in answer:
        raise CryptError(f"{what}: {answer['error']}", passing=answer.get("passing") is True)
    return answer
