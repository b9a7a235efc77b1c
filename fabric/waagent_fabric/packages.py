"""Handler packages for tests: zips from files, and a shell handler that does as told and writes down its calls."""

from __future__ import annotations

import io
import json
import os
import shlex
import zipfile
from collections.abc import Mapping
from typing import Any

import attrs

OPERATIONS = ("install", "enable", "disable", "update", "uninstall")
SCRIPT = "bin/handler.sh"
VARIABLES = (
    "AZURE_GUEST_AGENT_EXTENSION_PATH",
    "AZURE_GUEST_AGENT_EXTENSION_VERSION",
    "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS",
    "ConfigSequenceNumber",
    "ConfigExtensionName",
    "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES",
    "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS",
    "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION",
    "VERSION",
    "PATH",
)

# Built-ins of the shell wherever they do: the handler is also the yardstick of the benchmarks.
_SCRIPT = r"""#!/bin/sh
# A sample handler: writes down each call, does what it was made to do, reports a status.
op=$1
own_version=@VERSION@
finishing=
[ "$op" = --finish ] && finishing=$2 && op=enable
environment=
while read -r line || [ -n "$line" ]; do environment="$environment$line"; done <HandlerEnvironment.json
folder() {
    folder=${environment#*\"$1\"}
    folder=${folder#*\"}
    folder=${folder%%\"*}
}
folder logFolder; logs=$folder
folder configFolder; config=$folder
folder statusFolder; statuses=$folder
folder heartbeatFile; heartbeat_file=$folder
[ -d "$logs" ] || mkdir -p "$logs"

[ -n "$finishing" ] || {
    printf 'call=%s\tpid=%s\town_version=%s\tcwd=%s' "$op" "$$" "$own_version" "$PWD"
    @VARIABLES@
    printf '\n'
} >>"$logs/calls.log"
[ -n "$finishing" ] || export -p >"$logs/environment.$op.$own_version"

sequence=${ConfigSequenceNumber-0}
prefix=
[ -n "${ConfigExtensionName-}" ] && prefix=$ConfigExtensionName.
settings=
if [ -s "$config/$prefix$sequence.settings" ]; then
    while read -r line || [ -n "$line" ]; do settings="$settings$line"; done <"$config/$prefix$sequence.settings"
fi
setting() {  # of the public settings: a number or a plain text
    value=$2
    case $settings in *\"$1\":*)
        value=${settings#*\"$1\":}
        value=${value%%[,\}]*}
        value=${value# }
        value=${value#\"}
        value=${value%\"}
    esac
}
open_protected() {  # prints the protected settings, opened as real handlers do (extensions §7)
    setting protectedSettingsCertThumbprint ''
    pair=$config/../../$value
    setting protectedSettings ''
    echo "$value" | base64 -d | openssl cms -inform DER -decrypt -recip "$pair.crt" -inkey "$pair.prv"
}
write_status() {  # status code message
    file=$statuses/$prefix$sequence.status
    printf '[{"version":"1.0","timestampUTC":"2026-01-02T03:04:05Z","status":{"name":"%s","operation":"%s",' \
        "${ConfigExtensionName:-@NAME@}" "$op" >"$file.$$"
    printf '"status":"%s","code":%s,"formattedMessage":{"lang":"en-US","message":"%s"}@SUBSTATUS@}}]\n' \
        "$1" "$2" "$3" >>"$file.$$"
    mv "$file.$$" "$file"
}
write_heartbeat() {
    printf '[{"version":"1.0","heartbeat":{"status":"%s","code":"0","formattedMessage":{"lang":"en-US",' "$1" \
        >"$heartbeat_file.$$"
    printf '"message":"alive"}}}]\n' >>"$heartbeat_file.$$"
    mv "$heartbeat_file.$$" "$heartbeat_file"
}
finish() {
    printf 'end=%s\tpid=%s\tcode=%s\n' "$op" "$$" "$1" >>"$logs/calls.log"
}
if [ -n "$finishing" ]; then  # the detached half of a long enable, alive after the command ended
    sleep @LONG@
    [ -d "$statuses" ] || exit 0
    setting status '@STATUS@'; status=$value
    setting message '@MESSAGE@'
    write_status "$status" @CODE@ "$value"
    printf 'finished=%s\tpid=%s\n' "$op" "$finishing" >>"$logs/calls.log"
    exit 0
fi
trap 'finish $?' EXIT

do_install() { :
@INSTALL@
}
do_enable() { :
@ENABLE@
}
do_disable() { :
@DISABLE@
}
do_update() { :
@UPDATE@
}
do_uninstall() { :
@UNINSTALL@
}

case $op in install | enable | disable | update | uninstall) ;; *) exit 64 ;; esac
if [ "$op" = enable ]; then
    setting sleep 0
    [ "$value" = 0 ] || sleep "$value"
    setting exitCode 0
    [ "$value" = 0 ] || exit "$value"
fi
do_$op
if [ "$op" = enable ]; then
    setting status '@STATUS@'; status=$value
    setting message '@MESSAGE@'; message=$value
    heartbeat='@HEARTBEAT@'
    if [ -n "$heartbeat" ]; then
        write_heartbeat "$heartbeat"
        beats=@BEATS@
        if [ "$beats" -gt 0 ]; then
            setsid sh -c 'i=0; while [ $i -lt "$2" ] && [ -d "${1%/*}" ]; do sleep 1; touch -c "$1"; i=$((i+1)); done' \
                beat "$heartbeat_file" "$beats" </dev/null >/dev/null 2>&1 &
        fi
    fi
    if [ "@LONG@" != 0 ]; then
        write_status transitioning 0 'still working'
        setsid "$0" --finish "$$" </dev/null >/dev/null 2>&1 &
    elif [ -n "$status" ]; then
        write_status "$status" @CODE@ "$message"
    fi
fi
exit 0
"""


def build_zip(files: Mapping[str, bytes | str]) -> bytes:
    """Return a zip archive of *files* (path → content); the same files make the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o100644 << 16  # real packages carry no usable modes (extensions §4.4)
            archive.writestr(info, content.encode() if isinstance(content, str) else content)
    return buffer.getvalue()


def handler_manifest(commands: str | Mapping[str, str], **fields: Any) -> str:
    """Return ``HandlerManifest.json`` (extensions §5).

    Args:
        commands: a script that gets the operation's word as argument, or operation → command line.
        fields: more keys of ``handlerManifest``; ``resourceLimits`` and ``signingInfo`` go beside it.
    """
    if isinstance(commands, str):
        commands = {operation: f"{commands} {operation}" for operation in OPERATIONS}
    inner: dict[str, Any] = {f"{operation}Command": line for operation, line in commands.items()}
    inner.update({"rebootAfterInstall": False, "reportHeartbeat": False, "updateMode": "UpdateWithInstall"})
    outer: dict[str, Any] = {"version": 1.0, "handlerManifest": inner}
    for key, value in fields.items():
        (outer if key in ("resourceLimits", "signingInfo") else inner)[key] = value
    return json.dumps([outer], indent=2)


def with_manifest(
    files: Mapping[str, bytes | str], commands: str | Mapping[str, str] | None
) -> Mapping[str, bytes | str]:
    """Return *files* with a ``HandlerManifest.json`` for *commands* when they hold none."""
    if commands is None or "HandlerManifest.json" in files:
        return files
    return {"HandlerManifest.json": handler_manifest(commands), **files}


def sample_package(
    name: str = "Contoso.Sample",
    version: str = "1.0.0",
    *,
    install: str = "",
    enable: str = "",
    disable: str = "",
    update: str = "",
    uninstall: str = "",
    status: str | None = "success",
    code: int = 0,
    message: str = "done",
    substatus: Any = None,
    long_run: float = 0,
    heartbeat: str | None = None,
    heartbeat_seconds: int = 0,
    manifest: Mapping[str, Any] | None = None,
    extra: Mapping[str, bytes | str] | None = None,
) -> dict[str, bytes | str]:
    """Return the files of a shell handler for :meth:`Fabric.add_package`.

    Each call appends a line with what it saw to ``calls.log`` in the handler's log folder (read it with
    :func:`read_calls`) and leaves its whole environment in ``environment.<operation>.<version>`` beside it. Public
    settings ``sleep``, ``exitCode``, ``status`` and ``message`` (numbers, plain texts) steer one enable.

    Args:
        install, enable, disable, update, uninstall: shell lines run by that operation; ``exit 7`` fails it. They
            find ``$logs``, ``$config``, ``$statuses``, ``$sequence``, ``setting NAME DEFAULT`` (sets ``$value``) and
            ``open_protected`` (prints the decrypted protected settings).
        status: what enable reports at its end; ``None`` writes no status file.
        code, message, substatus: of that report; *substatus* is any JSON value.
        long_run: seconds: enable returns at once with ``transitioning``, a detached child reports *status* later.
        heartbeat: word that enable writes to the heartbeat file; turns ``reportHeartbeat`` on.
        heartbeat_seconds: a detached child refreshes it every second so often.
        manifest: more keys for ``HandlerManifest.json`` (see :func:`handler_manifest`).
        extra: more files.
    """
    for text in (message, status or ""):
        if "'" in text or '"' in text or "\\" in text or "\n" in text:
            raise ValueError(f"{text!r}: no quotes, backslashes or line breaks here")
    values = {
        "VARIABLES": "".join(
            f'[ -z "${{{variable}+x}}" ] || printf "\\t%s=%s" {variable} "${variable}"\n    ' for variable in VARIABLES
        ).rstrip(),
        "VERSION": shlex.quote(version),
        "NAME": name,
        "SUBSTATUS": "" if substatus is None else ',"substatus":' + _for_printf(json.dumps(substatus)),
        "INSTALL": install,
        "ENABLE": enable,
        "DISABLE": disable,
        "UPDATE": update,
        "UNINSTALL": uninstall,
        "STATUS": status or "",
        "CODE": str(code),
        "MESSAGE": message,
        "HEARTBEAT": heartbeat or "",
        "BEATS": str(heartbeat_seconds),
        "LONG": f"{long_run:g}",
    }
    text = _SCRIPT
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    fields = dict(manifest or {})
    if heartbeat is not None:
        fields.setdefault("reportHeartbeat", True)
    files: dict[str, bytes | str] = {"HandlerManifest.json": handler_manifest(SCRIPT, **fields), SCRIPT: text}
    files.update(extra or {})
    return files


def _for_printf(text: str) -> str:
    if "'" in text:
        raise ValueError("no apostrophes in a substatus")
    return text.replace("\\", "\\\\").replace("%", "%%")


@attrs.frozen
class Call:
    """One call of a sample handler.

    Attributes:
        operation: ``install`` … ``uninstall``.
        version: of the package whose script ran.
        environment: those of :data:`VARIABLES` that were set.
        exit_code: ``None`` while it runs, or when it was killed.
    """

    operation: str
    version: str
    pid: int
    cwd: str
    environment: Mapping[str, str]
    exit_code: int | None


def read_calls(root: str | os.PathLike[str], name: str, log_dir: str = "var/log/azure") -> list[Call]:
    """Return the calls of the sample handler *name* under an agent's *root*, in the order they began."""
    path = os.path.join(os.fspath(root), log_dir.lstrip("/"), name, "calls.log")
    calls: list[dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        fields = dict(field.split("=", 1) for field in line.split("\t") if "=" in field)
        if "call" in fields:
            calls.append({**fields, "code": None})
        elif "end" in fields:
            for call in reversed(calls):
                if call["pid"] == fields["pid"] and call["call"] == fields["end"] and call["code"] is None:
                    call["code"] = int(fields["code"])
                    break
    return [
        Call(
            operation=call["call"],
            version=call["own_version"],
            pid=int(call["pid"]),
            cwd=call["cwd"],
            environment={key: call[key] for key in VARIABLES if key in call},
            exit_code=call["code"],
        )
        for call in calls
    ]
