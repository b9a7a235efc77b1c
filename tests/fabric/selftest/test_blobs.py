from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.fabric

STATUS = {
    "version": "1.1",
    "timestampUTC": "2026-01-02T03:04:05Z",
    "aggregateStatus": {"guestAgentStatus": {"version": "3.0.0.0", "status": "Ready"}, "handlerAggregateStatus": []},
}


def put(client, url, body, **headers):
    given = {"x-ms-version": "2014-02-14", "x-ms-date": "2026-01-02T03:04:05Z", **headers}
    return client.session.put(url, data=body, headers=given, timeout=10)


def test_a_direct_status(client, fabric, clean):
    body = json.dumps(STATUS).encode()
    answer = put(client, client.status_url(), body, **{"x-ms-blob-type": "BlockBlob"})
    assert answer.status_code == 201
    (record,) = fabric.statuses
    assert (record.channel, record.blob_type, record.size) == ("direct", "BlockBlob", len(body))
    assert client.session.get(client.status_url()).content == body


@pytest.mark.parametrize("padding", [b" ", b"\0"])
def test_a_direct_page_blob_of_several_slices(client, fabric, clean, padding):
    fabric.publish(status_blob="PageBlob")
    text = json.dumps({**STATUS, "large": "x" * 5_000_000}).encode()
    body = text + padding * (-len(text) % 512)
    url = client.status_url()
    create = {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(len(body))}
    assert put(client, url, b"", **create).status_code == 201
    size = 4 * 1024 * 1024
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        span = {"x-ms-range": f"bytes={start}-{start + len(piece) - 1}", "x-ms-page-write": "update"}
        assert put(client, f"{url}&comp=page", piece, **span).status_code == 201
    (record,) = fabric.statuses
    assert (record.blob_type, record.document["large"]) == ("PageBlob", "x" * 5_000_000)


def test_a_create_makes_the_blob_unwritten_again(client, fabric, clean):
    fabric.publish(status_blob="PageBlob")
    text = json.dumps(STATUS).encode()
    body = text + b" " * (-len(text) % 512)
    create = {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(len(body))}
    span = {"x-ms-range": f"bytes=0-{len(body) - 1}", "x-ms-page-write": "update"}
    for expected in (1, 2):
        put(client, client.status_url(), b"", **create)
        put(client, f"{client.status_url()}&comp=page", body, **span)
        assert len(fabric.statuses) == expected


def test_head_and_ranges(client, fabric, clean):
    url = fabric.platform.store.put("/a/x.zip", b"0123456789", "application/zip")
    head = client.session.head(url)
    assert (head.headers["Content-Length"], head.headers["Content-Type"]) == ("10", "application/zip")
    piece = client.session.get(url, headers={"Range": "bytes=3-5"})
    assert (piece.status_code, piece.content) == (206, b"345")


def test_signatures_are_checked(client, fabric, clean):
    url = fabric.platform.store.put("/a/x.zip", b"zip")
    answer = client.session.get(url.partition("?")[0])
    assert answer.status_code == 403
    assert answer.headers["x-ms-error-code"] == "AuthenticationFailed"
    assert "<Code>AuthenticationFailed</Code>" in answer.content.decode("utf-8-sig")


def test_unsigned_writes_are_a_violation(client, fabric, violated):
    answer = put(client, client.status_url().partition("?")[0], b"{}", **{"x-ms-blob-type": "BlockBlob"})
    assert answer.status_code == 403
    assert fabric.statuses == []
    assert "storage refuses the PUT" in violated()[0]


def test_identity_does_not_belong_to_storage(client, fabric, violated):
    url = fabric.platform.store.put("/a/x.zip", b"zip")
    client.session.get(url, headers={"x-ms-containerid": "c"})
    assert "of no concern to storage" in violated()[0]


def test_other_methods(client, fabric, violated):
    url = fabric.platform.store.put("/a/x.zip", b"zip")
    assert client.session.delete(url).status_code == 405
    assert len(violated()) == 1


def test_expect_100_continue(fabric, client, clean):
    import http.client

    url = client.status_url()
    body = json.dumps(STATUS).encode()
    connection = http.client.HTTPConnection(fabric.blobs, timeout=10)
    connection.putrequest("PUT", url.partition(fabric.blobs)[2])
    headers = {
        "x-ms-version": "2014-02-14", "x-ms-date": "2026-01-02T03:04:05Z", "x-ms-blob-type": "BlockBlob",
        "Content-Length": str(len(body)), "Expect": "100-continue",
    }  # fmt: skip
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock.recv(64).startswith(b"HTTP/1.1 100 ")
    connection.send(body)
    assert connection.getresponse().status == 201
    connection.close()
