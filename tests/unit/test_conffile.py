"""The raw parser: grammar (configuration §2), chain (architecture §10), files that are not what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent import conffile
from waagent.conffile import parse_line, parse_text, read_chain
from waagent.errors import ConfigError


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("Logs.Verbose=y", ("Logs.Verbose", "y")),
        (' Logs.Verbose = "Y" ', ("Logs.Verbose", "Y")),
        ("Provisioning.DecodeCustomData=n#why", ("Provisioning.DecodeCustomData", "n")),
        ("Provisioning.SshHostKeyPairType=rsa # text", ("Provisioning.SshHostKeyPairType", "rsa")),
        ("OS.OpensslPath=None", ("OS.OpensslPath", "None")),
        ("HttpProxy.Port=", ("HttpProxy.Port", "")),
        ("HttpProxy.Port=1_0", ("HttpProxy.Port", "1_0")),
        ("Logs.Verbose", None),
        ("#Logs.Verbose=y", None),
        ("", None),
        ("  # X=y", ("# X", "y")),
        ('A="a b" # c', ("A", "a b")),
        ("A='y'", ("A", "'y'")),
        ('A="y"\r', ("A", "y")),
        ("A=y\r", ("A", "y")),
        ("ResourceDisk.MountOptions=mode=777,noatime", ("ResourceDisk.MountOptions", "mode=777,noatime")),
        ("=Value", ("", "Value")),
        ("Autoupdate.Frequency=1", ("Autoupdate.Frequency", "1")),
    ],
)
def test_worked_samples_of_the_grammar(line: str, pair: tuple[str, str] | None) -> None:
    assert parse_line(line) == pair


def test_none_means_absent_and_the_last_of_two_wins(tmp_path: Path) -> None:
    write(tmp_path, "etc/waagent.conf", "A=1\nB=x\nA=2\nB=None\nC=none\n")
    raw = read_chain(str(tmp_path))
    assert (raw.get("A"), raw.get("B"), raw.get("C"), raw.get("D")) == ("2", None, "none", None)
    assert [(setting.key, setting.value, setting.line) for setting in raw.lines] == [
        ("A", "1", 1),
        ("B", "x", 2),
        ("A", "2", 3),
        ("B", "None", 4),
        ("C", "none", 5),
    ]


def test_only_the_line_feed_ends_a_line() -> None:
    settings = parse_text("A=1\x0bB=2\u2028C=3\nD=4")
    assert [(setting.key, setting.line) for setting in settings] == [("A", 1), ("D", 2)]


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/waagent/conf.d/10-distro.conf", "A=vendor\nB=vendor\nC=vendor\n")
    write(tmp_path, "usr/lib/waagent/conf.d/05-early.conf", "A=early\nE=early\n")
    write(tmp_path, "etc/waagent.conf", "B=main\nC=main\n")
    write(tmp_path, "etc/waagent.conf.d/20-b.conf", "C=second\n")
    write(tmp_path, "etc/waagent.conf.d/10-a.conf", "C=first\n")
    write(tmp_path, "etc/waagent.conf.d/notes.txt", "C=no\n")
    write(tmp_path, "etc/waagent.conf.d/.hidden.conf", "C=no\n")
    raw = read_chain(str(tmp_path))
    assert {key: raw.get(key) for key in "ABCE"} == {"A": "vendor", "B": "main", "C": "second", "E": "early"}
    assert [raw.settings[key].layer for key in "ABC"] == ["vendor", "file", "drop-in"]
    assert raw.settings["C"].file == str(tmp_path / "etc/waagent.conf.d/20-b.conf")
    assert [os.path.basename(file) for file in raw.files] == [
        "05-early.conf",
        "10-distro.conf",
        "waagent.conf",
        "10-a.conf",
        "20-b.conf",
    ]
    assert raw.problems == []


def test_none_in_a_later_layer_brings_the_code_default_back(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/waagent/conf.d/a.conf", "A=vendor\n")
    write(tmp_path, "etc/waagent.conf", "A=None\n")
    assert read_chain(str(tmp_path)).get("A") is None


def test_a_named_file_replaces_the_chain(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/waagent/conf.d/a.conf", "A=vendor\n")
    write(tmp_path, "etc/waagent.conf.d/a.conf", "B=drop-in\n")
    named = write(tmp_path, "mine.conf", "C=mine\n")
    raw = read_chain(str(tmp_path), str(named))
    assert set(raw.settings) == {"C"}
    assert raw.files == [str(named)]


def test_a_missing_named_file_is_an_error_and_names_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.conf"):
        read_chain(str(tmp_path), str(tmp_path / "nowhere.conf"))


def test_without_the_main_file_vendor_values_hold_and_one_problem_says_so(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/waagent/conf.d/a.conf", "A=vendor\n")
    raw = read_chain(str(tmp_path))
    assert raw.get("A") == "vendor"
    assert len(raw.problems) == 1
    assert str(tmp_path / "etc/waagent.conf") in raw.problems[0]


@pytest.mark.parametrize(
    "main", ["/usr/local/etc/waagent.conf", "/usr/share/oem/waagent.conf", "/usr/share/defaults/waagent/waagent.conf"]
)
def test_other_systems_keep_their_file_elsewhere(tmp_path: Path, main: str) -> None:
    write(tmp_path, main, "A=there\n")
    raw = read_chain(str(tmp_path))
    assert raw.get("A") == "there"
    assert raw.problems == []


def test_freebsd_drop_ins_lie_beside_its_file(tmp_path: Path) -> None:
    write(tmp_path, "usr/local/etc/waagent.conf.d/a.conf", "A=alone\n")
    assert read_chain(str(tmp_path)).get("A") == "alone"
    write(tmp_path, "usr/local/etc/waagent.conf", "A=main\nB=main\n")
    raw = read_chain(str(tmp_path))
    assert (raw.get("A"), raw.get("B")) == ("alone", "main")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"A=1\n" + b"#" * (1 << 20), "larger"),
        (b"A=1\n\0\1\2", "NUL"),
        ("A=1\n".encode("utf-16"), "NUL"),
        (b"", "empty"),
    ],
)
def test_a_file_that_is_no_text_is_left_out_and_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = write(tmp_path, "etc/waagent.conf", content)
    write(tmp_path, "etc/waagent.conf.d/a.conf", "B=2\n")
    raw = read_chain(str(tmp_path))
    assert raw.get("A") is None
    assert raw.get("B") == "2"
    assert [problem for problem in raw.problems if str(path) in problem and word in problem]


def test_bytes_that_are_not_utf_8_cost_only_themselves(tmp_path: Path) -> None:
    path = write(tmp_path, "etc/waagent.conf", b"# gr\xfc\xdfe\nA=1\nB=\xff\n")
    raw = read_chain(str(tmp_path))
    assert (raw.get("A"), raw.get("B")) == ("1", "\\xff")
    assert raw.problems == [f"{path}:1: is not UTF-8; bytes that are not are read as backslash escapes"]


def test_a_byte_order_mark_spoils_nothing(tmp_path: Path) -> None:
    write(tmp_path, "etc/waagent.conf", b'\xef\xbb\xbfA=1\r\nB="2"\r\n')
    raw = read_chain(str(tmp_path))
    assert (raw.get("A"), raw.get("B")) == ("1", "2")
    assert "byte order mark" in raw.problems[0]


def test_a_directory_a_fifo_a_loop_and_a_dangling_link_are_named(tmp_path: Path) -> None:
    (tmp_path / "etc/waagent.conf").mkdir(parents=True)
    drop_ins = tmp_path / "etc/waagent.conf.d"
    drop_ins.mkdir()
    os.mkfifo(drop_ins / "a.conf")
    (drop_ins / "b.conf").symlink_to("b.conf")
    (drop_ins / "c.conf").symlink_to("nowhere")
    write(tmp_path, "etc/waagent.conf.d/d.conf", "D=4\n")
    raw = read_chain(str(tmp_path))
    assert raw.get("D") == "4"
    assert [problem.split(":")[0] for problem in raw.problems] == [
        str(tmp_path / "etc/waagent.conf"),
        *(str(drop_ins / f"{name}.conf") for name in "abc"),
    ]


def test_a_file_in_the_place_of_the_drop_in_directory_is_named(tmp_path: Path) -> None:
    write(tmp_path, "etc/waagent.conf", "A=1\n")
    write(tmp_path, "etc/waagent.conf.d", "B=1\n")
    raw = read_chain(str(tmp_path))
    assert raw.get("A") == "1"
    assert "cannot be listed" in raw.problems[0]


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "etc/waagent.conf", "A=1\n")

    def refuse(name: str, limit: int) -> bytes:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(conffile, "read_limited", refuse)
    raw = read_chain(str(tmp_path))
    assert raw.problems == [f"{path}: cannot be read (Permission denied); the file is left out"]


def test_values_for_paths_are_absolute_ones_only(tmp_path: Path) -> None:
    write(
        tmp_path, "etc/waagent.conf", "Lib.Dir=/srv/waagent\nLogs.File=waagent.log\nPid.File=\nExtension.LogDir=None\n"
    )
    assert conffile.values_for_paths(read_chain(str(tmp_path))) == {"Lib.Dir": "/srv/waagent"}


@given(st.binary(max_size=2000))
def test_no_content_raises(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root, "etc/waagent.conf", content)
    raw = read_chain(str(root))
    assert all(setting.file in raw.files for setting in raw.lines)


@given(st.text(max_size=2000))
def test_no_text_raises_and_every_setting_keeps_its_line(text: str) -> None:
    lines = text.split("\n")
    for setting in parse_text(text):
        assert "=" in lines[setting.line - 1]
        assert setting.key in lines[setting.line - 1]
        assert "#" not in setting.value
        assert "\n" not in setting.key + setting.value


_WORDS = st.text(st.characters(blacklist_characters='\n\r#"', blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")))


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(whitelist_categories=("Lu", "Ll", "Nd"), whitelist_characters="."), min_size=1),
            _WORDS,
        )
    )
)
def test_what_is_written_is_read(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{key}={value}\n" for key, value in pairs)
    assert [(setting.key, setting.value) for setting in parse_text(text)] == pairs


@given(_WORDS, st.sampled_from(["", " ", '"', ' "', '" ']), st.sampled_from(["", "# note", " #x=y", "\r"]))
def test_quotes_blanks_and_comments_come_off(value: str, edge: str, tail: str) -> None:
    assert parse_line(f"K ={edge}{value}{edge[::-1]}{tail}") == ("K", value)
