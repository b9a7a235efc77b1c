from __future__ import annotations

import time

import pytest

from waagent.errors import ProtocolError
from waagent.platform import jsondoc


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"\xef\xbb\xbf[]", []),
        ('"é"'.encode(), "é"),
        ("[638852750771746340]", [638852750771746340]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[" * 100 + b"]" * 100, None),
    ],
)
def test_accepted(data: bytes | str, value: object) -> None:
    found = jsondoc.parse(data, "Sample")
    if value is not None:
        assert found == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "expected JSON"),
        (b"NaN", "none (NaN or Infinity)"),
        (b"[-Infinity]", "none (NaN or Infinity)"),
        (b"1e999", "out of range"),
        (b"1" * 401, "an integer of 401 digits"),
        (b"\xff", "bad byte at 0"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b"[" * 101 + b"]" * 101, "100 levels"),
        (b"[" * 100_000, "100 levels"),
        (b'{"a":' * 100_000, "100 levels"),
        (b"[" + b"{}," * 250_000 + b"1]", "250000 lists"),
        (b"[" + b"0," * 1_000_001 + b"1]", "expected at most"),
        (b" " * (jsondoc.MAX_BYTES + 1), "at most 16777216 bytes"),
    ],
)
def test_refused(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=r"^Sample: expected ") as caught:
        jsondoc.parse(data, "Sample")
    assert said in str(caught.value)


def test_errors_hold_nothing_of_the_document() -> None:
    with pytest.raises(ProtocolError) as caught:
        jsondoc.parse(b'{"protectedSettings": "c2VjcmV0" x}', "Sample")
    assert "c2Vjc" not in str(caught.value)
    assert caught.value.__cause__ is None  # a JSON error would carry the whole text along


@pytest.mark.parametrize(
    "data",
    [b"1" * (15 << 20), b"[" + b",".join([b"9" * 399] * 40_000) + b"]", b"0." + b"1" * (15 << 20), b'"' * (15 << 20)],
    ids=["digits", "long integers", "fraction", "quotes"],
)
def test_large_hostile_documents_are_done_with_quickly(data: bytes) -> None:
    begin = time.process_time()
    try:
        jsondoc.parse(data, "Sample")
    except ProtocolError:
        pass
    assert time.process_time() - begin < 5


def test_fields_fold_names_and_refuse_contradictions() -> None:
    assert jsondoc.fields({"onHold": True, "X": 1, "x": 1}, "it") == {"onhold": True, "x": 1}
    with pytest.raises(ProtocolError, match=r"^it: expected every name once"):
        jsondoc.fields({"a": 1, "A": 2}, "it")
    marked = jsondoc.parse(b'{"fine": {"a": 1, "a": 1}, "bad": {"a": 1, "a": 2}}', "Sample", mark_repeated=True)
    assert jsondoc.fields(marked["fine"], "it") == {"a": 1}
    with pytest.raises(ProtocolError, match=r"^it: expected every name once"):
        jsondoc.fields(marked["bad"], "it")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
        ("x", "text"),
        ("", "empty text"),
        ([], "a list"),
    ],
)
def test_fields_says_what_stood_there_instead(value: object, kind: str) -> None:
    with pytest.raises(ProtocolError, match=rf"^it: expected an object, found {kind}$"):
        jsondoc.fields(value, "it")
