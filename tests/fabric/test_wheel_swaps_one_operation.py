"""A packager's wheel swaps one operation on Debian and nothing else; pip puts it in and takes it out."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "publish_hostname"
OS_RELEASE = {"debian": 'ID=debian\nVERSION_ID="12"\n', "fedora": 'ID=fedora\nVERSION_ID="42"\n'}
WHO_ANSWERS = """
import json, sys
from waagent.agent import make_agent
agent = make_agent("cli", sys.argv[1])
names = ("publish_hostname", "set_hostname", "restart_ssh", "create_user")
print(json.dumps({name: [found.plugin for found in agent.hooks.implementations(name)] for name in names}))
"""


def run(python: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([python, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def root_of(folder: Path, distribution: str) -> str:
    root = folder / distribution
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text(OS_RELEASE[distribution])
    (root / "etc/waagent.conf").write_text("Plugins.RequireTrustedFiles=n\n")
    return str(root)


@pytest.mark.fabric
def test_one_operation_is_swapped_and_given_back(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="building the example needs hatchling")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # The agent and what builds wheels are taken from the environment that runs this test.
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    site.joinpath("agent.pth").write_text("".join(f"import site; site.addsitedir({place!r})\n" for place in places))
    debian, fedora = root_of(tmp_path, "debian"), root_of(tmp_path, "fedora")

    def answers(root: str) -> dict[str, list[str]]:
        return json.loads(run(python, "-c", WHO_ANSWERS, root))

    before = answers(debian)
    assert "debian.acme" not in str(before)
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", str(EXAMPLE))
    after = answers(debian)
    assert after.pop("publish_hostname") == ["debian.acme", *before["publish_hostname"]]
    assert after == {name: plugins for name, plugins in before.items() if name != "publish_hostname"}
    assert "debian.acme" not in str(answers(fedora)), "another distribution is not touched"
    why = run(python, "-m", "waagent", "--root", debian, "plugins", "why", "debian.acme")
    assert "debian.acme is on: installed, and nothing says no" in why
    assert "It comes with acme-publish-hostname 1.0." in why
    order = ", then ".join(["debian.acme", *before["publish_hostname"]])
    assert f"publish_hostname is asked of: {order}." in why
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "acme-publish-hostname")
    assert answers(debian) == before
