"""Kill a start at every change that it makes to the disk, and let another start go on; see test_flow_kill.py.

Prints one JSON line per point: what the owner finds in the end. Arguments: a scratch directory, the distance between
two points, and the first point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.unit.provisioning.bench import KEY, Bench, document

CHANGES = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.posix_spawn", "os.chmod"})
PASSWORD = "a password that is nowhere"
SCRIPT = "#!/bin/sh\necho run >>ran\n"


class Killer:
    """Counts changes in this process and ends it before the one that is its turn."""

    def __init__(self) -> None:
        self.left = -1

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.left < 0 or event not in CHANGES:
            return
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def machine(root: Path) -> Bench:
    import base64

    fresh = not root.exists()
    bench = Bench(root, "Provisioning.ExecuteCustomData=y\nProvisioning.DeleteRootPassword=y\n")
    if fresh:
        key = (
            f"<wa:PublicKey><wa:Path>$HOME/ops/.ssh/authorized_keys</wa:Path><wa:Value>{KEY}</wa:Value></wa:PublicKey>"
        )
        bench.insert(
            document(
                inside=f"<wa:UserPassword>{PASSWORD}</wa:UserPassword><wa:SSH><wa:PublicKeys>{key}</wa:PublicKeys></wa:SSH>"
                f"<wa:CustomData>{base64.b64encode(SCRIPT.encode()).decode()}</wa:CustomData>"
            )
        )
    return bench


def start(root: Path, killer: Killer, kill_at: int) -> bool:
    """Run one start in a process of its own; return whether it lived."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            bench = machine(root)
            bench.listener.record = root / "said"
            killer.left = kill_at
            results = bench.boot()
            killer.left = -1
            code = 0 if all(result.ok for result in results) else 3
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a start failed: {(root / 'var/log/waagent.log').read_text()}")
    return os.WIFEXITED(status)


def found(root: Path) -> dict[str, object]:
    """Return what the owner and the platform see in the end."""
    lib = root / "var/lib/waagent"
    ran = (lib / "ran").read_text().count("run") if (lib / "ran").exists() else 0
    leaks = [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and "dev" not in path.relative_to(root).parts[:1] and PASSWORD.encode() in path.read_bytes()
    ]
    return {
        "users": (root / "etc/passwd").read_text().count("\n"),
        "sudo": (root / "etc/sudoers.d/waagent").read_text(),
        "keys": (root / "home/ops/.ssh/authorized_keys").read_text(),
        "shadow": len((root / "etc/shadow").read_text().splitlines()),
        "marker": (lib / "provisioned").read_text(),
        "published": (lib / "published_hostname").read_text(),
        "medium": (root / "dev/sr0").exists(),
        "ran": ran,
        "leaks": leaks,
        "fingerprints": fingerprints(root),
        "last word": (root / "said").read_text().splitlines()[-1],
        "left": sorted(path.name for path in lib.iterdir() if path.name.endswith(".tmp")),
    }


def fingerprints(root: Path) -> list[bool]:
    """Return for each fingerprint that the platform heard whether it is that of the host key."""
    from waagent_provisioning import hostkey

    told = root / "said-fingerprint"
    present = hostkey.fingerprint(str(root / "etc/ssh/ssh_host_rsa_key.pub")).replace(":", "")
    return [line == present for line in told.read_text().split()] if told.exists() else []


def main() -> None:
    scratch, step, point = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    killer = Killer()
    sys.addaudithook(killer)
    while True:
        root = scratch / "root"
        shutil.rmtree(root, ignore_errors=True)
        lived = start(root, killer, point)
        if not lived:
            start(root, killer, -1)
            start(root, killer, -1)  # and once more: nothing is done again
        result = found(root)
        shutil.rmtree(root)
        print(json.dumps({"point": point, "killed": not lived, **result}), flush=True)
        if lived:
            return
        point += step


if __name__ == "__main__":
    main()
