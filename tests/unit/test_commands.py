"""Running commands: what they get, what is kept of them, and how they end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from waagent import commands
from waagent.commands import clean_environment, run
from waagent.errors import CommandError


@pytest.fixture(params=["pidfd", "no pidfd"], autouse=True)
def kernel(request, monkeypatch):
    """Everything holds on kernels with and without pidfds."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    return request.param


def children() -> set[int]:
    """Return the pids of this process's children, ended ones included."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == os.getpid():
                found.add(int(entry))
    return found


@pytest.fixture(autouse=True)
def no_leaks():
    """No descriptor and no child stays behind."""
    before, family = set(os.listdir("/proc/self/fd")), children()
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    assert children() <= family


def sh(line: str, **more):
    return run(["/bin/sh", "-c", line], **more)


def test_output_and_exit_code_come_back():
    done = sh("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr, done.timed_out) == (3, "out\n", "err\n", False)
    assert not done.ok
    assert run(["true"]).ok


def test_a_command_is_found_on_the_path_it_is_given(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho mine $1\n")
    tool.chmod(0o755)
    assert run(["tool", "a b"], env={"PATH": f"/nowhere:{tmp_path}"}).stdout == "mine a b\n"


@pytest.mark.parametrize("name", ["no-such-command-here", "/nowhere/tool", "", "/etc/passwd/tool"])
def test_a_missing_command_is_127_and_says_so(name):
    done = run([name])
    assert done.returncode == 127
    assert "cannot be started" in done.stderr
    with pytest.raises(CommandError) as caught:
        run([name], check=True)
    assert caught.value.returncode is None


def test_what_cannot_be_executed_is_126(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert run([str(plain)]).returncode == 126
    plain.chmod(0o755)
    assert run([str(plain)]).returncode == 126  # executable, but of no format that the kernel knows
    assert run([str(tmp_path)]).returncode == 126
    plain.chmod(0o644)
    assert run(["plain"], env={"PATH": str(tmp_path)}).returncode == 126
    assert run(["bad\0name"]).returncode in (126, 127)
    assert run([]).returncode == 126


def test_check_raises_with_what_the_command_said():
    with pytest.raises(CommandError, match=r"`/bin/sh -c .*` ended with 9: user exists") as caught:
        sh("echo begin; echo user exists >&2; exit 9", check=True)
    assert caught.value.returncode == 9
    assert caught.value.argv[:2] == ("/bin/sh", "-c")
    assert "begin" in caught.value.output


def test_a_signal_is_a_negative_code():
    done = sh("kill -SEGV $$")
    assert done.returncode == -signal.SIGSEGV
    assert f"was ended by signal {signal.SIGSEGV:d}" in done.describe()


def test_standard_input_is_empty_or_what_is_given():
    assert sh("cat; echo end").stdout == "end\n"
    assert sh("cat", input="grüße\n").stdout == "grüße\n"
    big = os.urandom(1 << 20)
    assert sh("wc -c", input=big).stdout.strip() == str(len(big))


def test_a_command_that_does_not_read_its_input_is_no_problem():
    assert sh("exec <&-; echo fine", input=b"x" * (1 << 20)).stdout == "fine\n"


def test_much_in_and_much_out_at_once_does_not_deadlock():
    data = b"0123456789abcdef" * (1 << 15)
    done = sh("tee /dev/stderr", input=data, output_limit=1 << 21)
    assert done.stdout.encode() == data
    assert done.stderr.encode() == data


def test_head_and_tail_of_a_flood_are_kept():
    done = sh("echo first; yes filler | head -c 3000000; echo; echo last", output_limit=1000)
    assert done.stdout.startswith("first\nfiller\n")
    assert done.stdout.endswith("\nlast\n")
    assert "bytes left out" in done.stdout
    assert len(done.stdout) < 1100


def test_output_just_within_the_limit_is_whole():
    assert sh("head -c 1000 /dev/zero | tr '\\0' x", output_limit=1000).stdout == "x" * 1000


def test_bytes_that_are_no_text_do_not_matter():
    assert sh("printf 'a\\377b'").stdout == "a\ufffdb"


def test_a_command_out_of_time_gets_sigterm_first():
    done = sh("trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done", timeout=0.5)
    assert done.timed_out
    assert not done.ok
    assert done.stdout == "ready\ngot it\n"
    assert done.returncode == 5
    assert 0.5 <= done.seconds < 4


def test_sigkill_follows_for_the_whole_group(monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "GRACE", 0.3)
    pids = tmp_path / "pids"
    line = (
        f"trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! $$ >{pids}; while :; do sleep 0.1; done"
    )
    done = sh(line, timeout=0.4)
    assert done.timed_out
    assert done.returncode == -signal.SIGKILL
    for pid in pids.read_text().split():
        wait_gone(int(pid))


def test_members_of_the_group_die_also_when_the_leader_obeys(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "GRACE", 0.3)
    pids = tmp_path / "pids"
    sh(f"(trap '' TERM; while :; do sleep 0.1; done) & echo $! >{pids}; sleep 60", timeout=0.4)
    wait_gone(int(pids.read_text()))


def wait_gone(pid: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            with open(f"/proc/{pid}/stat") as stream:
                if stream.read().rpartition(")")[2].split()[0] == "Z":
                    return  # dead; whoever adopted it has not looked yet
        except FileNotFoundError:
            return
        assert time.monotonic() < end, "it still lives"
        time.sleep(0.02)


def test_a_long_wait_ends_when_the_agent_stops(tmp_path):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    done = run(["sh", "-c", f"trap 'echo told >{tmp_path}/told; exit' TERM; sleep 60 & wait"], timeout=50, stop=stop)
    assert done.timed_out
    assert done.seconds < 10
    assert (tmp_path / "told").read_text() == "told\n"


def test_a_stop_that_never_comes_changes_nothing():
    assert run(["sh", "-c", "sleep 0.7; echo x; exit 3"], stop=threading.Event()).returncode == 3
    assert run(["echo", "x"], timeout=None, stop=threading.Event()).stdout == "x\n"


def test_a_timeout_is_told_apart_in_the_error(monkeypatch):
    with pytest.raises(CommandError, match="was ended after") as caught:
        sh("sleep 60", timeout=0.2, check=True)
    assert caught.value.returncode is None


def test_a_process_that_outlives_the_command_is_not_waited_for(tmp_path):
    pids = tmp_path / "pid"
    begun = time.monotonic()
    done = sh(f"echo first; sleep 30 & echo $! >{pids}; echo last")
    assert done.stdout == "first\nlast\n"
    assert time.monotonic() - begun < 10
    os.kill(int(pids.read_text()), signal.SIGKILL)  # it was left alive


def test_it_has_a_session_of_its_own_and_default_signals():
    code = (
        "import os, signal; print(os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), "
        "signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    assert run([sys.executable, "-I", "-S", "-c", code]).stdout == "True True set()\n"
    ignored = [line for line in run(["cat", "/proc/self/status"]).stdout.splitlines() if line.startswith("SigIgn:")]
    assert int(ignored[0].split()[1], 16) & 0x7FFFFFFF == 0  # SIGPIPE above all, which Python itself ignores


def test_none_of_our_descriptors_reaches_it():
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        assert sh("ls /proc/self/fd").stdout.split()[:4] == ["0", "1", "2", "3"]  # 3 is ls' own
        assert len(sh("ls /proc/self/fd").stdout.split()) == 4
    finally:
        os.close(read)
        os.close(write)


def test_it_works_in_a_process_whose_standard_streams_are_closed():
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import os; os.close(0); os.close(1)\n"
        "from waagent.commands import run\n"
        "done = run(['sh', '-c', 'cat; echo out; echo err >&2'], input='in ')\n"
        "os.write(2, repr((done.returncode, done.stdout, done.stderr)).encode())\n"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert got.stderr == "(0, 'in out\\n', 'err\\n')"


def test_the_directory_is_the_commands_alone(tmp_path):
    here = os.getcwd()
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\npwd; echo "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert run(["./tool", "a  b", "$HOME"], cwd=str(tmp_path)).stdout == f"{tmp_path}\na  b $HOME\n"
    assert run(["pwd"], cwd=str(tmp_path)).stdout == f"{tmp_path}\n"
    assert os.getcwd() == here
    missing = run(["pwd"], cwd=str(tmp_path / "gone"))
    assert missing.returncode in (126, 127)
    assert "no such directory" in missing.stderr


def test_the_environment_is_cleaned(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WAAGENT_ROOT", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    monkeypatch.delenv("PATH")
    seen = run(["env"]).stdout
    assert "secret" not in seen
    assert "JOURNAL_STREAM=8:1" in seen
    assert "PATH=/usr/local/sbin:" in seen
    assert run(["env"], env={"A": "1"}).stdout == "A=1\n"
    assert clean_environment({"PYTHONHOME": "x", "LANG": "C"}, ConfigSequenceNumber="1") == {
        "LANG": "C",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ConfigSequenceNumber": "1",
    }


def test_many_threads_may_run_commands_at_once():
    results: dict[int, str] = {}

    def work(number: int) -> None:
        for turn in range(5):
            results[number * 10 + turn] = sh(f"cat; echo {number * 10 + turn}", input="x").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n * 10 + t: f"x{n * 10 + t}\n" for n in range(8) for t in range(5)}


def test_an_interrupt_while_it_runs_ends_it(tmp_path):
    pids = tmp_path / "pid"
    main = threading.main_thread().ident

    def interrupt() -> None:
        end = time.monotonic() + 20
        while not (pids.exists() and pids.read_text().strip()) and time.monotonic() < end:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # Started in the background of a shell, this process would ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            sh(f"echo $$ >{pids}; exec sleep 60")
        thread.join(20)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_gone(int(pids.read_text()))


def test_a_lost_exit_code_is_no_success():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert not sh("exit 0").ok
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_module_loads_no_subprocess():
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import attrs; before = set(sys.modules)\n"
        "import waagent.commands; print('subprocess' in set(sys.modules) - before)"
    )
    assert run([sys.executable, "-I", "-S", "-c", code]).stdout == "False\n"
