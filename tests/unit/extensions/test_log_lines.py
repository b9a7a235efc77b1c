"""The lines that operators' runbooks grep for, word for word (extensions §20)."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

from tests.unit.extensions.fakes import Bench, wanted

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
    assert not [line for line in lines if "extension Microsoft" in line], "one line for one thing"


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


def test_lines_about_commands_goal_states_and_removals(bench: Bench) -> None:
    bench.publish("Contoso.Sample", "1.0")
    bench.apply(wanted("Contoso.Sample", "1.0"))
    bench.apply(wanted("Contoso.Sample", "1.0", "uninstall"))
    log, base = bench.log(), bench.handler_dir("Contoso.Sample", "1.0")
    prefix = "INFO [Contoso.Sample-1.0] "
    for line in (
        f'{prefix}Executing command: {base}/bin/run install with environment variables: {{"AZURE_GUEST_AGENT_',
        f"{prefix}Uninstall extension.\n",
        f"{prefix}Launch command:bin/run uninstall\n",
        "INFO Event: name=Contoso.Sample, op=UnInstall, message=Launch command succeeded: bin/run uninstall",
        f"{prefix}Remove extension handler directory: {base}\n",
        "ProcessExtensionsGoalState started [incarnation_1 channel: WireServer source: Fabric activity: ",
    ):
        assert line in log
    assert re.search(r"ProcessExtensionsGoalState completed \[incarnation_1 \d+ ms\]", log)


def test_settings_never_stand_in_the_log(bench: Bench) -> None:
    bench.publish("Contoso.Sample", "1.0", {"enable": "exit 1"})
    bench.apply(wanted("Contoso.Sample", "1.0", protected="c2VjcmV0IG9mIGEgdGVzdA=="))
    assert "c2VjcmV0" not in bench.log()
    assert '"k"' not in bench.log()
