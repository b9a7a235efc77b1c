from __future__ import annotations

import time

import pytest

from waagent.errors import ProtocolError
from waagent.platform import xmldoc

TEXT = '<?xml version="1.0" encoding="{}"?>\n<r><a x=" 1 ">é</a></r>'


@pytest.mark.parametrize(
    "data",
    [
        "<r><a x=' 1 '>é</a></r>".encode(),
        b"\xef\xbb\xbf" + TEXT.format("utf-8").encode(),
        TEXT.format("UTF-8").encode(),
        TEXT.format("utf-16").encode(),
        TEXT.format("utf-16").encode("utf-16"),
        TEXT.format("utf-16").encode("utf-16-le"),
        TEXT.format("utf-16").encode("utf-16-be"),
        b"\n  <!-- <!DOCTYPE r> --><?note <!DOCTYPE r>?><r><a x=' 1 '>\xc3\xa9</a></r>",
    ],
)
def test_accepted_encodings_give_the_same_tree(data: bytes) -> None:
    root = xmldoc.parse(data, "Sample", "r")
    assert root.find_text("a") == "é"
    found = root.find("a")
    assert found is not None
    assert found.get("x") == "1"
    assert found.attributes["x"] == " 1 "


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no element found"),
        (b"not xml", "well-formed"),
        (b"<r><a></r>", "mismatched tag"),
        (b"<r>\x00</r>", "well-formed"),
        (b"<r>\xff</r>", "bad byte at 3"),
        (b"\xff\xfe<\x00r", "UTF-16"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><r>\xe9</r>", "bad byte"),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><r/>", "another one declared"),
        (b"<?xml version='1.0' encoding='rot13'?><r/>", "another one declared"),
        (b"<!DOCTYPE r><r/>", "document type declaration"),
        (b"<?xml version='1.0'?><!-- c -->\n<!DOCTYPE r [<!ENTITY a 'aaaa'>]><r>&a;</r>", "document type declaration"),
        (b"\xef\xbb\xbf<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>", "document type declaration"),
        ("<!DOCTYPE r [<!ENTITY a 'a'>]><r>&a;</r>".encode("utf-16"), "document type declaration"),
        (b"<r>&other;</r>", "undefined entity"),
        (b"<other/>", "expected the element r, found other"),
        (b"<r>" + b"<a>" * 64 + b"</a>" * 64 + b"</r>", "64 levels"),
        (b"<r>" + b"<a/>" * 250_000 + b"</r>", "250000 elements"),
        (b"<r>" + b"x" * xmldoc.MAX_BYTES + b"</r>", "at most 16777216 bytes"),
    ],
)
def test_refused(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=r"^Sample: expected ") as caught:
        xmldoc.parse(data, "Sample", "r")
    assert said in str(caught.value)


def test_the_deepest_and_the_largest_that_pass() -> None:
    deep = xmldoc.parse(b"<r>" + b"<a>" * 63 + b"</a>" * 63 + b"</r>", "Sample")
    assert len(deep.find_all("a")) == 63
    large = xmldoc.parse(b"<r>" + b"x" * (xmldoc.MAX_BYTES - 7) + b"</r>", "Sample")
    assert len(large.text) == xmldoc.MAX_BYTES - 7


def test_text_is_joined_with_cdata_and_stripped() -> None:
    root = xmldoc.parse(b"<r>\n one <![CDATA[<two> &amp; ]]><x>inner</x>&amp; three\n</r>", "Sample")
    assert root.text == "one <two> &amp; & three"


def test_a_declaration_inside_data_is_data() -> None:
    assert xmldoc.parse(b"<r><![CDATA[<!DOCTYPE html>]]></r>", "Sample").text == "<!DOCTYPE html>"


def test_search_goes_in_document_order_through_all_levels_and_ignores_prefixes() -> None:
    root = xmldoc.parse(b"<r xmlns:i='u'><b><a>1</a></b><i:a>2<a>3</a></i:a></r>", "Sample")
    assert [element.text for element in root.find_all("a")] == ["1", "2", "3"]
    assert root.find_text("a") == "1"
    assert root.find("missing") is None
    assert root.find_text("missing") is None


@pytest.mark.parametrize(
    "data",
    [
        b"<r " + b" ".join(b"a%d=''" % number for number in range(300_000)) + b"/>",
        b"<r a='" + b"x" * (15 << 20),
        b"<r>" + b"&#10;" * 3_000_000 + b"</r>",
        b"<!--" * 4_000_000,
        b"<?a?>" * 3_000_000,
        b"<a>" * 5_000_000,
    ],
    ids=["attributes", "one token", "references", "comments", "instructions", "levels"],
)
def test_large_hostile_documents_are_done_with_quickly(data: bytes) -> None:
    begin = time.process_time()
    try:
        xmldoc.parse(data, "Sample")
    except ProtocolError:
        pass
    assert time.process_time() - begin < 5


def test_names_in_messages_are_short_and_printable() -> None:
    assert xmldoc.shown("Plain") == "Plain"
    assert xmldoc.shown("a\n" + "b" * 100) == "a?" + "b" * 38 + "..."
