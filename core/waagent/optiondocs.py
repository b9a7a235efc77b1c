"""The option reference, made from the registry: ``python -m waagent.optiondocs > docs/configuration.md``.

Options and page cannot differ: a test compares them. The options of our own plugins are on it, those of third parties
are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from waagent.conffile import RawConfig
from waagent.config import Config
from waagent.distro import DistroFacts
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.plugins import PluginHost
from waagent.records import Option

_HEAD = """# Configuration

This page is made from `core/waagent/options.py` and from what the plugins declare; change it there, then run
`python -m waagent.optiondocs > docs/configuration.md`. `waagent config show --origin` prints every value on a machine
with the place it comes from, and `waagent config check` what is wrong with it.

## Where values come from

Later ones win, option by option:

1. what is built in, and what a plugin of the distribution says instead,
2. `/usr/lib/waagent/conf.d/*.conf`: the vendor's,
3. `/etc/waagent.conf` (FreeBSD: `/usr/local/etc/waagent.conf`): one file, as the Azure Linux Agent has it,
4. `/etc/waagent.conf.d/*.conf`: the administrator's, in the order of their names.

`-configuration-path:FILE` replaces 2 to 4. Every file may be missing. They are read at the start of the service and
when it is reloaded (`systemctl reload`, SIGHUP).

## What a line means

`Area.Name=value`, one per line; upper and lower case matter in names. A line that begins with `#` is a comment, and a
`#` behind a value ends it: no value can hold one. Double quotes and blanks around a value are taken off. Of two lines
for one option in a file the last one counts. `None` stands for what is built in.

| Kind | Values |
|---|---|
| switch | `y` or `n`; `yes`, `true` and `1` are none |
| number | a whole number, decimal |
| text | the rest of the line |

What cannot be used is a warning with file and line, and the option keeps its default; an unknown name is told with the
nearest known one. Nothing in a file keeps the agent from starting.
"""
_KINDS = {"bool": "switch", "int": "number", "text": "text"}


def render() -> str:
    """Return the whole page in Markdown."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    config = known()
    areas: dict[str, list[Option]] = {}
    for option in config.options.values():
        if not option.ignored:
            areas.setdefault(option.name.rpartition(".")[0], []).append(option)
    yield _HEAD
    yield "## Options"
    for area in sorted(areas, key=lambda area: (not area, area)):
        yield from ("", f"### {area or 'Others'}", "", "| Option | Kind | Default | Meaning |", "|---|---|---|---|")
        for option in areas[area]:
            yield f"| `{option.name}` | {_KINDS[option.kind]} | {_default(option)} | {_meaning(option)} |"
    yield ""
    yield "## Accepted without effect"
    yield ""
    yield "Files in the field have them; another value than the default is told at the start."
    yield ""
    yield "| Option | Why |"
    yield "|---|---|"
    for option in config.options.values():
        if option.ignored:
            yield f"| `{option.name}` | {option.ignored} |"


def known() -> Config:
    """Return a configuration without files that knows the options of the core and of our own plugins."""
    config = Config(RawConfig())
    host = PluginHost(Log(Sinks()), config, Paths("/nonexistent"), DistroFacts("linux"))
    host.discover()
    host.load()
    ours = {info.name for info in host.listing() if info.first_party}
    for plugin, option in host.hooks.declare_options():
        if plugin in ours:
            config.declare(plugin, [option])
    return config


def _default(option: Option) -> str:
    if option.default_from:
        return f"that of `{option.default_from}`"
    if isinstance(option.default, bool):
        return "y" if option.default else "n"
    return "" if option.default is None else f"`{option.default}`"


def _meaning(option: Option) -> str:
    text = option.help.replace("|", "\\|")
    if option.minimum is not None:
        text += f"; at least {option.minimum}"
    if option.aliases:
        text += "; once called " + ", ".join(f"`{alias}`" for alias in option.aliases)
    return text


if __name__ == "__main__":
    sys.stdout.write(render())
