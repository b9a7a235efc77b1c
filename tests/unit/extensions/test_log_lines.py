"""The lines that operators' runbooks grep for, word for word (extensions §20)."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.unit.extensions.fakes import Bench, multi, wanted

NAME = "Microsoft.OSTCExtensions.LinuxDiagnostic"
DOCUMENTED = """\
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Expected handler state: enabled
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Decide which version to use
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Use version: 2.3.9027
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Current handler state is: NotInstalled
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Download extension package
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Unpack extension package
INFO Event: name=Microsoft.OSTCExtensions.LinuxDiagnostic, op=Download, message=Download succeeded
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Initialize extension directory
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Update settings file: 0.settings
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9025] Disable extension.
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9025] Launch command:diagnostic.py -disable
INFO Event: name=Microsoft.OSTCExtensions.LinuxDiagnostic, op=Disable, message=Launch command succeeded: \
diagnostic.py -disable
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Update extension.
INFO [Microsoft.OSTCExtensions.LinuxDiagnostic-2.3.9027] Launch command:diagnostic.py -update
2017/08/14 20:21:57 LinuxAzureDiagnostic started to handle.
"""


def diagnostic(log_file: str, *, writes: bool) -> bytes:
    """Return a package as the documented one: one script for everything, that writes into the agent's log itself."""
    line = "2017/08/14 20:21:57 LinuxAzureDiagnostic started to handle."
    script = "#!/bin/sh\n" + (f'[ "$1" != -update ] || echo "{line}" >>{log_file}\n' if writes else "")
    operations = ("install", "uninstall", "update", "enable", "disable")
    manifest = [{"handlerManifest": {f"{word}Command": f"diagnostic.py -{word}" for word in operations}}]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("HandlerManifest.json", json.dumps(manifest))
        archive.writestr("diagnostic.py", script)
    return data.getvalue()


def upgraded(bench: Bench) -> list[str]:
    """Return the log's lines of the documented upgrade, without their times."""
    log_file = bench.agent.paths.log_file
    packages = bench.platform.packages.setdefault(NAME, {})
    packages["2.3.9025"] = diagnostic(log_file, writes=False)
    bench.apply(wanted(NAME, "2.3.9025"))
    before = len(bench.log())
    packages["2.3.9027"] = diagnostic(log_file, writes=True)
    bench.apply(wanted(NAME, "2.3.9027"))
    return [re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ", "", line) for line in bench.log()[before:].splitlines()]


def assert_in_order(documented: list[str], lines: list[str]) -> None:
    """Each documented line begins one of *lines*, in this order."""
    position = 0
    for wanted_line in documented:
        found = [at for at in range(position, len(lines)) if lines[at].startswith(wanted_line)]
        assert found, f"{wanted_line!r} is missing after {lines[position - 1] if position else 'the beginning'!r}"
        position = found[0] + 1


def test_the_documented_upgrade_is_logged_line_by_line(bench: Bench) -> None:
    lines = upgraded(bench)
    assert_in_order(DOCUMENTED.splitlines(), lines)


def test_the_documents_themselves_hold_no_line_that_is_missing(bench: Bench, seeds: Path) -> None:
    documented = [
        line.strip()
        for path in sorted(seeds.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"INFO (\[|Event: )|\d{4}/\d\d/\d\d \S+ LinuxAzureDiagnostic", line)
    ]
    assert len(documented) >= 15
    assert_in_order(documented, upgraded(bench))


def test_a_failure_is_an_error_line_with_the_operations_word(bench: Bench) -> None:
    bench.publish("Contoso.Sample", "1.0", {"install": "echo no room >&2; exit 5"})
    bench.apply(wanted("Contoso.Sample", "1.0"))
    assert (
        "ERROR Event: name=Contoso.Sample, op=Install, message=[ExtensionOperationError] Non-zero exit code: 5, "
        in bench.log()
    )


STORY = r"""
started: INFO \S+ ExtHandler ProcessExtensionsGoalState started \[incarnation_1 channel: WireServer source: Fabric \
activity: a-1 correlation c-1 created: 2026-01-02T03:04:05Z\]
started: INFO \[S-1\.0\] Expected handler state: enabled
started: INFO \[S-1\.0\] Target handler state: enabled \[incarnation_1\]
started: INFO \[S-1\.0\] Decide which version to use
started: INFO \[S-1\.0\] Use version: 1\.0
started: INFO \[S-1\.0\] Current handler state is: NotInstalled
started: INFO \[S-1\.0\] \[Enable\] current handler state is: notinstalled
started: INFO \[S-1\.0\] Download extension package
started: INFO \[S-1\.0\] Downloading S
started: INFO \[S-1\.0\] Unpack extension package
started: INFO \[S-1\.0\] Unzipping S: \S+/S__1\.0\.zip\S*
started: INFO Event: name=S, op=Download, message=Download succeeded, duration=\d+
started: INFO \[S-1\.0\] Initialize extension directory
started: INFO \[S-1\.0\] Initializing extension S
started: INFO \[S-1\.0\] Update settings file: 0\.settings
started: INFO \[S-1\.0\] Install extension\.
started: INFO \[S-1\.0\] Launch command:bin/run install
started: INFO \[S-1\.0\] Install extension \[bin/run install\]
started: INFO \[S-1\.0\] Executing command: \S+/S-1\.0/bin/run install with environment variables: \{"AZURE_GUEST_.*\}
started: INFO Event: name=S, op=Install, message=Launch command succeeded: bin/run install, duration=\d+
started: INFO \[S-1\.0\] Command: \S+/S-1\.0/bin/run install
started: INFO \[S-1\.0\] Enable extension\.
started: INFO \[S-1\.0\] Launch command:bin/run enable
started: INFO \[S-1\.0\] Enable extension: \[bin/run enable\]
started: INFO Event: name=S, op=Enable, message=Launch command succeeded: bin/run enable, duration=\d+
started: INFO \S+ ExtHandler ProcessExtensionsGoalState completed \[incarnation_1 \d+ ms\]
started: INFO \S+ ExtHandler Extension status: \[\('S', 'success'\)\]
started: INFO \S+ ExtHandler All extensions in the goal state have reached a terminal state: \[\('S', 'success'\)\]
updated: INFO \[S-1\.0\] Disable extension\.
updated: INFO \[S-1\.0\] Launch command:bin/run disable
updated: INFO \[S-1\.0\] Disable extension: \[bin/run disable\]
updated: INFO Event: name=S, op=Disable, message=Launch command succeeded: bin/run disable, duration=\d+
updated: INFO \[S-2\.0\] Update extension\.
updated: INFO \[S-2\.0\] Launch command:bin/run update
updated: INFO \[S-2\.0\] Update extension \[bin/run update\]
updated: INFO Event: name=S, op=Update, message=Launch command succeeded: bin/run update, duration=\d+
updated: INFO \[S-1\.0\] Uninstall extension\.
updated: INFO \[S-1\.0\] Launch command:bin/run uninstall
updated: INFO \[S-1\.0\] Uninstall extension \[bin/run uninstall\]
updated: INFO Event: name=S, op=UnInstall, message=Launch command succeeded: bin/run uninstall, duration=\d+
updated: INFO \[S-1\.0\] Remove extension handler directory: \S+/S-1\.0
removed: INFO \[S-2\.0\] Expected handler state: uninstall
removed: INFO \[S-2\.0\] \[Uninstall\] current handler state is: enabled
removed: INFO \[S-2\.0\] Remove extension handler directory: \S+/S-2\.0
several: INFO \[M\.jobA-1\.0\] Requested extension state: enabled
several: INFO \[M\.jobA-1\.0\] Downloading M\.jobA
several: INFO \[M\.jobA-1\.0\] Update settings file: jobA\.4\.settings
several: INFO Event: name=M\.jobA, op=Enable, message=Launch command succeeded: bin/run enable, duration=\d+
several: INFO \S+ ExtHandler Extension status: \[\('M\.jobA', 'success'\)\]
failing: INFO \[F-1\.0\] Enable extension: \[bin/run enable\]
failing: ERROR Event: name=F, op=Enable, message=\[ExtensionOperationError\] Non-zero exit code: 4, \
\S+/F-1\.0/bin/run enable
""".replace("\\\n", "").strip()


@pytest.mark.parametrize("moment", ["started", "updated", "removed", "several", "failing"])
def test_every_line_of_the_table_in_both_wordings(bench: Bench, moment: str) -> None:
    for version in ("1.0", "2.0"):
        bench.publish("S", version)
    bench.publish("M", "1.0", supportsMultipleExtensions=True)
    bench.publish("F", "1.0", {"enable": "exit 4"})
    work = {
        "started": (wanted("S", "1.0"),),
        "updated": (wanted("S", "2.0"),),
        "removed": (wanted("S", "2.0", "uninstall"),),
        "several": (multi("M", "1.0", ("jobA", 4, "enabled")),),
        "failing": (wanted("F", "1.0"),),
    }
    lines: list[str] = []
    bench.agent.log.info("the log begins")
    for one, handlers in work.items():
        before = len(bench.log())
        goal = bench.goal(*handlers, activity_id="a-1", correlation_id="c-1", created="2026-01-02T03:04:05Z")
        bench.process(goal)
        bench.convergence.look(goal, bench.reporter.build().handlers, True)
        lines = [re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ", "", line) for line in bench.log()[before:].splitlines()]
        if one == moment:
            break
    position = 0
    for expected in (line.partition(": ")[2] for line in STORY.splitlines() if line.startswith(moment)):
        found = [at for at in range(position, len(lines)) if re.fullmatch(expected, lines[at])]
        assert found, f"{expected!r} is missing after {lines[position - 1]!r} in\n" + "\n".join(lines)
        position = found[0] + 1


def test_settings_never_stand_in_the_log(bench: Bench) -> None:
    bench.publish("Contoso.Sample", "1.0", {"enable": "exit 1"})
    bench.apply(wanted("Contoso.Sample", "1.0", protected="c2VjcmV0IG9mIGEgdGVzdA=="))
    assert "c2VjcmV0" not in bench.log()
    assert '"k"' not in bench.log()
