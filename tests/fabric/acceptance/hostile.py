"""Documents and packages that mean harm, and a server that says what no server should."""

from __future__ import annotations

import contextlib
import io
import socket
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from waagent_fabric import build_zip, sample_package

HUGE = 100 << 20
ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">'
    '<!ENTITY d SYSTEM "file:///etc/passwd">]><a>&c;&d;</a>'
)
DEEP_XML = "<a>" * 200_000
DEEP_JSON = "[" * 200_000
UTF_16 = ENTITIES.encode("utf-16")
BAD_BYTES = b'<?xml version="1.0" encoding="utf-8"?><a>\xff\xfe\x80</a>'
WRONG_TYPES = (
    '{"hostGAPluginVersion": "1.0.8.175", "extensionsGoalStatesSource": "FastTrack", "extensionGoalStates": 5}'
)

DOCUMENTS: Mapping[str, bytes] = {
    "entities": ENTITIES.encode(),
    "deep-xml": DEEP_XML.encode(),
    "deep-json": DEEP_JSON.encode(),
    "utf-16": UTF_16,
    "bad-bytes": BAD_BYTES,
    "no-xml": b"Sorry, we are closed.",
    "json": b'{"versions": []}',
    "empty": b"",
}


def zip_with(name: str, content: bytes = b"out", mode: int = stat.S_IFREG | 0o755) -> bytes:
    """Return a sample package with one more entry."""
    buffer = io.BytesIO(build_zip(sample_package()))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return buffer.getvalue()


def zip_through_link(outside: Path) -> bytes:
    """Return a package with a link to *outside*, and a file that would go through it."""
    buffer = io.BytesIO(zip_with("bin/way", str(outside).encode(), stat.S_IFLNK | 0o777))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("bin/way/escaped-through-link", "out")
    return buffer.getvalue()


def zip_bomb(size: int, declared: int | None = None) -> bytes:
    """Return a small zip with an entry of *size* zeros (a multiple of 1 MiB), which says that it has *declared*."""
    piece = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers back: the same bytes say the same again, without packing ten gigabytes.
    stream = first * (size // piece) + packer.flush(zlib.Z_FINISH)
    says = size if declared is None else declared
    name = b"zeros.bin"
    large = says >= 0xFFFFFFFF
    extra = struct.pack("<HHQQ", 1, 16, says, len(stream)) if large else b""
    sizes = struct.pack("<III", 0, *((0xFFFFFFFF, 0xFFFFFFFF) if large else (len(stream), says)))
    version = struct.pack("<H", 45 if large else 20)
    common = struct.pack("<HHHH", 0, 8, 0, 33) + sizes + struct.pack("<HH", len(name), len(extra))
    local = b"PK\x03\x04" + version + common + name + extra + stream
    central = (
        b"PK\x01\x02" + version + version + common + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + name + extra
    )
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


ANSWERS: Mapping[str, bytes] = {
    "longer": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b"x" * 5000,
    "negative": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    "wordy": b"HTTP/1.1 200 OK\r\nContent-Length: lots\r\n\r\nabc",
}


@contextlib.contextmanager
def raw_server() -> Iterator[str]:
    """Answer ``GET /<name>…`` with :data:`ANSWERS`, byte for byte; yields ``http://host:port``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                name = connection.recv(65536).partition(b" /")[2].partition(b".")[0].decode("ascii", "replace")
                connection.sendall(ANSWERS.get(name, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
                connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
