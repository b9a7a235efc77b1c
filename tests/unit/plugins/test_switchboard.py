"""Which line of the configuration decides about a plugin."""

from __future__ import annotations

import pytest

from waagent.conffile import Setting
from waagent.switchboard import DISABLED, ENABLED, Switchboard


def board(*lines, **more):
    return Switchboard(
        [Setting(key, value, f"/etc/{number}.conf", number) for number, (key, value) in enumerate(lines, 1)], **more
    )


@pytest.mark.parametrize(
    ("lines", "on", "line"),
    [
        ([], True, None),
        ([(DISABLED, "acme")], False, 1),
        ([(DISABLED, "other, acme")], False, 1),
        ([(DISABLED, "ac*")], False, 1),
        ([(DISABLED, "acm?")], False, 1),
        ([(DISABLED, "*")], False, 1),
        ([(DISABLED, "acm")], True, None),
        ([(DISABLED, "acme.*")], True, None),
        ([(DISABLED, "[acme]")], True, None),
        ([(DISABLED, "*"), (ENABLED, "acme")], True, 2),
        ([(ENABLED, "acme"), (DISABLED, "*")], False, 2),
        ([(DISABLED, "acme"), (DISABLED, "other")], False, 1),
        ([(DISABLED, "acme"), (DISABLED, "")], True, None),
        ([(DISABLED, "acme"), (DISABLED, "None")], True, None),
        ([(ENABLED, "acme"), (DISABLED, "acme"), (ENABLED, "")], False, 2),
        ([("Plugins.ThirdParty", "acme")], True, None),
    ],
)
def test_the_last_line_that_names_a_plugin_decides(lines, on, line):
    verdict = board(*lines).verdict("acme", first_party=False)
    assert verdict.on is on
    assert verdict.line == line
    assert verdict.file == (f"/etc/{line}.conf" if line else None)


def test_the_reason_quotes_the_line():
    verdict = board((DISABLED, "a*, b")).verdict("acme", first_party=True)
    assert verdict.reason == "switched off by Plugins.Disabled=a*,b in /etc/1.conf:1"


def test_hardened_images_load_third_parties_only_when_they_are_named():
    hardened = board((ENABLED, "good"), listed_only=True, listed_by=("/etc/waagent.conf", 7))
    assert hardened.verdict("good", first_party=False).on
    assert hardened.verdict("extensions", first_party=True).on
    refused = hardened.verdict("acme", first_party=False)
    assert (refused.on, refused.file, refused.line) == (False, "/etc/waagent.conf", 7)
    assert "Plugins.ThirdParty=listed" in refused.reason


def test_a_long_glob_takes_no_time():
    assert not board((DISABLED, "*a" * 30 + "*b")).about("a" * 60)
