"""Which distribution this is, and what features ask of it (architecture §7, spec/distro.md §2, ruling 22)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from waagent.errors import NoAnswer, NotOnThisRoot, StateError
from waagent.files import read_limited

if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.hooks import Hooks
    from waagent.markers import Traits
    from waagent.paths import Paths

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_LIMIT = 1 << 16
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")

KERNELS = (("NS-BSD", "nsbsd", "freebsd"), ("FreeBSD", "freebsd", ""), ("OpenBSD", "openbsd", ""))
"""What ``uname -s`` contains, the ID, and the ID that it is like; the first row that fits (distro §2.1 step 1)."""

MARKERS = (
    # path that exists                 ID                 like              full name             over os-release
    ("/shared/vadc", "bigip", "centos rhel", "BIG-IP", True),
    ("/etc/cp-release", "gaia", "rhel", "Check Point Gaia", True),
    ("/home/guestshell/azure", "iosxe", "centos rhel", "Cisco IOSXE Linux", True),
    ("/etc/openwrt_release", "openwrt", "", "OpenWrt", False),
    ("/etc/oracle-release", "ol", "fedora rhel", "Oracle Linux", False),
    ("/etc/euleros-release", "euleros", "rhel", "EulerOS", False),
    ("/etc/UnionTech-release", "uos", "debian", "UOS", False),
    ("/etc/mariner-release", "mariner", "", "CBL-Mariner", False),
    ("/etc/photon-release", "photonos", "", "VMware Photon OS", False),
    ("/etc/alpaquita-release", "alpaquita", "alpine", "Alpaquita Linux", False),
    ("/etc/alpine-release", "alpine", "", "Alpine Linux", False),
    ("/etc/centos-release", "centos", "rhel fedora", "CentOS Linux", False),
    ("/etc/redhat-release", "rhel", "fedora", "Red Hat Enterprise Linux", False),
    ("/etc/debian_version", "debian", "", "Debian GNU/Linux", False),
)
"""Systems that a file tells: without os-release, or in spite of it (distro §2.1 steps 2, 5–14)."""

VARIANTS = {"azurecontainerlinux": "azurecontainerlinux"}
"""``VARIANT_ID`` values that are distributions of their own (distro §2.1 step 9)."""

PRODUCTS = {"BIG-IP": "bigip", "BIG-IQ": "bigiq", "iWorkflow": "iworkflow"}
"""``Product:`` in the ``/VERSION`` of F5's systems (distro §2.1 step 10)."""

LEGACY_IDS = {
    "ol": "oracle",
    "opensuse-leap": "opensuse",
    "photon": "photonos",
}
"""How ``-version`` and telemetry have always spelled an ID (distro §2.1)."""


@attrs.frozen
class DistroFacts:
    """What the system says of itself.

    Attributes:
        id: the os-release ``ID``, lower case; ``linux`` when nothing says.
        id_like: the words of ``ID_LIKE``, closest first.
        version: ``VERSION_ID``, may be empty.
        name: the name without version.
        codename: ``VERSION_CODENAME``, may be empty.
        pretty: name and version for people.
        base: the plugin under all others: ``linux``, or ``posix`` on a BSD (ruling 22).
        root: the root that was looked at.
    """

    id: str
    id_like: tuple[str, ...] = ()
    version: str = ""
    name: str = ""
    codename: str = ""
    pretty: str = ""
    base: str = "linux"
    root: str = "/"

    @property
    def words(self) -> tuple[str, ...]:
        """The distribution plugins to load, most general first: base, ``ID_LIKE`` backwards, ``ID``."""
        found: list[str] = []
        for word in (self.base, *reversed(self.id_like), self.id):
            if word in found:
                found.remove(word)  # the more special place counts
            found.append(word)
        return tuple(found)

    @property
    def legacy_id(self) -> str:
        """The ID as ``-version`` shows it."""
        return LEGACY_IDS.get(self.id, self.id)

    def level(self, name: str) -> tuple[int, bool] | None:
        """Return where the distribution plugin *name* belongs.

        Returns:
            Its level (0 is the base) and whether it is one of the ``ID.suffix`` form (ruling 21), or ``None`` when it
            is not for this distribution.
        """
        words = self.words
        if name in words:
            return words.index(name), False
        head = name
        while "." in head:
            head = head.rpartition(".")[0]
            if head in words:
                return words.index(head), True
        return None


def detect(paths: Paths, kernel: tuple[str, str] | None = None) -> DistroFacts:
    """Find out which distribution lies under the agent's root; never raises.

    Args:
        paths: the agent's places.
        kernel: name and release as ``uname`` gives them, default those of this machine.
    """
    system, release = kernel or (os.uname().sysname, os.uname().release)
    values: dict[str, str] = {}
    for path in OS_RELEASE:
        text = _read(paths.at(path))
        if text is not None:
            values = parse_os_release(text)
            break
    for mark, identity, like in KERNELS:
        if mark in system:
            pretty = values.get("PRETTY_NAME") or f"{mark} {release}"
            likes = (like,) if like else ()
            return DistroFacts(identity, likes, release.split("-")[0], mark, "", pretty, "posix", paths.root)
    facts = _from_os_release(values, paths.root)
    for path, identity, like, name, over in MARKERS:
        if (over or facts is None) and os.path.exists(paths.at(path)):
            return _from_marker(paths, path, identity, tuple(like.split()), name)
    if facts is None:
        return DistroFacts("linux", name="Linux", pretty="Linux", root=paths.root)
    if os.path.exists(paths.at("/etc/oracle-release")):  # distro §2.1 step 5
        return attrs.evolve(facts, codename="oracle", pretty="Oracle Linux")
    return facts


def parse_os_release(text: str) -> dict[str, str]:
    """Return the assignments in an os-release file; lines that are none are passed over."""
    found = {}
    for line in text.split("\n"):
        key, equals, value = line.strip().partition("=")
        if equals and key.replace("_", "").isalnum() and not key[0].isdigit():
            found[key] = _unquoted(value)
    return found


class Distro:
    """The distribution as features use it: its facts, and every operation of ``waagent.operations`` as a method.

    ``agent.distro.set_hostname("web1")`` takes the operation's arguments without ``agent``, by position or by name.

    Args:
        facts: what the system says of itself.
        hooks: who answers.
        agent: what implementations are handed; give it later with :meth:`bind` when it does not exist yet.
    """

    def __init__(self, facts: DistroFacts, hooks: Hooks, agent: Agent | None = None) -> None:
        self.facts = facts
        self._hooks = hooks
        self._agent = agent

    def bind(self, agent: Agent) -> None:
        """Set what implementations are handed."""
        self._agent = agent

    @property
    def id(self) -> str:
        """The os-release ID."""
        return self.facts.id

    @property
    def id_like(self) -> tuple[str, ...]:
        """The words of ``ID_LIKE``, closest first."""
        return self.facts.id_like

    @property
    def version(self) -> str:
        """The version, may be empty."""
        return self.facts.version

    @property
    def full_name(self) -> str:
        """Name and version for people."""
        return self.facts.pretty

    @property
    def may_change(self) -> bool:
        """Whether operations that change the machine are answered under this root at all (ruling 7)."""
        return self.facts.root == "/" or self._hooks.any_root

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # Private names too: a copy or a pickle asks for them before __init__ has run.
        traits = None if name.startswith("_") else self._hooks.operation(name)
        if traits is None:
            raise AttributeError(f"the distribution has no operation {name!r}")
        return partial(self._call, traits)

    def _call(self, traits: Traits, /, *values: Any, **named: Any) -> Any:
        """Call one operation.

        Raises:
            NoAnswer: nobody answered; names each plugin that failed.
            NotOnThisRoot: it changes the machine, and this is another root (ruling 7).
            TypeError: the arguments are not those of the operation.
        """
        arguments = bind_arguments(traits, values, named)
        if "agent" in traits.arguments:
            arguments["agent"] = self._agent
        if not traits.changing or self.facts.root == "/":
            return self._hooks.call_operation(traits.name, arguments)
        try:
            return self._hooks.call_operation(traits.name, arguments, any_root_only=True)
        except NoAnswer as problem:
            if problem.plugin:
                raise
            raise NotOnThisRoot(
                f"{traits.name} changes the machine and is not done under the root {self.facts.root}"
            ) from None


def bind_arguments(traits: Traits, values: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name, ``agent`` apart.

    Raises:
        TypeError: one is missing, unknown, given twice, or there are too many.
    """
    wanted = [name for name in traits.arguments if name != "agent"]
    if len(values) > len(wanted):
        raise TypeError(f"{traits.name}({', '.join(wanted)}) was given {len(values)} arguments")
    given = dict(zip(wanted, values))
    for name, value in named.items():
        if name in given or name not in wanted:
            reason = "was given twice" if name in given else "is unknown"
            raise TypeError(f"{traits.name}({', '.join(wanted)}): argument {name!r} {reason}")
        given[name] = value
    for name in wanted:
        if name not in given:
            if name not in traits.defaults:
                raise TypeError(f"{traits.name}({', '.join(wanted)}): argument {name!r} is missing")
            given[name] = traits.defaults[name]
    return given


def _from_os_release(values: dict[str, str], root: str) -> DistroFacts | None:
    identity = _word(values.get("ID", ""))
    if not identity:
        return None
    likes = tuple(dict.fromkeys(filter(None, map(_word, values.get("ID_LIKE", "").split()))))
    variant = VARIANTS.get(values.get("VARIANT_ID", ""))
    if variant is not None and variant != identity:
        likes = (identity, *likes)
        identity = variant
    name = values.get("NAME", identity)
    return DistroFacts(
        identity,
        tuple(like for like in likes if like != identity),
        values.get("VERSION_ID", ""),
        name,
        values.get("VERSION_CODENAME", ""),
        values.get("PRETTY_NAME") or name,
        root=root,
    )


def _from_marker(paths: Paths, path: str, identity: str, likes: tuple[str, ...], name: str) -> DistroFacts:
    version = codename = ""
    text = _read(paths.at(path)) or ""
    if identity == "bigip":
        values = _colons(_read(paths.at("/VERSION")) or "")
        version = values.get("Version", "")
        name = values.get("Product", name)
        identity = PRODUCTS.get(name, identity)
    elif identity == "gaia":
        values = _colons(_read(paths.at("/etc/cloud-version")) or "")
        version = ".".join(filter(None, (values.get("take"), values.get("build"))))
        codename = values.get("release", "")
    elif identity == "iosxe":
        version, codename = "csr1000v", "csr1000v"  # what the platform has always been told (distro §2.1 step 12)
    elif identity == "openwrt":
        version = parse_os_release(text).get("DISTRIB_RELEASE", "")
    else:
        version = next((word for word in text.split() if word[:1].isdigit()), "")
    return DistroFacts(identity, likes, version, name, codename, f"{name} {version}".strip(), root=paths.root)


def _read(path: str) -> str | None:
    try:
        return read_limited(path, _LIMIT).decode("utf-8", "replace")
    except (OSError, StateError):
        return None


def _word(text: str) -> str:
    """Return an ID in lower case, or an empty text when it holds what no ID may hold: it becomes part of names."""
    word = text.strip().lower()
    return word if word and set(word) <= _WORD else ""


def _unquoted(text: str) -> str:
    """Return what a shell would make of *text*, which is one word, perhaps quoted."""
    text = text.strip()
    if text[:1] == "'":
        return text[1:].partition("'")[0]
    quoted = text[:1] == '"'
    found = []
    letters = iter(text[1:] if quoted else text)
    for letter in letters:
        if letter == "\\":
            found.append(next(letters, ""))
        elif (quoted and letter == '"') or (not quoted and letter.isspace()):
            break
        else:
            found.append(letter)
    return "".join(found)


def _colons(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.split("\n"))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
