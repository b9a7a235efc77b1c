"""The blob store: block and page blobs behind shared access signatures, with the service's own refusals."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from urllib.parse import parse_qs, quote, unquote, urlsplit

import attrs

PAGE = 512
MAX_PAGE_WRITE = 4 * 1024 * 1024
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")

Complain = Callable[[str, str], None]


@attrs.define
class Blob:
    """One blob.

    Attributes:
        missing: for a page blob, the byte ranges that no page write has filled since it was created.
    """

    data: bytearray
    blob_type: str = "BlockBlob"
    content_type: str = "application/octet-stream"
    version: int = 1
    modified: str = attrs.field(factory=lambda: formatdate(usegmt=True))
    missing: set[int] = attrs.field(factory=set)

    @property
    def etag(self) -> str:
        """The entity tag, quoted."""
        return f'"0x8D{self.version:012X}"'


@attrs.frozen
class Reply:
    """What the service answers: status, headers and body; ``code`` is the service's error word."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    code: str = ""


def refuse(status: int, code: str, message: str) -> Reply:
    """Return an error answer in the service's form."""
    body = f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, {"x-ms-error-code": code, "Content-Type": "application/xml"}, body.encode(), code)


class BlobStore:
    """Blobs by path. Not locked: the owner does that.

    A path is readable or writable only with the signature that :meth:`grant` gave out for it.
    """

    def __init__(self, secret: str = "fabric") -> None:
        self.base = ""
        self._secret = secret
        self._blobs: dict[str, Blob] = {}
        self._grants: dict[str, tuple[str, str]] = {}
        self._issued: dict[str, str] = {}

    # -- for the platform itself

    def grant(self, path: str, permissions: str = "r") -> str:
        """Return a URL with a shared access signature for the decoded *path* (``/container/name``)."""
        digest = hashlib.sha256(f"{self._secret} {path} {permissions}".encode()).digest()
        signature = base64.b64encode(b"\xfb\xef" + digest).decode()  # always holds a "+" to escape
        self._grants[path] = (signature, permissions)
        escaped = re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), quote(signature, safe=""))
        query = f"sv=2018-03-28&sr=b&sk=system-1&sig={escaped}&se=9999-01-01T00%3a00%3a00Z&sp={permissions}"
        url = f"{self.base}{quote(path, safe='/$')}?{query}"
        self._issued[url] = path
        return url

    def put(
        self, path: str, data: bytes, content_type: str = "application/octet-stream", permissions: str = "r"
    ) -> str:
        """Store *data* at the decoded *path* and return a URL that reads it."""
        old = self._blobs.get(path)
        self._blobs[path] = Blob(
            bytearray(data), content_type=content_type, version=old.version + 1 if old is not None else 1
        )
        return self.grant(path, permissions)

    def get(self, path: str) -> bytes | None:
        """Return what lies at the decoded *path*."""
        blob = self._blobs.get(path)
        return None if blob is None else bytes(blob.data)

    def blob(self, path: str) -> Blob | None:
        """Return the blob at the decoded *path*."""
        return self._blobs.get(path)

    def delete(self, path: str) -> None:
        """Forget the blob at the decoded *path*; URLs for it answer 404."""
        self._blobs.pop(path, None)

    def issued(self, url: str) -> bool:
        """Whether *url* is, byte for byte, one that this store gave out (with ``comp=page`` added or not)."""
        for ending in ("&comp=page", "?comp=page"):
            url = url.removesuffix(ending)
        return url in self._issued

    def owns(self, url: str) -> bool:
        """Whether *url* points at this store at all."""
        return url.startswith(self.base + "/")

    # -- for clients

    def _refusal(self, target: str, permission: str) -> tuple[str, Reply | None]:
        parts = urlsplit(target)
        path = unquote(parts.path)
        grant = self._grants.get(path)
        if grant is None:
            return path, refuse(404, "ResourceNotFound", "The specified resource does not exist.")
        given = parse_qs(parts.query).get("sig", [""])[0]
        if given != grant[0]:
            return path, refuse(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        if permission not in grant[1]:
            return path, refuse(403, "AuthorizationPermissionMismatch", "The signature does not grant this.")
        return path, None

    def read(self, target: str, headers: Mapping[str, str]) -> Reply:
        """Answer a GET of *target* (path and query, or a whole URL); honours ``Range: bytes=a-b``."""
        path, refusal = self._refusal(target, "r")
        if refusal is not None:
            return refusal
        blob = self._blobs.get(path)
        if blob is None:
            return refuse(404, "BlobNotFound", "The specified blob does not exist.")
        answer = {
            "Content-Type": blob.content_type,
            "ETag": blob.etag,
            "Last-Modified": blob.modified,
            "x-ms-blob-type": blob.blob_type,
            "x-ms-version": "2014-02-14",
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if wanted is None:
            return Reply(200, answer, bytes(blob.data))
        start, end = int(wanted.group(1)), int(wanted.group(2) or len(blob.data) - 1)
        if start >= len(blob.data):
            return refuse(416, "InvalidRange", "The range specified is invalid.")
        piece = bytes(blob.data[start : end + 1])
        answer["Content-Range"] = f"bytes {start}-{start + len(piece) - 1}/{len(blob.data)}"
        return Reply(206, answer, piece)

    def write(self, target: str, headers: Mapping[str, str], body: bytes, complain: Complain) -> Reply:
        """Answer a PUT of *target* with lower-case *headers*; *complain* gets (rule, text) of every oddity."""
        path, refusal = self._refusal(target, "w")
        if refusal is not None:
            complain("wireserver §17.4", f"storage refuses the PUT: {refusal.code}")
            return refusal
        rule = "wireserver §17.4"
        if headers.get("x-ms-version") != "2014-02-14":
            complain(rule, f"x-ms-version is {headers.get('x-ms-version')!r}, not '2014-02-14'")
        if not _DATE.fullmatch(headers.get("x-ms-date", "")):
            complain(rule, f"x-ms-date is {headers.get('x-ms-date')!r}, not YYYY-MM-DDTHH:MM:SSZ")
        length = headers.get("content-length")
        if length is None:
            complain(rule, "no Content-Length")
            return refuse(411, "MissingContentLengthHeader", "Content-Length header is required.")
        if length != str(len(body)):
            complain(rule, f"Content-Length is {length}, the body has {len(body)} bytes")
            return refuse(400, "InvalidHeaderValue", "Content-Length does not match the body.")
        if "comp=page" in urlsplit(target).query.split("&"):
            return self._write_pages(path, headers, body, complain)
        kind = headers.get("x-ms-blob-type")
        old = self._blobs.get(path)
        version = old.version + 1 if old is not None else 1
        if kind == "BlockBlob":
            blob = Blob(bytearray(body), content_type=headers.get("content-type", "application/octet-stream"))
        elif kind == "PageBlob":
            size = headers.get("x-ms-blob-content-length", "")
            if not size.isdigit() or int(size) % PAGE or body:
                complain(rule, f"a page blob of {size or 'no'} bytes with a body of {len(body)} bytes")
                return refuse(400, "InvalidHeaderValue", "x-ms-blob-content-length must be a multiple of 512.")
            blob = Blob(bytearray(int(size)), "PageBlob", missing=set(range(0, int(size), PAGE)))
        else:
            complain(rule, f"x-ms-blob-type is {kind!r}")
            return refuse(400, "MissingRequiredHeader", "x-ms-blob-type is required.")
        if old is not None and old.blob_type != blob.blob_type:
            complain(rule, f"a {old.blob_type} was overwritten as {blob.blob_type}")
            return refuse(409, "InvalidBlobType", "The blob type is invalid for this operation.")
        blob.version = version
        self._blobs[path] = blob
        return self._created(blob)

    def _write_pages(self, path: str, headers: Mapping[str, str], body: bytes, complain: Complain) -> Reply:
        rule = "wireserver §17.4 page"
        blob = self._blobs.get(path)
        if blob is None or blob.blob_type != "PageBlob":
            complain(rule, "pages written to what is not a page blob")
            return refuse(404, "BlobNotFound", "The specified blob does not exist.")
        wanted = _RANGE.fullmatch(headers.get("x-ms-range", ""))
        if headers.get("x-ms-page-write") != "update" or wanted is None:
            complain(rule, "x-ms-page-write: update and x-ms-range are required")
            return refuse(400, "MissingRequiredHeader", "x-ms-page-write and x-ms-range are required.")
        start, end = int(wanted.group(1)), int(wanted.group(2)) + 1
        if start % PAGE or end % PAGE or end - start != len(body) or end > len(blob.data):
            complain(rule, f"range {start}-{end - 1} with {len(body)} bytes into a blob of {len(blob.data)} bytes")
            return refuse(416, "InvalidPageRange", "The page range specified is invalid.")
        if len(body) > MAX_PAGE_WRITE:
            complain(rule, f"{len(body)} bytes in one page write; the limit is 4 MiB")
            return refuse(413, "RequestBodyTooLarge", "The request body is too large.")
        blob.data[start:end] = body
        blob.missing -= set(range(start, end, PAGE))
        blob.version += 1
        return self._created(blob)

    @staticmethod
    def _created(blob: Blob) -> Reply:
        return Reply(201, {"ETag": blob.etag, "Last-Modified": blob.modified, "x-ms-version": "2014-02-14"})
