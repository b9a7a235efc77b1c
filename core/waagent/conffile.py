"""The raw parser of waagent.conf and its drop-ins (spec/configuration.md §1, §2). Standard library alone.

The supervisor reads its few values here; :mod:`waagent.config` puts types, defaults and advice on top. Nothing in a
file raises: what cannot be used becomes a line in ``problems``, because an agent that does not start cannot be repaired
from outside the machine.
"""

from __future__ import annotations

import os

from waagent.errors import ConfigError, StateError
from waagent.files import read_limited

SIZE_LIMIT = 1 << 20
"""Bytes; a larger file is no configuration and is left out whole."""

VENDOR_DIR = "/usr/lib/waagent/conf.d"

PLACES = (
    ("/etc/waagent.conf", "/etc/waagent.conf.d"),
    ("/usr/local/etc/waagent.conf", "/usr/local/etc/waagent.conf.d"),  # FreeBSD
    ("/usr/share/oem/waagent.conf", "/etc/waagent.conf.d"),  # CoreOS, Flatcar before 3550
    ("/usr/share/defaults/waagent/waagent.conf", "/etc/waagent.conf.d"),  # Clear Linux
)
"""Main file and drop-in directory by distribution (configuration §1); the first row that exists is taken."""

VENDOR, FILE, DROP_IN = "vendor", "file", "drop-in"
"""The layers of the chain, each overriding the one before, key by key (architecture §10)."""

PATH_KEYS = ("Lib.Dir", "Logs.File", "Extension.LogDir", "Pid.File")
"""The keys that :class:`waagent.paths.Paths` is made of; anything but an absolute path is refused for them."""

ABSENT = "None"
_BOM = b"\xef\xbb\xbf"


class Setting:
    """One ``key = value`` line.

    Attributes:
        key: the text before the first ``=``, stripped; may be empty.
        value: the value after comment and quotes are taken off, as text; ``None`` (the word) means absent.
        file: the file it stands in, as opened.
        line: its line number, from 1.
        layer: :data:`VENDOR`, :data:`FILE` or :data:`DROP_IN`.
    """

    __slots__ = ("file", "key", "layer", "line", "value")

    def __init__(self, key: str, value: str, file: str = "", line: int = 0, layer: str = FILE) -> None:
        self.key = key
        self.value = value
        self.file = file
        self.line = line
        self.layer = layer

    def __repr__(self) -> str:
        return f"Setting({self.key!r}, {self.value!r}, {self.file!r}, {self.line}, {self.layer!r})"

    @property
    def given(self) -> str | None:
        """The value, or ``None`` when the line says ``None``: "use the code's default" for every type."""
        return None if self.value == ABSENT else self.value


class RawConfig:
    """What the files say, uninterpreted.

    Attributes:
        settings: per key the setting that counts: the last one.
        lines: every setting in order of reading, overridden ones too.
        files: the files that were read, in order.
        problems: what could not be used, one line each, starting with the file's name.
    """

    __slots__ = ("files", "lines", "problems", "settings")

    def __init__(self) -> None:
        self.settings: dict[str, Setting] = {}
        self.lines: list[Setting] = []
        self.files: list[str] = []
        self.problems: list[str] = []

    def get(self, key: str) -> str | None:
        """Return the text of *key*, or ``None`` when it is absent or set to ``None``."""
        setting = self.settings.get(key)
        return None if setting is None else setting.given


def parse_line(line: str) -> tuple[str, str] | None:
    """Return key and value of one line, or ``None`` for a comment or a line without ``=`` (configuration §2).

    The value ends at the first ``#``, as the agents in the field have it (ruling 49); double quotes and blanks come off
    both ends, single quotes stay.
    """
    line = line.rstrip("\r")
    if line.startswith("#"):
        return None
    key, equals, rest = line.partition("=")
    if not equals:
        return None
    return key.strip(), rest.split("#", 1)[0].strip('" ').strip()


def parse_text(text: str, file: str = "", layer: str = FILE) -> list[Setting]:
    """Return the settings in *text*, in order; any text is accepted."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        pair = parse_line(line)
        if pair is not None:
            found.append(Setting(pair[0], pair[1], file, number, layer))
    return found


def read_file(raw: RawConfig, file: str, layer: str = FILE) -> bool:
    """Add *file* to *raw*; what is wrong with it becomes a problem line.

    Returns:
        ``False`` only when the file does not exist.
    """
    try:
        data = read_limited(file, SIZE_LIMIT)
    except FileNotFoundError:
        return False
    except StateError as problem:
        raw.problems.append(f"{problem}; the file is left out")
        return True
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raw.problems.append(f"{file}: cannot be read ({reason}); the file is left out")
        return True
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
        raw.problems.append(f"{file}:1: begins with a byte order mark, which is passed over; save it as plain UTF-8")
    if b"\0" in data:
        raw.problems.append(f"{file}: holds NUL bytes, so it is no text; the file is left out")
        return True
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        number = data.count(b"\n", 0, problem.start) + 1
        raw.problems.append(f"{file}:{number}: is not UTF-8; bytes that are not are read as backslash escapes")
        text = data.decode("utf-8", "backslashreplace")
    if not data:
        raw.problems.append(f"{file}: is empty")
    settings = parse_text(text, file, layer)
    raw.files.append(file)
    raw.lines += settings
    for setting in settings:
        raw.settings[setting.key] = setting
    return True


def place(root: str = "/") -> tuple[str, str]:
    """Return main file and drop-in directory under *root*: the first row of :data:`PLACES` that exists."""
    rows = [(_under(root, main), _under(root, drop_ins)) for main, drop_ins in PLACES]
    for main, drop_ins in rows:
        if os.path.lexists(main):
            return main, drop_ins
    for main, drop_ins in rows:
        if os.path.isdir(drop_ins):
            return main, drop_ins
    return rows[0]


def read_chain(root: str = "/", path: str | None = None) -> RawConfig:
    """Read the whole chain: vendor files, the main file, drop-ins; later ones win key by key (architecture §10).

    Args:
        root: every default place lies under it (ruling 7).
        path: a file named on the command line, taken as it stands: it replaces the chain.

    Raises:
        ConfigError: *path* does not exist (ruling 9). Nothing else stops the agent.
    """
    raw = RawConfig()
    if path is not None:
        named = os.path.abspath(path)
        if not read_file(raw, named):
            raise ConfigError(f"{path}: the configuration file named on the command line does not exist")
        return raw
    _read_directory(raw, _under(root, VENDOR_DIR), VENDOR)
    main, drop_ins = place(root)
    if not read_file(raw, main):
        raw.problems.append(f"{main}: does not exist; built-in and vendor values are used")
    _read_directory(raw, drop_ins, DROP_IN)
    return raw


def values_for_paths(raw: RawConfig) -> dict[str, str]:
    """Return the settings that :class:`waagent.paths.Paths` takes; relative ones are left to the default."""
    found = {}
    for key in PATH_KEYS:
        value = raw.get(key)
        if value and value.startswith("/"):
            found[key] = value
    return found


def _read_directory(raw: RawConfig, directory: str, layer: str) -> None:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    except OSError as problem:
        raw.problems.append(f"{directory}: cannot be listed ({problem.strerror}); its files are left out")
        return
    for name in sorted(names):
        if name.endswith(".conf") and not name.startswith("."):
            file = os.path.join(directory, name)
            if not read_file(raw, file, layer):
                raw.problems.append(f"{file}: leads nowhere")


def _under(root: str, path: str) -> str:
    return os.path.join(os.path.abspath(root), path.lstrip("/"))
