"""Authorities, signed packages and timestamps, made with the openssl command; only a timestamp's content by hand."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import time
from pathlib import Path

DAY = 86400
_CONFIG = """
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index.txt
serial = serial
default_md = sha256
policy = anything
unique_subject = no
email_in_dn = no
rand_serial = yes
[anything]
commonName = supplied
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[code]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
[stamp]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


def openssl(*arguments: str, cwd: Path, data: bytes | None = None) -> bytes:
    """Run openssl and return what it printed."""
    done = subprocess.run(["openssl", *arguments], cwd=cwd, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))


class Authority:
    """A root, and what it signs.

    Attributes:
        root: PEM file of the root.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "openssl.cnf").write_text(_CONFIG)
        (directory / "index.txt").touch()
        self.root = directory / "root.pem"
        self._key("root")
        self._request("root", name)
        self._sign("root", "root", time.time() - 3650 * DAY, time.time() + 3650 * DAY, "-selfsign")

    def _key(self, name: str) -> None:
        openssl(
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key",
            cwd=self.directory,
        )  # fmt: skip

    def _request(self, name: str, common_name: str) -> None:
        openssl(
            "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={common_name}", "-out", f"{name}.csr",
            "-config", "/dev/null", cwd=self.directory,
        )  # fmt: skip

    def _sign(self, name: str, extensions: str, since: float, until: float, *more: str) -> None:
        signer = more or ("-cert", "root.pem")
        openssl(
            "ca", "-batch", "-config", "openssl.cnf", "-keyfile", "root.key", *signer, "-in", f"{name}.csr", "-out",
            f"{name}.pem", "-notext", "-extensions", extensions, "-startdate", _stamp(since), "-enddate", _stamp(until),
            cwd=self.directory,
        )  # fmt: skip

    def leaf(self, name: str, kind: str, since: float, until: float) -> Path:
        """Make a certificate for ``code`` or ``stamp``; return its PEM file, the key lies beside it."""
        self._key(name)
        self._request(name, name)
        self._sign(name, kind, since, until)
        return self.directory / f"{name}.pem"


def sign(package: Path, leaf: Path) -> bytes:
    """Return the detached CMS signature of *package*, in DER."""
    return openssl(
        "cms", "-sign", "-binary", "-outform", "DER", "-md", "sha384", "-signer", str(leaf), "-inkey",
        str(leaf.with_suffix(".key")), "-in", str(package), cwd=leaf.parent,
    )  # fmt: skip


def with_timestamp(
    signature: bytes, leaf: Path, seconds: int, about: bytes | None = None, name: str = "sha256"
) -> bytes:
    """Return *signature* with the timestamp that *leaf* makes for *seconds* since 1970, about it or something else."""
    outer = _parts(_body(signature))
    signed_data = _parts(_body(_body(outer[1])))
    signer = _parts(_body(_body(signed_data[-1])))
    value = next(_body(part) for part in signer if part[0] == 0x04)
    oid = {"sha256": "608648016503040201", "sha512": "608648016503040203", "sha1": "2b0e03021a"}[name]
    algorithm = _tlv(0x30, _tlv(0x06, bytes.fromhex(oid)))
    digest = hashlib.new(name, value if about is None else about).digest()
    content = _tlv(
        0x30,
        _tlv(0x02, b"\x01")
        + _tlv(0x06, bytes.fromhex("2a0304"))
        + _tlv(0x30, algorithm + _tlv(0x04, digest))
        + _tlv(0x02, b"\x05")
        + _tlv(0x18, _stamp(seconds).encode()),
    )
    token = openssl(
        "cms", "-sign", "-binary", "-nodetach", "-econtent_type", "1.2.840.113549.1.9.16.1.4", "-outform", "DER",
        "-signer", str(leaf), "-inkey", str(leaf.with_suffix(".key")), cwd=leaf.parent, data=content,
    )  # fmt: skip
    attribute = _tlv(0x30, _tlv(0x06, bytes.fromhex("2a864886f70d010910020e")) + _tlv(0x31, token))
    before = _body(signer.pop()) if signer[-1][0] == 0xA1 else b""
    signer.append(_tlv(0xA1, before + attribute))
    signed_data[-1] = _tlv(0x31, _tlv(0x30, b"".join(signer)))
    return _tlv(0x30, outer[0] + _tlv(0xA0, _tlv(0x30, b"".join(signed_data))))


def as_text(signature: bytes) -> str:
    """Return *signature* as the goal state carries it."""
    return base64.b64encode(signature).decode()


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _split(data: bytes) -> tuple[int, int]:
    """Return where the first element's body begins and ends."""
    if data[1] < 0x80:
        return 2, 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count, 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def _body(element: bytes) -> bytes:
    begin, end = _split(element)
    return element[begin:end]


def _parts(body: bytes) -> list[bytes]:
    found = []
    while body:
        end = _split(body)[1]
        found.append(body[:end])
        body = body[end:]
    return found
