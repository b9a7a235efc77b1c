from __future__ import annotations

import pytest

from waagent_fabric.store import BlobStore

PATH = "/$system/vm.status"
DATE = "2026-01-02T03:04:05Z"


@pytest.fixture
def store():
    made = BlobStore()
    made.base = "http://127.0.0.1:1"
    return made


@pytest.fixture
def url(store):
    return store.grant(PATH, "rw")


class Complaints(list):
    def __call__(self, rule, text):
        self.append(text)


def put(store, url, body=b"", **headers):
    complaints = Complaints()
    given = {"x-ms-version": "2014-02-14", "x-ms-date": DATE, "content-length": str(len(body))}
    given.update({name.replace("_", "-"): value for name, value in headers.items() if value is not None})
    for name in [name for name, value in headers.items() if value is None]:
        given.pop(name.replace("_", "-"), None)
    return store.write(url[len(store.base) :], given, body, complaints), complaints


def test_block_blob_is_written_and_read(store, url):
    reply, complaints = put(store, url, b"{}", x_ms_blob_type="BlockBlob")
    assert (reply.status, complaints) == (201, [])
    read = store.read(url[len(store.base) :], {})
    assert (read.status, read.body, read.headers["x-ms-blob-type"]) == (200, b"{}", "BlockBlob")


def test_every_write_changes_the_etag(store, url):
    tags = {put(store, url, b"{}", x_ms_blob_type="BlockBlob")[0].headers["ETag"] for _ in range(3)}
    assert len(tags) == 3


def test_range(store):
    url = store.put("/a/x.zip", b"0123456789")
    read = store.read(url[len(store.base) :], {"range": "bytes=2-4"})
    assert (read.status, read.body, read.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert store.read(url[len(store.base) :], {"range": "bytes=10-"}).status == 416


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"x_ms_blob_type": None}, 400, "x-ms-blob-type"),
        ({"x_ms_version": "2018-03-28"}, 201, "x-ms-version"),
        ({"x_ms_version": None}, 201, "x-ms-version"),
        ({"x_ms_date": "Fri, 02 Jan 2026 03:04:05 GMT"}, 201, "x-ms-date"),
        ({"content_length": "7"}, 400, "Content-Length is 7"),
        ({"content_length": None}, 411, "no Content-Length"),
    ],
)
def test_wrong_headers_are_complained_about(store, url, headers, status, words):
    reply, complaints = put(store, url, b"{}", **{"x_ms_blob_type": "BlockBlob", **headers})
    assert reply.status == status
    assert len(complaints) == 1
    assert words in complaints[0]


def test_signature_is_needed(store, url):
    reply, complaints = put(store, url.replace("sig=%", "sig=A%"), b"{}", x_ms_blob_type="BlockBlob")
    assert reply.status == 403
    assert reply.code == "AuthenticationFailed"
    assert complaints


def test_a_reading_signature_does_not_write(store):
    url = store.put("/a/x.zip", b"zip")
    assert put(store, url, b"{}", x_ms_blob_type="BlockBlob")[0].status == 403
    assert store.get("/a/x.zip") == b"zip"


def test_unknown_and_deleted_blobs(store):
    url = store.put("/a/x.zip", b"zip")
    store.delete("/a/x.zip")
    assert store.read(url[len(store.base) :], {}).code == "BlobNotFound"
    assert store.read("/a/other", {}).code == "ResourceNotFound"


class TestPageBlob:
    @pytest.fixture
    def pages(self, store, url):
        reply, complaints = put(store, url, x_ms_blob_type="PageBlob", x_ms_blob_content_length="1024")
        assert (reply.status, complaints) == (201, [])
        return url + "&comp=page"

    def test_is_whole_once_every_page_was_written(self, store, pages):
        assert store.blob(PATH).missing == {0, 512}
        first = put(store, pages, b"a" * 512, x_ms_range="bytes=0-511", x_ms_page_write="update")
        assert first[0].status == 201
        assert store.blob(PATH).missing == {512}
        put(store, pages, b"b" * 512, x_ms_range="bytes=512-1023", x_ms_page_write="update")
        assert store.blob(PATH).missing == set()
        assert store.get(PATH) == b"a" * 512 + b"b" * 512

    @pytest.mark.parametrize(
        ("span", "body"),
        [
            ("bytes=0-510", b"a" * 511),
            ("bytes=1-512", b"a" * 512),
            ("bytes=0-511", b"a" * 500),
            ("bytes=1024-1535", b"a" * 512),
        ],
        ids=["odd end", "odd start", "body does not match", "beyond the end"],
    )
    def test_wrong_ranges(self, store, pages, span, body):
        reply, complaints = put(store, pages, body, x_ms_range=span, x_ms_page_write="update")
        assert reply.status == 416
        assert complaints

    def test_what_a_page_needs(self, store, pages):
        reply, complaints = put(store, pages, b"a" * 512, x_ms_range="bytes=0-511")
        assert (reply.status, len(complaints)) == (400, 1)

    def test_at_most_four_mebibytes_at_once(self, store, url):
        size = 4 * 1024 * 1024 + 512
        put(store, url, x_ms_blob_type="PageBlob", x_ms_blob_content_length=str(size))
        span = {"x_ms_range": f"bytes=0-{size - 1}", "x_ms_page_write": "update"}
        assert put(store, url + "&comp=page", bytes(size), **span)[0].status == 413

    def test_size_must_be_aligned(self, store, url):
        reply, complaints = put(store, url, x_ms_blob_type="PageBlob", x_ms_blob_content_length="1000")
        assert (reply.status, len(complaints)) == (400, 1)

    def test_types_do_not_change(self, store, url, pages):
        assert put(store, url, b"{}", x_ms_blob_type="BlockBlob")[0].status == 409

    def test_pages_of_a_block_blob(self, store, url):
        put(store, url, b"{}", x_ms_blob_type="BlockBlob")
        span = {"x_ms_range": "bytes=0-511", "x_ms_page_write": "update"}
        assert put(store, url + "&comp=page", bytes(512), **span)[0].status == 404


def test_only_the_very_url_counts_as_issued(store, url):
    assert store.issued(url)
    assert store.issued(url + "&comp=page")
    assert not store.issued(url.replace("%2b", "%2B"))
    assert "%2b" in url, "a signature must hold an escape that clients like to rewrite"
