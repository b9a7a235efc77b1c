"""The page of options and the registry say the same."""

from __future__ import annotations

from pathlib import Path

from waagent import optiondocs

PAGE = Path(__file__).resolve().parents[3] / "docs/configuration.md"


def test_the_page_is_made_from_the_registry():
    assert PAGE.read_text(encoding="utf-8") == optiondocs.render(), (
        "run: python -m waagent.optiondocs > docs/configuration.md"
    )


def test_every_option_is_on_the_page_once():
    page = optiondocs.render()
    for name in optiondocs.known().options:
        assert page.count(f"\n| `{name}` |") == 1
    assert "`Extensions.KeepDirectories`" in page, "options that only a plugin knows, too"
