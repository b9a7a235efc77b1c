"""Every spelling of cli §2 means what it says, and nothing else does."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.cli.grammar import Invocation, UsageError, parse

COMMANDS = {
    "help": ["-help", "--help", "help", "-usage", "usage", "-?", "?", "-h", "/?", "/help"],
    "version": ["-version", "--version", "version", "/version", "-/-version"],
    "deprovision": ["-deprovision", "--deprovision", "deprovision"],
    "deprovision+user": ["-deprovision+user", "--deprovision+user", "deprovision+user"],
    "daemon": ["-daemon", "--daemon", "daemon"],
    "start": ["-start", "--start", "start"],
    "serialconsole": ["-serialconsole", "--serialconsole", "serialconsole"],
    "register-service": ["-register-service", "--register-service"],
    "run-exthandlers": ["-run-exthandlers", "--run-exthandlers"],
    "show-configuration": ["-show-configuration", "--show-configuration"],
    "collect-logs": ["-collect-logs", "--collect-logs"],
}


@pytest.mark.parametrize(
    ("spelling", "command"), [(spelling, command) for command, all_ in COMMANDS.items() for spelling in all_]
)
def test_every_spelling_of_a_command(spelling: str, command: str) -> None:
    assert parse([spelling]).words == [command]


@pytest.mark.parametrize("flag", ["verbose", "force", "full", "debug"])
@pytest.mark.parametrize("dashes", ["", "-", "--", "/"])
def test_flags_stand_anywhere(flag: str, dashes: str) -> None:
    for words in ([dashes + flag, "-collect-logs"], ["-collect-logs", dashes + flag]):
        found = parse(words)
        assert found.words == ["collect-logs"]
        assert [name for name in ("verbose", "force", "full", "debug") if getattr(found, name)] == [flag]


@pytest.mark.parametrize("spelling", ["--dry-run", "-dry-run", "dry-run"])
def test_a_dry_run_is_asked_of_the_command_itself(spelling: str) -> None:
    assert parse(["-deprovision+user", spelling]).words == ["deprovision+user", "--dry-run"]
    assert parse([spelling, "-force", "-deprovision"]).words == ["deprovision", "--dry-run"]
    assert parse(["-deprovision", spelling, "-version"]).words == ["version", "--dry-run"], "who cannot obey refuses"
    assert parse(["plugins", "--dry-run"]).words == ["plugins", "--dry-run"]


def test_scripts_in_the_field_call_it_like_this() -> None:
    found = parse(["-force", "-deprovision+user"])
    assert (found.words, found.force) == (["deprovision+user"], True)
    assert parse(["-verbose", "-start"]).words == ["start"]


@pytest.mark.parametrize("dashes", ["", "-", "--"])
def test_the_firewall_command_carries_its_address(dashes: str) -> None:
    assert parse([f"{dashes}setup-firewall=168.63.129.16"]).words == ["setup-firewall", "168.63.129.16"]


@pytest.mark.parametrize(
    "words",
    [
        ["-configuration-path:/x"],
        ["-configuration-path=/x"],
        ["-configuration-path", "/x"],
        ["--configuration-path:/x"],
        ["configuration-path:/x"],
        ["-conf=/x"],
        ["-conf", "/x"],
        ["conf=/x"],
    ],
)
def test_the_ways_to_name_a_configuration_file_are_equal(words: list[str]) -> None:
    for whole in ([*words, "-daemon"], ["-daemon", *words]):
        found = parse(whole)
        assert (found.words, found.conf) == (["daemon"], "/x")


def test_a_relative_file_is_taken_from_here_and_may_hold_any_character() -> None:
    assert parse(["-configuration-path:a b=c:d"]).conf == os.path.join(os.getcwd(), "a b=c:d")


@pytest.mark.parametrize("words", [["--root", "/r"], ["--root=/r"], ["-root:/r"]])
def test_the_root_can_be_given_before_and_after_any_command(words: list[str]) -> None:
    for command in (["daemon"], ["config", "show"]):
        assert (parse([*words, *command]).root, parse([*words, *command]).words) == ("/r", command)
        assert (parse([*command, *words]).root, parse([*command, *words]).words) == ("/r", command)


def test_the_root_of_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAAGENT_ROOT", "/env")
    assert parse([]).root == "/env"
    assert parse(["--root", "/word"]).root == "/word"
    monkeypatch.setenv("WAAGENT_ROOT", "")
    assert parse([]).root == "/"
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        (["config", "show", "--json"], ["config", "show", "--json"]),
        (["--plugins", "list"], ["plugins", "list"]),
        (["plugins", "disable", "verbose"], ["plugins", "disable", "verbose"]),
        (["plugins", "disable", "/etc/x"], ["plugins", "disable", "/etc/x"]),
        (["config", "show", "--", "--root", "/x"], ["config", "show", "--", "--root", "/x"]),
        (["status", "--force", ""], ["status", "--force", ""]),
    ],
)
def test_what_follows_a_new_word_belongs_to_it(words: list[str], understood: list[str]) -> None:
    found = parse(words)
    assert found.words == understood
    assert (found.root, found.force, found.verbose) == ("/", False, False)


def test_verbose_is_global_also_after_a_new_word() -> None:
    assert parse(["plugins", "list", "-verbose"]).verbose
    assert parse(["-verbose", "plugins", "list"]).verbose


def test_help_takes_the_command_it_is_wanted_for() -> None:
    assert parse(["help", "config", "show"]).words == ["help", "config", "show"]
    assert parse(["help", "version"]).words == ["help", "version"]
    assert parse(["--help"]).words == ["help"]
    for spelling in ("--help", "-help", "-h", "help", "-?"):
        assert parse(["-deprovision", spelling]).words == ["help", "deprovision"]
        assert parse(["-force", "-deprovision+user", spelling]).words == ["help", "deprovision+user"]
    assert parse(["config", "show", "--help"]).words == ["config", "show", "--help"]


def test_of_several_old_commands_the_last_counts_and_empty_words_do_not() -> None:
    assert parse(["-version", "", "-daemon"]).words == ["daemon"]
    assert parse([]).words == []


@pytest.mark.parametrize(
    "word", ["-versionfoo", "-daemonize", "-startup", "-v", "-f", "foo", "-Version", "-setup-firewall=x"]
)
def test_a_suffix_or_another_case_is_another_word(word: str) -> None:
    known = {name for spellings in COMMANDS.values() for name in spellings}
    words = parse([word]).words
    assert words[0] not in known
    assert words[0] not in COMMANDS


@pytest.mark.parametrize(
    "words",
    [
        ["-"],
        ["/"],
        ["-daemon", "foo"],
        ["-configuration-path"],
        ["-configuration-path:"],
        ["--root"],
        ["-daemon", "-v"],
    ],
)
def test_what_cannot_be_understood_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


@given(st.lists(st.one_of(st.text(), st.sampled_from(["-version", "--root", "config", "-conf=", "--", "-force"]))))
def test_no_command_line_raises_anything_else(words: list[str]) -> None:
    try:
        assert isinstance(parse(words), Invocation)
    except UsageError as problem:
        assert str(problem)
