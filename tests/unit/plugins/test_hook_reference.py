"""The hook reference and the specs say the same, and every example holds."""

from __future__ import annotations

import ast
import types
from pathlib import Path

import pytest

import waagent
from waagent import hookdocs, hookspecs, operations
from waagent.registry import Registry, Standing, examine
from waagent.service import boot

REPOSITORY = Path(__file__).resolve().parents[3]
ENTRIES = [entry for module in (hookspecs, *operations.GROUPS) for entry in hookdocs.entries(module)]
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.traits.name)


def test_the_page_is_made_from_the_specs():
    page = (REPOSITORY / "docs" / "hooks.md").read_text(encoding="utf-8")
    assert page == hookdocs.render(), "run: python -m waagent.hookdocs > docs/hooks.md"


def test_every_hook_that_can_be_called_is_on_the_page():
    page = hookdocs.render()
    for name, traits in Registry().traits.items():
        assert f"`{name}({', '.join(traits.arguments)})`" in page


def test_the_page_names_every_phase_of_the_boot_stage():
    (on_boot,) = [entry for entry in ENTRIES if entry.traits.name == "on_boot"]
    for phase in boot.PHASES:
        assert f"``{phase}``" in on_boot.parts["Returns"]


@each
def test_the_deadline_on_the_page_is_the_one_that_is_kept(entry):
    assert entry.parts["Deadline"].split(" s", 1)[0] == f"{entry.traits.deadline:g}"


@each
def test_every_argument_is_explained(entry):
    for argument in entry.traits.arguments:
        assert f"``{argument}``" in entry.parts["Arguments"]
    assert set(entry.traits.defaults) <= set(entry.traits.arguments)


@each
def test_who_answers_is_said_as_it_is(entry):
    said = entry.parts["Answers"]
    assert said.startswith("the first" if entry.traits.first_answer else "all")


@each
def test_an_operation_says_whether_it_changes_the_machine(entry):
    if entry.traits.kind == "operation":
        assert entry.summary.endswith("Changing." if entry.traits.changing else "Reading.")


@each
def test_the_example_is_short_and_passes_every_check(entry):
    assert len(entry.example) <= 6
    source = "\n".join(entry.example)
    ast.parse(source)
    plugin = types.ModuleType("example")
    exec(source, {"hookimpl": waagent.hookimpl}, plugin.__dict__)
    plugin.__dict__.pop("hookimpl", None)
    assert Registry().register(examine(plugin, "example"), Standing("example")) == (entry.traits.name,)


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        ("Summary.\n\nWhen: x", "no example"),
        ("Summary.\n\nloose text\nExample::\n\n    x", "belongs to no part"),
        ("Summary.\n\nWhen: x\nExample::\n\n    x", "its parts are When instead of"),
    ],
)
def test_a_docstring_that_leaves_something_out_is_refused(docstring, said):
    with pytest.raises(ValueError, match=said):
        hookdocs.Entry(ENTRIES[0].traits, docstring)
