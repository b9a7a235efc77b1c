"""A machine under an overlay: commands run in it for real, and what they change lies in a directory.

Each command gets namespaces of its own for mounts and the host name. Between commands the changes stay, as does
``/run``, which is a directory beside them.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

ENTER = """
set -e
cd "$1"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/merged"
mount --bind "$1/run" "$1/merged/run"
mount -t proc proc "$1/merged/proc"
mount -t tmpfs -o mode=755 dev "$1/merged/dev"
for device in null zero urandom; do
  touch "$1/merged/dev/$device"; mount --bind "/dev/$device" "$1/merged/dev/$device"
done
mount -t tmpfs tmp "$1/merged/tmp"
exec chroot "$1/merged" /bin/sh -c "$3"
"""
WHITEOUT = "(deleted)"


class Overlay:
    """The machine.

    Args:
        place: an empty directory on a file system of its own.
        lower: the root file system as it was before; nothing is written to it.
    """

    def __init__(self, place: Path, lower: Path) -> None:
        self.place = place
        self.lower = lower
        for name in ("upper", "work", "merged", "run"):
            (place / name).mkdir()

    def sh(self, script: str, *, check: bool = True, answer: str = "") -> subprocess.CompletedProcess[str]:
        """Run a shell script in it."""
        done = subprocess.run(
            ["unshare", "--mount", "--uts", "/bin/sh", "-c", ENTER, "sh", str(self.place), str(self.lower), script],
            input=answer, capture_output=True, text=True, timeout=120, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done

    def python(self, program: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a Python program in it."""
        target = self.place / "run" / "program.py"
        target.write_text(program)
        done = self.sh("exec python3 /run/program.py", check=check)
        target.unlink()
        return done

    def waagent(self, words: str, *, check: bool = True, before: str = "") -> subprocess.CompletedProcess[str]:
        return self.sh(f"{before}\nexec waagent {words}", check=check)

    def keep(self, place: Path) -> None:
        """Put a copy of the changes, and of ``/run``, into *place*."""
        for name in ("upper", "run"):
            shutil.rmtree(place / name, ignore_errors=True)
            subprocess.run(["cp", "-a", str(self.place / name), str(place / name)], check=True)

    def restore(self, place: Path) -> None:
        """Go back to what :meth:`keep` kept in *place*."""
        shutil.rmtree(self.place / "work")
        (self.place / "work").mkdir()
        for name in ("upper", "run"):
            shutil.rmtree(self.place / name)
            subprocess.run(["cp", "-a", str(place / name), str(self.place / name)], check=True)

    def changes(self) -> dict[str, str]:
        """Return what differs from the root below, byte by byte: path to content (latin-1), or what became of it."""
        upper = self.place / "upper"
        found = {}
        for folder, directories, files in os.walk(upper):
            for name in (*directories, *files):
                path = Path(folder, name)
                inner = "/" + str(path.relative_to(upper))
                below = self.lower / inner.lstrip("/")
                kind = self._change(path, below)
                if kind is not None:
                    found[inner] = kind
                if is_opaque(path) and below.is_dir():
                    gone = {one.name for one in below.iterdir()} - {one.name for one in path.iterdir()}
                    found.update({f"{inner}/{one}": WHITEOUT for one in gone})
        return found

    @staticmethod
    def _change(path: Path, below: Path) -> str | None:
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return WHITEOUT
        before = below.lstat() if os.path.lexists(below) else None
        same = before is not None and all(
            getattr(before, one) == getattr(status, one) for one in ("st_mode", "st_uid", "st_gid")
        )
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            return None if same and os.readlink(below) == target else f"-> {target}"
        if stat.S_ISDIR(status.st_mode):
            return None if same else "directory"
        if not stat.S_ISREG(status.st_mode):
            return "special file"
        content = path.read_bytes()
        return None if same and below.read_bytes() == content else content.decode("latin-1")


def is_opaque(path: Path) -> bool:
    """Return whether a directory hides the one below it: it was removed and made again."""
    try:
        return path.is_dir() and os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
