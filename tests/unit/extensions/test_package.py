"""What a package may and may not do while it is unpacked (extensions §4.4, §23 check 11)."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from waagent import AgentError
from waagent_extensions import codes, package
from waagent_extensions.codes import HandlerError
from waagent_extensions.layout import HandlerDir

MANIFEST = b'[{"handlerManifest":{"enableCommand":"bin/run enable"}}]'


def handler_in(root: Path) -> HandlerDir:
    (root / "lib").mkdir(exist_ok=True)
    return HandlerDir(str(root / "lib"), str(root / "log"), "Contoso.Tools.Sample", "1.4.2")


def make_zip(root: Path, entries: dict[str, bytes], modes: dict[str, int] | None = None) -> str:
    path = root / "package.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if modes and name in modes:
                info.external_attr = modes[name] << 16
            archive.writestr(info, data)
    return str(path)


NOTE = ".Contoso.Tools.Sample-1.4.2.unpacked"


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_good_package_lands_whole_with_executable_files_and_the_directories_handlers_expect(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    path = make_zip(tmp_path, {"HandlerManifest.json": MANIFEST, "bin/run": b"#!/bin/sh\n"}, {"bin/run": 0o106666})
    package.expand(path, handler)
    package.initialize(handler)
    mode = stat.S_IMODE(os.stat(Path(handler.base) / "bin/run").st_mode)
    assert mode & 0o100
    assert not mode & 0o022
    assert not mode & 0o6000
    for directory, expected in ((handler.config_dir, 0o700), (handler.status_dir, 0o700), (handler.base, 0o755)):
        assert stat.S_IMODE(os.stat(directory).st_mode) == expected
    assert os.path.isdir(handler.events_dir)
    assert os.path.isfile(handler.environment)
    assert tree(Path(handler.base).parent) >= {"Contoso.Tools.Sample-1.4.2"}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "C:/x", "a\\..\\x", "a/./../../x", "x" * 300, "..", "a/.."],
)
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    handler = handler_in(tmp_path)
    path = make_zip(tmp_path, {"HandlerManifest.json": MANIFEST, name: b"evil"})
    before = tree(tmp_path)
    with pytest.raises(HandlerError) as caught:
        package.expand(path, handler)
    assert caught.value.code == codes.PACKAGE_EXTRACTION_FAILED
    assert "package.zip" in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    handler = handler_in(tmp_path)
    path = make_zip(tmp_path, {"evil": b"/etc/passwd"}, {"evil": kind | 0o777})
    with pytest.raises(HandlerError, match="link or a device"):
        package.expand(path, handler)
    assert not handler.exists()


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    path = str(tmp_path / "package.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/b", b"2")
    with pytest.raises(HandlerError, match="twice"):
        package.expand(path, handler)


def test_too_much_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    path = make_zip(tmp_path, {"zeros": bytes(10_000_000), "b": b"", "c": b""})
    for limits, words in (
        (package.Limits(total=9_999_999), "more than 9999999 bytes"),
        (package.Limits(entries=2), "3 entries"),
        (package.Limits(ratio=100, ratio_from=1_000_000), "100 times"),
    ):
        with pytest.raises(HandlerError, match=words):
            package.expand(path, handler, limits=limits)
        assert not handler.exists()


def test_a_package_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    data = bytearray(Path(make_zip(tmp_path, {"zeros": bytes(100_000)})).read_bytes())
    # The size stands in the local header and in the central directory; both say 10.
    local, central = data.find(b"PK\x03\x04"), data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, local + 22, 10)
    struct.pack_into("<I", data, central + 24, 10)
    path = tmp_path / "lying.zip"
    path.write_bytes(bytes(data))
    with pytest.raises(HandlerError) as caught:
        package.expand(str(path), handler)
    assert caught.value.code == codes.PACKAGE_EXTRACTION_FAILED
    assert not handler.exists()


def test_a_retry_keeps_the_handlers_history_and_drops_files_the_new_package_lacks(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    package.expand(make_zip(tmp_path, {"HandlerManifest.json": MANIFEST, "old": b"1"}), handler)
    package.initialize(handler)
    Path(handler.last_sequence).write_text("7")
    Path(handler.status_file(None, 7)).write_text("[]")
    package.expand(make_zip(tmp_path, {"HandlerManifest.json": MANIFEST, "new": b"2", "mrseq": b"99"}), handler)
    assert Path(handler.last_sequence).read_text() == "7"
    assert Path(handler.status_file(None, 7)).read_text() == "[]"
    assert not os.path.exists(os.path.join(handler.base, "old"))
    assert os.path.exists(os.path.join(handler.base, "new"))
    assert tree(Path(handler.base).parent) & {".Contoso.Tools.Sample-1.4.2.partial"} == set()


def test_an_expansion_that_was_killed_leaves_either_the_old_or_the_new_tree(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    package.expand(make_zip(tmp_path, {"old": b"1"}), handler)
    lib = Path(handler.base).parent
    # Killed after the old tree was moved away and before the new one took its place.
    (lib / ".Contoso.Tools.Sample-1.4.2.partial").mkdir()
    os.rename(handler.base, lib / ".Contoso.Tools.Sample-1.4.2.old")
    package.recover_all(str(lib), str(tmp_path / "log"))
    assert os.path.exists(os.path.join(handler.base, "old"))
    base = "Contoso.Tools.Sample-1.4.2"
    assert tree(lib) == {base, f"{base}/old", f"{base}/config", f"{base}/config/HandlerState", NOTE}


def test_a_manifest_deeper_in_the_package_is_copied_to_its_root_without_its_mark(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    package.expand(make_zip(tmp_path, {"inner/HandlerManifest.json": b"\xef\xbb\xbf" + MANIFEST}), handler)
    package.initialize(handler)
    assert Path(handler.manifest).read_bytes() == MANIFEST


def test_a_package_without_manifest_says_so(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)
    package.expand(make_zip(tmp_path, {"bin/run": b""}), handler)
    with pytest.raises(HandlerError, match=r"HandlerManifest\.json not found") as caught:
        package.initialize(handler)
    assert caught.value.code == codes.MANIFEST_NOT_FOUND


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all" * 100])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    handler = handler_in(tmp_path)
    path = tmp_path / "package.zip"
    path.write_bytes(data)
    with pytest.raises(HandlerError, match="cannot be expanded"):
        package.expand(str(path), handler)
    assert not handler.exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.floats(0, 1))
def test_a_damaged_package_never_escapes_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, position: float, value: int, cut: float
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    handler = handler_in(root)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("HandlerManifest.json", MANIFEST)
        archive.writestr("bin/run", b"#!/bin/sh\nexit 0\n" * 50)
    data = bytearray(buffer.getvalue())
    data[int(position * len(data))] = value
    path = root / "package.zip"
    path.write_bytes(bytes(data[: max(1, int(cut * len(data)))]) if cut < 0.3 else bytes(data))
    try:
        package.expand(str(path), handler)
    except HandlerError as problem:
        assert problem.code == codes.PACKAGE_EXTRACTION_FAILED
        assert not handler.exists()
    outside = {name for name in tree(root) if not name.startswith("lib/Contoso.Tools.Sample-1.4.2/")}
    assert outside <= {"lib", "package.zip", "lib/Contoso.Tools.Sample-1.4.2", f"lib/{NOTE}"}


def test_what_another_process_could_not_expand_is_the_same_error(tmp_path: Path) -> None:
    handler = handler_in(tmp_path)

    def apart(function: str, arguments: dict[str, str]) -> object:
        assert function == "waagent_extensions.package:try_to_expand"
        return package.try_to_expand(**arguments)

    package.expand_apart(apart, make_zip(tmp_path, {"HandlerManifest.json": MANIFEST}), handler)
    assert os.path.isfile(handler.manifest)
    with pytest.raises(HandlerError, match="is not allowed") as caught:
        package.expand_apart(apart, make_zip(tmp_path, {"../x": b""}), handler)
    assert (caught.value.code, caught.value.operation) == (codes.PACKAGE_EXTRACTION_FAILED, "Download")

    def broken(function: str, arguments: dict[str, str]) -> object:
        raise AgentError("no such process")

    with pytest.raises(HandlerError, match="no such process"):
        package.expand_apart(broken, make_zip(tmp_path, {"HandlerManifest.json": MANIFEST}), handler)
