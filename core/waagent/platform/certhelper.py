"""The short-lived process in which keys and certificates are handled; with it they leave memory (wireserver §11).

``python -I -S certhelper.py`` reads one JSON object from standard input and prints one on standard output. Nothing
secret is on its command line. The object says ``op``, ``lib_dir`` and ``path`` (the caller's ``sys.path``), and:

* ``transport-key``: ``vm_id``, ``force`` → ``created``
* ``open-certificates``: ``data`` (base64 of the document, or of the bare CMS message) or ``document_path``, and
  ``openssl`` → ``certificates`` (``thumbprint``, ``hasPrivateKey``) and ``warnings``; writes ``<T>.crt`` and
  ``<T>.prv`` into ``lib_dir``
* ``decrypt-password``: ``data`` (as in the remote-access document), ``openssl`` → ``password``
* ``ssh-public-key``: ``thumbprint`` → ``public_key``

A failure is ``{"error": …}`` with exit code 1, and ``passing`` when another try may do.

The resident side is :mod:`waagent.platform.certificates`.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DOCUMENT_LIMIT = 16 << 20


def transport_key(lib_dir: str, vm_id: str | None = None, force: bool = False) -> bool:
    """Make the transport key pair where it is missing or no longer good; return whether one was made.

    Raises:
        CryptError: the library cannot make one.
        OSError: the files cannot be written.
    """
    from waagent.platform.keys import ensure_transport_key

    return ensure_transport_key(lib_dir, vm_id, force=force)


def open_certificates(lib_dir: str, data: bytes, openssl: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Open the certificates document and write what it holds.

    Args:
        lib_dir: holds the transport key, and gets the files.
        data: the CertificateFile document, or the CMS message itself (DER).
        openssl: the tool to fall back on where the library lacks an algorithm; ``None``: do without.

    Returns:
        The certificates and the warnings.

    Raises:
        CryptError: it cannot be opened.
        ProtocolError: it is no such document.
        OSError: the files cannot be written.
    """
    message = _message_of(data)
    if not message:
        return [], []
    bundle = _read_bundle(_decrypt(lib_dir, message, openssl), openssl)
    certificates = []
    for identity in bundle.identities:
        base = os.path.join(lib_dir, identity.thumbprint)
        # The key first: whoever sees the certificate finds the key as well.
        if identity.key is not None:
            write_if_other(base + ".prv", identity.key)
        write_if_other(base + ".crt", _pem("CERTIFICATE", identity.certificate))
        certificates.append({"thumbprint": identity.thumbprint, "hasPrivateKey": identity.key is not None})
    return certificates, list(bundle.warnings)


def decrypt_password(lib_dir: str, data: str, openssl: str | None = None) -> str:
    """Return a just-in-time user's password (wireserver §12).

    Raises:
        CryptError: it cannot be opened.
    """
    from waagent.platform import cms

    return cms.password_text(_decrypt(lib_dir, cms.decode_base64(data), openssl))


def ssh_public_key(lib_dir: str, thumbprint: str) -> str:
    """Return the public key of the certificate ``<T>.crt`` in OpenSSH form (provisioning §8.4).

    Raises:
        CryptError: there is no such certificate, or its key is of a kind that SSH does not have.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from waagent.errors import CryptError, StateError
    from waagent.files import read_limited
    from waagent.platform.names import as_file_name

    name = as_file_name(thumbprint) + ".crt"
    try:
        data = read_limited(os.path.join(lib_dir, name), 1 << 20)
    except (OSError, StateError):
        raise CryptError(f"Can't find {name}") from None
    try:
        key = x509.load_pem_x509_certificate(data).public_key()
        line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except Exception as problem:
        raise CryptError(f"{name} holds no key for SSH: {type(problem).__name__}") from problem
    return line.decode("ascii")


def write_if_other(path: str, data: bytes) -> bool:
    """Write a secret file, 0600, in one step; one with this content is left alone. Return whether it was written."""
    from waagent.errors import StateError
    from waagent.files import read_limited, write_atomic

    try:
        if read_limited(path, len(data)) == data and not os.path.islink(path):
            if os.stat(path).st_mode & 0o077:
                os.chmod(path, 0o600)
            return False
    except (OSError, StateError):
        pass
    write_atomic(path, data)
    return True


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request and return the answer."""
    lib_dir = str(request["lib_dir"])
    operation = request["op"]
    openssl = request.get("openssl") or None
    if operation == "transport-key":
        return {"created": transport_key(lib_dir, request.get("vm_id") or None, bool(request.get("force")))}
    if operation == "open-certificates":
        import base64

        from waagent.files import read_limited

        if "document_path" in request:
            data = read_limited(str(request["document_path"]), _DOCUMENT_LIMIT)
        else:
            data = base64.b64decode(request["data"])
        certificates, warnings = open_certificates(lib_dir, data, openssl)
        return {"certificates": certificates, "warnings": warnings}
    if operation == "decrypt-password":
        return {"password": decrypt_password(lib_dir, str(request["data"]), openssl)}
    if operation == "ssh-public-key":
        return {"public_key": ssh_public_key(lib_dir, str(request["thumbprint"]))}
    raise ValueError(f"no such operation: {operation}")


def main() -> int:
    """Serve the request on standard input; return the exit code."""
    try:
        request = json.loads(sys.stdin.buffer.read())
        if isinstance(request.get("path"), list):
            sys.path[:] = [str(entry) for entry in request["path"]]
    except (ValueError, AttributeError):
        print(json.dumps({"error": "the request is not a JSON object"}))
        return 1
    os.umask(0o077)
    try:
        answer = serve(request)
    except Exception as problem:
        from waagent.errors import AgentError

        # Only our own messages are known to hold nothing secret.
        known = isinstance(problem, (AgentError, OSError))
        answer = {"error": str(problem) if known else f"unexpected {type(problem).__name__}"}
        if isinstance(problem, (OSError, MemoryError)):
            answer["passing"] = True
    print(json.dumps(answer))
    return 1 if "error" in answer else 0


def _message_of(data: bytes) -> bytes:
    from waagent.platform import cms

    if data[:1] == b"\x30":
        return data
    from waagent.platform.certdoc import parse_certificate_file

    return cms.decode_base64(parse_certificate_file(data).data)


def _decrypt(lib_dir: str, message: bytes, openssl: str | None) -> bytes:
    from waagent.platform import cms, keys

    key, certificate = keys.load_pair(lib_dir)
    try:
        return cms.decrypt(message, key, certificate)
    except cms.UnknownAlgorithm as problem:
        from waagent.platform import opensslfallback

        if openssl is None:
            raise
        return opensslfallback.decrypt(openssl, message, lib_dir, problem)


def _read_bundle(data: bytes, openssl: str | None) -> Any:
    from waagent.platform import cms, pfx

    bundle = None
    try:
        bundle = pfx.read(data)
        unknown: tuple[str, ...] = bundle.unknown
    except cms.UnknownAlgorithm as problem:
        if openssl is None:
            raise
        unknown = (str(problem),)
    if not unknown:
        return bundle
    from waagent.errors import CryptError

    try:
        if openssl is None:
            raise CryptError(unknown[0])
        from waagent.platform import opensslfallback

        return opensslfallback.read_pfx(openssl, data, unknown[0])
    except CryptError as problem:
        if bundle is None:
            raise
        import attrs

        return attrs.evolve(bundle, warnings=(*bundle.warnings, str(problem)))


def _pem(kind: str, data: bytes) -> bytes:
    import base64

    text = base64.b64encode(data)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    mark = kind.encode()
    return b"\n".join([b"-----BEGIN " + mark + b"-----", *lines, b"-----END " + mark + b"-----", b""])


if __name__ == "__main__":
    sys.exit(main())
