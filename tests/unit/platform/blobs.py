"""Encrypted blobs for tests, made by the ``openssl`` command: another implementation than ours and the fabric's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from waagent_fabric.crypto import Certificate

CIPHERS = ("aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc")


def openssl(*argv: str, data: bytes = b"") -> bytes:
    """Run ``openssl`` and return what it prints."""
    done = subprocess.run(["openssl", *argv], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def write_pair(directory: str, name: str, certificate: Certificate) -> tuple[str, str]:
    """Write certificate and key as PEM; return both paths."""
    paths = os.path.join(directory, name + ".crt"), os.path.join(directory, name + ".key")
    for path, data in zip(paths, (certificate.pem, certificate.key_pem)):
        with open(path, "wb") as stream:
            stream.write(data)
    return paths


def envelope(
    directory: str,
    data: bytes,
    recipients: Sequence[Certificate],
    *,
    cipher: str = "des-ede3-cbc",
    oaep: str = "",
    key_id: bool = False,
    streamed: bool = False,
) -> bytes:
    """Return a CMS message; *oaep* names a digest, *streamed* gives indefinite lengths and content in pieces."""
    argv = ["cms", "-encrypt", "-binary", "-outform", "DER", f"-{cipher}"]
    argv += ["-keyid"] if key_id else []
    argv += ["-stream"] if streamed else ["-nodetach"]
    for number, recipient in enumerate(recipients):
        path, _ = write_pair(directory, f"recipient{number}", recipient)
        argv += ["-recip", path]
        if oaep:
            argv += ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", f"rsa_oaep_md:{oaep}"]
    return openssl(*argv, data=data)


def pfx(directory: str, certificate: Certificate, *options: str, others: Sequence[Certificate] = ()) -> bytes:
    """Return a PKCS#12 file with an empty password, with the command's own encodings."""
    path, key = write_pair(directory, "pfx", certificate)
    argv = ["pkcs12", "-export", "-in", path, "-inkey", key, "-passout", "pass:", *options]
    if others:
        more = os.path.join(directory, "more.pem")
        with open(more, "wb") as stream:
            stream.write(b"".join(other.pem for other in others))
        argv += ["-certfile", more]
    return openssl(*argv)
