"""The words that are put before a command's wrapper so that it starts in a unit of its own (extensions §12.3).

A *scope* is joined by systemd-run, which then becomes the wrapper: process id, session, descriptors, environment and
working directory are those that the engine gave. A *service* is started by process 1 instead, with a clean slate: none
of the agent's own restrictions reach it. Its command line would be open to all and its ``$`` be expanded, so a small
script writes wrapper and environment into a file that only root reads and that deletes itself.
"""

from __future__ import annotations

_UNACCOUNTED = ("--property=CPUAccounting=no", "--property=MemoryAccounting=no")
"""Off in the unit and on in its slice: no group is made below it, and the counters stay in the slice."""

SERVICE = r"""
quote() {
    rest=$1
    printf "'"
    while :; do
        case $rest in
            *\'*) printf "%s'%s''" "${rest%%\'*}" '\'; rest=${rest#*\'} ;;
            *) printf "%s'" "$rest"; return ;;
        esac
    done
}
file=$1 count=$2
shift 2
turns=$count
while [ "$turns" -gt 0 ]; do
    set -- "$@" "$1"
    shift
    turns=$((turns - 1))
done
umask 077
{
    echo 'rm -f -- "$0"'
    export -p
    printf exec
    while [ $# -gt "$count" ]; do
        printf ' '
        quote "$1"
        shift
    done
    echo
} >"$file" || exit 1
exec "$@" /bin/sh "$file"
"""
"""Takes the file, the number of systemd-run's words, these, and the wrapper's words."""


def scope(run: str, unit: str, parent: str) -> tuple[str, ...]:
    """Return the words that start a command in a scope.

    Args:
        run: path of systemd-run.
        unit: the scope's name without its ending.
        parent: the slice.
    """
    return (run, *_UNACCOUNTED, f"--unit={unit}", "--scope", f"--slice={parent}")


def service(run: str, unit: str, parent: str, handler: str, file: str) -> tuple[str, ...]:
    """Return the words that start a command in a transient service and wait for its end.

    Args:
        run, unit, parent: as in :func:`scope`.
        handler: whose name its lines in the journal bear.
        file: where the script is written that the service runs; its directory must be root's alone.
    """
    words = (
        run, "--quiet", "--wait", "--collect", *_UNACCOUNTED, f"--unit={unit}", f"--slice={parent}",
        "--service-type=exec",
        "--property=KillMode=process",  # what a handler leaves running lives on
        f"--property=SyslogIdentifier={handler}",
    )  # fmt: skip
    return ("/bin/sh", "-c", SERVICE, "waagent-service", file, str(len(words)), *words)
