"""The hook reference, made from the specs: ``python -m waagent.hookdocs > docs/hooks.md``.

Spec and page cannot differ: a test compares them, and this module refuses a docstring that leaves out a part.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

from waagent import hookspecs, operations
from waagent.markers import CONTRIBUTION, DECISION, EVENT, OPERATION, Traits, traits_of

PARTS = ("When", "Arguments", "Returns", "Answers", "Failure", "Deadline", "Again")
"""The parts of every docstring, in this order, between the first line and the example (architecture §5)."""

_EXAMPLE = "Example::"
_SECTIONS = (
    (EVENT, "Events", "Something happened; every plugin is told."),
    (CONTRIBUTION, "Contributions", "What plugins have is collected."),
    (DECISION, "Decisions", "The first answer counts, or the first veto."),
)


class Entry:
    """One hook, as its docstring describes it.

    Attributes:
        traits: what the agent knows of it.
        summary: the first line.
        parts: text by name of :data:`PARTS`.
        example: the lines of the example.
    """

    def __init__(self, traits: Traits, docstring: str) -> None:
        self.traits = traits
        self.summary, self.parts, self.example = _parse(traits.name, docstring)

    @property
    def signature(self) -> str:
        """The hook with the names of its arguments."""
        return f"{self.traits.name}({', '.join(self.traits.arguments)})"


def entries(module: ModuleType) -> list[Entry]:
    """Return the hooks specified in *module*, in its order.

    Raises:
        ValueError: a docstring lacks a part, or has it out of order; names the hook.
    """
    return [Entry(traits, getattr(module, name).__doc__ or "") for name, traits in traits_of(module).items()]


def render() -> str:
    """Return the whole page in Markdown."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Hooks"
    yield ""
    yield "This page is made from `core/waagent/hookspecs.py` and `core/waagent/operations/`; change it there, then run"
    yield "`python -m waagent.hookdocs > docs/hooks.md`."
    yield ""
    yield from _prose(hookspecs.__doc__ or "")
    found = entries(hookspecs)
    for kind, title, line in _SECTIONS:
        yield f"## {title}"
        yield ""
        yield line
        yield ""
        for entry in found:
            if entry.traits.kind == kind:
                yield from _section(entry)
    yield "## Distribution operations"
    yield ""
    yield from _prose(operations.__doc__ or "")
    for module in operations.GROUPS:
        yield f"### {(module.__doc__ or '').strip().rstrip('.')}"
        yield ""
        for entry in entries(module):
            yield from _section(entry)


def _section(entry: Entry) -> Iterator[str]:
    level = "####" if entry.traits.kind == OPERATION else "###"
    yield f"{level} `{entry.signature}`"
    yield ""
    yield _text(entry.summary)
    yield ""
    for name in PARTS:
        yield f"- **{name}**: {_text(entry.parts[name])}"
    yield ""
    yield "```python"
    yield from entry.example
    yield "```"
    yield ""


def _prose(docstring: str) -> Iterator[str]:
    for line in docstring.strip().split("\n")[2:]:
        yield _text(line)
    yield ""


def _text(text: str) -> str:
    """Return *text* with the marks of docstrings as Markdown's."""
    return text.replace(":class:`waagent.", "`waagent.").replace("``", "`")


def _parse(name: str, docstring: str) -> tuple[str, dict[str, str], list[str]]:
    summary, *rest = inspect.cleandoc(docstring).split("\n")  # Python 3.13 takes the indentation away itself
    if _EXAMPLE not in rest:
        raise ValueError(f"{name}: no example")
    at = rest.index(_EXAMPLE)
    parts: dict[str, str] = {}
    for line in rest[:at]:
        head, colon, text = line.partition(": ")
        if colon and head in PARTS:
            parts[head] = text.strip()
        elif line.strip():
            if not parts:
                raise ValueError(f"{name}: {line.strip()!r} belongs to no part")
            last = next(reversed(parts))
            parts[last] += " " + line.strip()
    if tuple(parts) != PARTS:
        raise ValueError(f"{name}: its parts are {', '.join(parts)} instead of {', '.join(PARTS)}")
    example = [line[4:] for line in rest[at + 2 :]]
    while example and not example[-1].strip():
        example.pop()
    return summary, parts, example


if __name__ == "__main__":
    sys.stdout.write(render())
