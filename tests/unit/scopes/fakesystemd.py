"""``systemd-run`` and ``systemctl`` as real processes that behave as the real ones do, failing in their ways too.

What they are asked, and what systemd would know afterwards, lies in files; ``mode`` says how they fail. The rules are
those of systemd 252: a scope is joined by the calling process, which becomes the command; a service is started by
process 1 with its own environment, ``/`` as its directory, no descriptors of the caller's, and ``$`` expanded.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

RUN = r"""
import json, os, re, signal, subprocess, sys, time
state = %(state)r
def note(**what):
    with open(os.path.join(state, "calls"), "a") as stream:
        stream.write(json.dumps(what) + "\n")
def fail(text, code=1):
    sys.stderr.write(text + "\n")
    sys.exit(code)
options, words = {}, sys.argv[1:]
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    if name == "property":
        options.setdefault("property", []).append(value)
    elif name in ("unit", "slice", "scope", "quiet", "wait", "collect", "service-type"):
        options[name] = value or True
    else:
        fail("systemd-run: unrecognized option '--%%s'" %% name)
note(tool="systemd-run", options=options, environment_has_secret="SECRET" in " ".join(sys.argv))
mode = open(os.path.join(state, "mode")).read().strip()
unit = options.get("unit", "run-u1") + (".scope" if "scope" in options else ".service")
if mode == "refused":
    fail("Failed to start transient scope unit: Connection timed out")
if mode == "no-bus":
    fail("Failed to connect to bus: No such file or directory")
if mode == "not-found":
    fail("Unit %%s not found." %% unit)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "hangs":
    time.sleep(600)
if not words:
    fail("Command line to execute required.")
if "scope" in options:
    if "quiet" not in options:
        sys.stderr.write("Running scope as unit: %%s\n" %% unit)
        sys.stderr.flush()
    os.environ["INVOCATION_ID"] = "0" * 32
    os.execvp(words[0], words)
def expanded(word):
    # What process 1 does to each word of a command line.
    return re.sub(r"\$\$|\$\{(\w+)\}", lambda m: "$" if m.group(0) == "$$" else "", word)
command = [expanded(word) for word in words if not re.fullmatch(r"\$\w+", word)]
started = subprocess.Popen(
    command, cwd="/", env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "INVOCATION_ID": "1" * 32}, close_fds=True,
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
if "wait" not in options:
    sys.exit(0)
code = started.wait()
if "KillMode=process" not in options.get("property", []):
    try:
        os.killpg(started.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
sys.exit(code if code >= 0 else 255)
"""

CONTROL = r"""
import json, os, sys, time
state = %(state)r
with open(os.path.join(state, "calls"), "a") as stream:
    stream.write(json.dumps({"tool": "systemctl", "words": sys.argv[1:]}) + "\n")
mode = open(os.path.join(state, "control-mode")).read().strip()
if mode == "hangs":
    time.sleep(600)
if mode == "fails":
    sys.stderr.write("Failed to set unit properties: Unit is masked.\n")
    sys.exit(1)
path = os.path.join(state, "units.json")
known = json.load(open(path))
verb, *words = sys.argv[1:]
fresh = {"LoadState": "not-found", "CPUAccounting": "no", "MemoryAccounting": "no",
         "CPUQuotaPerSecUSec": "infinity", "DropInPaths": ""}
if verb == "show":
    found = {**fresh, **known.get(words[0], {})}
    if words[0].endswith(".slice"):
        found["LoadState"] = "loaded"
    for word in words[1:]:
        name = word.partition("=")[2]
        if mode == "newer" and name == "CPUAccounting":
            continue
        print("%%s=%%s" %% (name, found[name]))
elif verb == "set-property":
    found = known.setdefault(words[0], dict(fresh))
    if words[-1] != "--runtime":
        sys.exit("must not outlast the boot")
    for word in words[1:-1]:
        name, _, value = word.partition("=")
        if name == "CPUQuota":
            microseconds = int(float(value[:-1]) * 10000) if value else 0
            if not value:
                text = "infinity"
            elif microseconds %% 1000000 == 0:
                text = "%%ds" %% (microseconds // 1000000)
            elif microseconds < 1000000:
                text = "%%gms" %% (microseconds / 1000)
            else:
                text = "%%gs" %% (microseconds / 1000000)
            found["CPUQuotaPerSecUSec"] = text
        else:
            found[name] = value
    with open(path + ".new", "w") as stream:
        json.dump(known, stream)
    os.replace(path + ".new", path)  # the test reads it at any moment
elif verb != "daemon-reload":
    sys.stderr.write("Unknown command verb '%%s'.\n" %% verb)
    sys.exit(1)
"""


class FakeSystemd:
    """systemd under a scratch root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "fake-systemd"
        self.state.mkdir()
        (root / "run/systemd/system").mkdir(parents=True)
        tools = root / "usr/bin"
        tools.mkdir(parents=True, exist_ok=True)
        for name, text in (("systemd-run", RUN), ("systemctl", CONTROL)):
            path = tools / name
            path.write_text(f"#!{sys.executable} -ISE\n" + text % {"state": str(self.state)})
            path.chmod(0o755)
        self.mode("")
        self.control_mode("")
        self.set_units({})
        (self.state / "calls").touch()

    def mode(self, word: str) -> None:
        """Set how ``systemd-run`` fails: ``refused``, ``no-bus``, ``not-found``, ``killed``, ``hangs``, or not."""
        (self.state / "mode").write_text(word)

    def control_mode(self, word: str) -> None:
        """Set how ``systemctl`` fails: ``fails``, ``hangs``, or not; ``newer``: it is 258."""
        (self.state / "control-mode").write_text(word)

    def set_units(self, units: dict[str, dict[str, str]]) -> None:
        """Set what systemd knows of units."""
        (self.state / "units.json").write_text(json.dumps(units))

    @property
    def quotas(self) -> dict[str, str]:
        """What systemd keeps of quotas: ``CPUQuotaPerSecUSec`` by unit, those without one left out."""
        known = json.loads((self.state / "units.json").read_text())
        return {
            unit: found["CPUQuotaPerSecUSec"]
            for unit, found in known.items()
            if found.get("CPUQuotaPerSecUSec", "infinity") != "infinity"
        }

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call, in order."""
        return [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The options of each ``systemd-run``."""
        return [call["options"] for call in self.calls if call["tool"] == "systemd-run"]

    @property
    def settings(self) -> list[list[str]]:
        """The words of each ``systemctl`` that changes something."""
        return [call["words"] for call in self.calls if call["tool"] == "systemctl" and call["words"][0] != "show"]

    def forget_calls(self) -> None:
        (self.state / "calls").write_text("")


def is_alive(pid: int) -> bool:
    """Return whether a process lives and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def environment() -> dict[str, str]:
    """Return the environment of a handler's command, with values that are hard to pass on."""
    return {
        "PATH": os.environ["PATH"],
        "TOKEN": "SECRET",
        "ODD": 'it\'s "a" $HOME `date` \\n line\nnext ${PATH} $$',
        "EMPTY": "",
    }
