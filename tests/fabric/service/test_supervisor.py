"""The supervisor as a real process; its children are shell scripts that misbehave on purpose."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Manager, Service, wait_for

pytestmark = pytest.mark.fabric

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (VERBOSE|INFO|WARNING|ERROR) Daemon Daemon ")
FAST = {"first_delay": 0.02, "longest_delay": 0.2, "healthy_after": 60.0}


def test_it_logs_who_it_is_and_starts_everything(service: Service) -> None:
    service.root.joinpath("etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    assert service.stop() == 0
    lines = service.log.splitlines()
    assert all(LINE.match(line) for line in lines), service.log
    bodies = [line.split(" Daemon Daemon ", 1)[1] for line in lines]
    version = ".".join(map(str, sys.version_info[:3]))
    assert bodies[:4] == ["Azure Linux Agent Version: 3.0.0.0", "OS: debian 12", f"Python: {version}", "Run daemon"]
    assert bodies[-1] == "Daemon stopped"


def test_each_start_forgets_where_the_platform_was_before_anybody_looks(service: Service) -> None:
    lib = service.root / "var/lib/waagent"
    lib.mkdir(parents=True)
    for name, text in (("WireServerEndpoint", "10.9.9.9"), ("Protocol", "WireProtocol"), ("Certificates.xml", "x")):
        lib.joinpath(name).write_text(text)
    service.scripts["run-exthandlers"] = (
        'ls "$1/var/lib/waagent" >>"$1/trace"; echo worker >>"$1/trace"; exec sleep 600'
    )
    service.start().until_traced("worker")
    seen = service.trace
    assert "Certificates.xml" in seen
    assert "WireServerEndpoint" not in seen
    assert "Protocol" not in seen
    assert service.stop() == 0


def test_it_makes_the_directories_that_everybody_relies_on(service: Service) -> None:
    service.start().until_traced("worker installed")
    assert service.stop() == 0
    for name, mode in (("var/lib/waagent", 0o700), ("var/log/azure", 0o755)):
        assert (service.root / name).stat().st_mode & 0o7777 == mode


def test_a_file_in_the_place_of_the_extensions_logs_is_an_error_and_no_end(service: Service) -> None:
    place = service.root / "var/log/azure"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    service.start().until_traced("worker installed")
    assert f"ERROR Daemon Daemon {place} cannot be made" in service.log
    assert service.stop() == 0
    assert place.read_text() == "mine"


@pytest.mark.parametrize("before", ["nothing", "an empty directory", "the link"])
def test_the_usual_place_leads_to_a_state_directory_elsewhere(service: Service, before: str) -> None:
    usual, place = service.root / "var/lib/waagent", service.root / "opt/waagent"
    (service.root / "etc").mkdir(exist_ok=True)
    with (service.root / "etc/waagent.conf").open("a") as conf:
        conf.write("Lib.Dir=/opt/waagent\n")
    usual.parent.mkdir(parents=True)
    if before == "an empty directory":
        usual.mkdir()
    elif before == "the link":
        usual.symlink_to(place)
    service.start().until_traced("worker installed")
    assert service.stop() == 0
    assert usual.readlink() == place
    assert place.stat().st_mode & 0o7777 == 0o700
    assert "cannot become a link" not in service.log


@pytest.mark.parametrize("place", ["/var/lib", "/var/lib/waagent/state"])
def test_no_link_leads_round_in_circles(service: Service, place: str) -> None:
    (service.root / "etc").mkdir(exist_ok=True)
    with (service.root / "etc/waagent.conf").open("a") as conf:
        conf.write(f"Lib.Dir={place}\n")
    service.start().until_traced("worker installed")
    assert service.stop() == 0
    assert not (service.root / "var/lib/waagent").is_symlink()
    assert "cannot become a link" not in service.log


@pytest.mark.parametrize("before", ["a file of somebody", "a link of somebody"])
def test_what_somebody_has_at_the_usual_place_stays_and_is_told(service: Service, before: str) -> None:
    usual = service.root / "var/lib/waagent"
    (service.root / "etc").mkdir(exist_ok=True)
    with (service.root / "etc/waagent.conf").open("a") as conf:
        conf.write("Lib.Dir=/opt/waagent\n")
    usual.parent.mkdir(parents=True)
    if before == "a link of somebody":
        usual.symlink_to("/somewhere/else")
    else:
        usual.mkdir()
        (usual / "mine").write_text("mine")
    service.start().until_traced("worker installed")
    assert service.stop() == 0
    assert f"{usual} cannot become a link to Lib.Dir" in service.log
    assert usual.is_symlink() == (before == "a link of somebody")
    assert usual.is_symlink() or (usual / "mine").read_text() == "mine"


def test_a_second_daemon_names_the_first_and_leaves_it_alone(service: Service) -> None:
    service.start().until_traced("worker installed")
    assert service.process is not None
    second = service.spawn()
    assert second.wait(15) == 0
    assert second.stderr is not None
    assert f"Daemon is already running: {service.process.pid}" in second.stderr.read()
    assert service.root.joinpath("var/run/waagent.pid").read_text().strip() == str(service.process.pid)
    assert service.process.poll() is None
    assert service.trace.count("worker installed") == 1


def test_of_two_started_together_one_runs(service: Service) -> None:
    both = [service.spawn(), service.spawn()]
    wait_for(lambda: sum(process.poll() is not None for process in both) == 1, "one of the two ends")
    ended = next(process for process in both if process.poll() is not None)
    service.until_traced("worker installed")
    assert ended.returncode == 0
    assert service.trace.count("boot") == 1


@pytest.mark.parametrize("content", ["", "garbage\n", "-1", "99999999999999999999", "{own}"])
def test_what_a_pid_file_says_keeps_nobody_from_starting(service: Service, content: str) -> None:
    """A number that another living process has got since is no daemon."""
    path = service.root / "var/run/waagent.pid"
    path.parent.mkdir(parents=True)
    path.write_text(content.format(own=os.getpid()))
    service.start().until_traced("worker installed")
    assert service.process is not None
    assert path.read_text().strip() == str(service.process.pid)
    assert service.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("kind", ["directory", "link to a file", "link to nowhere"])
@pytest.mark.parametrize("name", ["var/run/waagent.pid", "run/waagent/daemon.lock", "run/waagent/boot.lock"])
def test_something_else_in_the_place_of_its_files(service: Service, kind: str, name: str) -> None:
    """Nothing that lies about keeps the service from starting."""
    path = service.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    victim = service.root / "victim"
    victim.write_text("precious")
    if kind == "directory":
        path.mkdir()
        path.joinpath("child").write_text("x")
    else:
        path.symlink_to(victim if kind == "link to a file" else service.root / "nowhere")
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    assert service.stop() == 0
    assert victim.read_text() == "precious"
    assert not service.root.joinpath("nowhere").exists()


@pytest.mark.parametrize("kind", ["file", "link to nowhere"])
def test_something_else_in_the_place_of_the_runtime_directory(service: Service, kind: str) -> None:
    place = service.root / "run/waagent"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("precious")
    else:
        place.symlink_to("nowhere")
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    assert service.stop() == 0
    assert place.is_dir()
    assert os.path.lexists(f"{place}.bad")


def test_readiness_comes_before_any_child_and_nobody_inherits_the_socket(service: Service, manager: Manager) -> None:
    service.environ |= {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "100000"}
    service.scripts["run-exthandlers"] = (
        'env >"$1/environment"; echo . >&3; echo "worker $2" >>"$1/trace"; exec sleep 600'
    )
    service.scripts["make-transport-key"] = 'echo key >>"$1/trace"'
    service.start()
    first = manager.until("READY=1")
    assert first == ["READY=1\nSTATUS=Starting"]
    manager.until("WATCHDOG=1")
    service.until_traced("worker installed")
    manager.until("WATCHDOG=1")
    environment = service.root.joinpath("environment").read_text()
    assert "NOTIFY_SOCKET" not in environment
    assert "WATCHDOG" not in environment
    assert "MALLOC_ARENA_MAX=1" in environment
    service.send(signal.SIGTERM)
    assert manager.until("STOPPING=1")[-1] == "STOPPING=1\nSTATUS=Stopping"
    assert service.wait() == 0


@pytest.mark.parametrize("wanted", [True, False])
def test_fips_is_a_word_in_the_environment_of_every_child(service: Service, wanted: bool) -> None:
    service.root.joinpath("etc/waagent.conf").write_text(f"OS.EnableFIPS={'y' if wanted else 'n'}\n")
    for role in ("run-boot", "run-exthandlers"):
        service.scripts[role] = f'env >"$1/env-{role}"; {service.scripts[role]}'
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    for role in ("run-boot", "run-exthandlers"):
        lines = (service.root / f"env-{role}").read_text().splitlines()
        assert ("OPENSSL_FIPS=1" in lines) is wanted
    assert service.stop() == 0


def test_readiness_does_not_wait_for_boot(service: Service, manager: Manager) -> None:
    """A notify unit that waited for cloud-init would never end."""
    service.environ["NOTIFY_SOCKET"] = manager.path
    service.scripts["run-boot"] = "exec sleep 601"
    service.start()
    assert manager.until("READY=1")
    service.until_traced("worker installed")
    assert service.stop() == 0


@pytest.mark.parametrize("stage", ["boot", "key helper", "worker", "back-off", "worker that will not stop"])
def test_a_stop_at_any_stage(service: Service, stage: str) -> None:
    service.stop_seconds = 1.0
    if stage == "boot":
        service.scripts["run-boot"] = 'echo ready >>"$1/trace"; exec sleep 601'
    elif stage == "key helper":
        service.scripts["make-transport-key"] = 'trap "" TERM; echo ready >>"$1/trace"; sleep 600 & wait; wait'
    elif stage == "worker":
        service.scripts["run-exthandlers"] = 'trap "exit 0" TERM; echo ready >>"$1/trace"; while :; do sleep 0.05; done'
    elif stage == "back-off":
        service.scripts["run-exthandlers"] = 'echo ready >>"$1/trace"; exit 3'
    else:
        service.scripts["run-exthandlers"] = 'trap "" TERM; echo ready >>"$1/trace"; while :; do sleep 0.05; done'
    service.start().until_traced("ready")
    if stage == "back-off":
        service.until_logged("next start in 1 s")
    pids = list(service.children().values())
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 5
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_stop_right_after_the_start(service: Service) -> None:
    """Whatever the supervisor was doing when the signal came: exit code 0, no child left."""
    for number, delay in enumerate((0.0, 0.005, 0.01, 0.02, 0.05), 1):
        process = service.spawn()
        service.process = process
        service.until_logged("Run daemon", number)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_commands_of_extensions_outlive_the_service(service: Service) -> None:
    service.scripts["run-exthandlers"] = (
        'setsid sh -c \'echo $$ >"$1/command"; exec sleep 600\' x "$1" 3>&- 4>&- & '
        'echo "worker $2" >>"$1/trace"; exec sleep 600'
    )
    service.start().until_traced("worker installed")
    wait_for(
        lambda: service.root.joinpath("command").exists() and service.root.joinpath("command").read_text(), "command"
    )
    pid = int(service.root.joinpath("command").read_text())
    assert service.stop() == 0
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_kill_storm_never_becomes_a_tight_loop(service: Service) -> None:
    """The installed version is restarted with growing delays and is never banned."""
    service.timing = FAST
    service.start()
    for number in range(1, 7):
        service.until_traced("worker installed", number)
        wait_for(lambda: "run-exthandlers" in service.children(), "the worker")
        os.kill(service.children()["run-exthandlers"], signal.SIGKILL)
    service.until_traced("worker installed", 7)
    delays = [float(value) for value in re.findall(r"next start in (\S+) s", service.log)]
    assert delays == [0.02, 0.04, 0.08, 0.16, 0.2, 0.2]
    assert service.log.count("[signal 9 (SIGKILL)]") == 6
    assert "banned" not in service.log
    assert service.stop() == 0


def test_an_exit_with_code_zero_is_no_reason_to_hurry(service: Service) -> None:
    service.timing = FAST
    service.scripts["run-exthandlers"] = 'echo "worker $2" >>"$1/trace"; exit 0'
    service.start().until_traced("worker installed", 4)
    assert re.findall(r"next start in (\S+) s", service.log)[:3] == ["0.02", "0.04", "0.08"]


def test_a_crashing_download_is_banned_and_rolled_back_version_by_version(service: Service) -> None:
    service.timing = FAST
    bad, worse = service.add_version("3.2.0.0"), service.add_version("3.1.0.0")
    service.add_version("2.9.0.0")
    service.root.joinpath("var/lib/waagent/WALinuxAgent-9.9.9.9/bin").mkdir(parents=True)
    service.scripts["run-exthandlers"] = (
        'echo "worker $2" >>"$1/trace"; echo . >&3; [ "$2" = installed ] && exec sleep 600; kill -SEGV $$'
    )
    service.start().until_traced("worker installed")
    assert [line for line in service.trace if line.startswith("worker")] == [
        *[f"worker {bad}"] * 3, *[f"worker {worse}"] * 3, "worker installed",
    ]  # fmt: skip
    assert "Rolling back from version 3.2.0.0 to 3.1.0.0" in service.log
    assert "Rolling back from version 3.1.0.0 to 3.0.0.0" in service.log
    ban = service.root / "var/lib/waagent/agents/3.2.0.0.ban.json"
    assert f"delete {ban} to end the ban" in service.log
    assert "signal 11" in json.loads(ban.read_text())["reason"]
    assert service.stop() == 0
    # The ban outlives the service; a newer package ends it.
    service.add_version("3.3.0.0")
    service.scripts["run-exthandlers"] = 'echo "again $2" >>"$1/trace"; echo . >&3; exec sleep 600'
    service.start().until_traced(f"again {service.root}/var/lib/waagent/agents/3.3.0.0")
    assert not ban.exists()
    assert service.stop() == 0


def test_a_hand_over_starts_the_new_version_at_once(service: Service) -> None:
    new = service.root / "var/lib/waagent/agents/3.1.0.0"
    service.scripts["run-exthandlers"] = (
        'echo "worker $2" >>"$1/trace"; echo . >&3; [ "$2" = installed ] || exec sleep 600; '
        'while [ ! -e "$1/update" ]; do sleep 0.02; done; echo + >&3; exit 0'
    )
    service.start().until_traced("worker installed")
    service.add_version("3.1.0.0")
    service.root.joinpath("update").touch()
    service.until_traced(f"worker {new}")
    assert "unexpectedly" not in service.log
    assert service.stop() == 0


def test_a_hand_over_to_nothing_is_held_back(service: Service) -> None:
    service.timing = FAST
    service.scripts["run-exthandlers"] = 'echo "worker $2" >>"$1/trace"; echo + >&3; exit 0'
    service.start().until_traced("worker installed", 3)
    assert service.log.count("ended unexpectedly") >= 2


def test_the_packaged_version_runs_when_updates_are_off(service: Service) -> None:
    service.add_version("3.2.0.0")
    service.root.joinpath("etc/waagent.conf").write_text("AutoUpdate.Enabled=n\n")
    service.start().until_traced("worker installed")
    assert [line for line in service.trace if line.startswith("worker")] == ["worker installed"]


def test_a_version_that_others_may_write_to_never_runs(service: Service) -> None:
    service.add_version("3.2.0.0").joinpath("waagent/service/start.py").chmod(0o666)
    service.start().until_traced("worker installed")
    assert [line for line in service.trace if line.startswith("worker")] == ["worker installed"]


def test_a_worker_that_cannot_be_started_is_tried_again_slowly(service: Service) -> None:
    service.timing = FAST
    service.scripts["run-exthandlers"] = "/nowhere/at/all"
    service.start().until_logged("cannot be started", 3)
    assert re.findall(r"next start in (\S+) s", service.log)[:3] == ["0.02", "0.04", "0.08"]
    assert service.stop() == 0


def test_a_silent_worker_leaves_its_stacks_and_is_replaced(service: Service, manager: Manager) -> None:
    service.timing = {**FAST, "silence": 0.4, "dump": 0.3}
    service.environ["NOTIFY_SOCKET"] = manager.path
    service.scripts["run-exthandlers"] = (
        'echo "worker $2" >>"$1/trace"; trap \'echo "File stuck.py, line 7" >"$1/run/waagent/worker.stacks"\' USR1; '
        "echo . >&3; while :; do sleep 0.05; done"
    )
    service.start().until_traced("worker installed", 2)
    assert "has been silent for 0.4 s" in service.log
    assert "File stuck.py, line 7" in service.log
    assert "[silent for 0.4 s; signal 9 (SIGKILL)]" in service.log
    assert service.stop() == 0


def test_beats_keep_a_worker_alive(service: Service, manager: Manager) -> None:
    service.timing = {"silence": 0.4, "dump": 0.1}
    service.environ["NOTIFY_SOCKET"] = manager.path
    service.scripts["run-exthandlers"] = (
        'i=0; while [ $i -lt 20 ]; do echo . >&3; sleep 0.05; i=$((i+1)); done; echo "=all well" >&3; '
        'echo survived >>"$1/trace"; exec sleep 600'
    )
    service.start().until_traced("survived")
    assert manager.until("STATUS=all well")
    assert service.trace.count("survived") == 1


def test_a_boot_stage_that_dies_is_run_once_more(service: Service) -> None:
    service.scripts["run-boot"] = (
        'echo boot >>"$1/trace"; [ -e "$1/second" ] || { : >"$1/second"; kill -9 $$; }; printf d >&4'
    )
    service.scripts["run-exthandlers"] = 'echo . >&3; cat <&4; echo "boot is over" >>"$1/trace"; exec sleep 600'
    service.start().until_traced("boot is over")
    assert service.trace == ["boot", "boot", "boot is over"]


def test_a_boot_stage_that_dies_twice_does_not_keep_the_worker_waiting(service: Service) -> None:
    service.scripts["run-boot"] = 'echo boot >>"$1/trace"; exit 9'
    service.scripts["run-exthandlers"] = 'echo . >&3; cat <&4; echo "boot is over" >>"$1/trace"; exec sleep 600'
    service.start().until_traced("boot is over")
    assert service.trace == ["boot", "boot", "boot is over"]
    assert "The boot stage failed 2 times; the worker goes on without it" in service.log


def test_the_worker_waits_for_the_boot_stage_and_the_key_helper(service: Service) -> None:
    service.scripts["run-boot"] = 'while [ ! -e "$1/go" ]; do sleep 0.02; done; printf d >&4; exec sleep 601'
    service.scripts["make-transport-key"] = 'while [ ! -e "$1/key" ]; do sleep 0.02; done'
    service.scripts["run-exthandlers"] = (
        'echo up >>"$1/trace"; echo . >&3; cat <&4; echo over >>"$1/trace"; exec sleep 600'
    )
    service.start().until_traced("up")
    service.root.joinpath("go").touch()
    # A worker that comes later gets the same answer.
    os.kill(service.children()["run-exthandlers"], signal.SIGKILL)
    service.until_traced("up", 2)
    assert "over" not in service.trace
    service.root.joinpath("key").touch()
    service.until_traced("over")
    assert "run-boot" in service.children()
    os.kill(service.children()["run-exthandlers"], signal.SIGKILL)
    service.until_traced("over", 2)


def test_no_second_boot_stage_beside_one_that_an_earlier_supervisor_left(service: Service) -> None:
    lock = service.root / "run/waagent/boot.lock"
    lock.parent.mkdir(parents=True)
    program = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print('held',flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        service.start().until_logged("Waiting for the boot stage of an earlier start")
        service.until_traced("worker installed")
        assert "boot" not in service.trace
        holder.communicate("\n")
    service.until_traced("boot")


def test_reload_drops_the_plugin_list_and_starts_boot_stage_and_worker_again(
    service: Service, manager: Manager
) -> None:
    service.environ["NOTIFY_SOCKET"] = manager.path
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    plugins = service.root / "run/waagent/plugins.json"
    plugins.write_text("{}")
    manager.until("READY=1")
    service.root.joinpath("etc/waagent.conf").write_text("AutoUpdate.Enabled=n\n")
    service.send(signal.SIGHUP)
    service.until_traced("worker installed", 2)
    service.until_traced("boot", 2)
    assert not plugins.exists()
    messages = manager.until("READY=1")
    reloading = [message for message in messages if message.startswith("RELOADING=1\nMONOTONIC_USEC=")]
    assert len(reloading) == 1
    assert "ended unexpectedly" not in service.log
    assert service.stop() == 0


def test_reload_with_something_else_in_the_plugin_lists_place(service: Service) -> None:
    """Whatever cannot be dropped, the worker comes back."""
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    (service.root / "run/waagent/plugins.json/child").mkdir(parents=True)
    service.send(signal.SIGHUP)
    service.until_traced("worker installed", 2)
    service.until_traced("boot", 2)
    assert service.stop() == 0


def test_reload_with_a_worker_that_will_not_stop(service: Service) -> None:
    service.stop_seconds = 0.5
    service.scripts["run-exthandlers"] = (
        '[ -e "$1/second" ] || trap "" TERM; : >"$1/second"; echo "worker $2" >>"$1/trace"; '
        "while :; do sleep 0.05; done"
    )
    service.start().until_traced("worker installed")
    service.send(signal.SIGHUP)
    service.until_traced("worker installed", 2)
    assert service.stop() == 0


def test_reload_while_boot_is_at_work_waits_for_it(service: Service) -> None:
    service.scripts["run-boot"] = 'echo boot >>"$1/trace"; while [ ! -e "$1/go" ]; do sleep 0.02; done; printf d >&4'
    service.scripts["run-exthandlers"] = (
        'echo up >>"$1/trace"; echo . >&3; cat <&4; echo over >>"$1/trace"; exec sleep 600'
    )
    service.start().until_traced("boot")
    service.until_traced("up")
    service.send(signal.SIGHUP)
    service.until_traced("up", 2)
    assert service.trace.count("boot") == 1
    service.root.joinpath("go").touch()
    service.until_traced("over")
    assert service.trace.count("boot") == 2
    assert service.stop() == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_it_stays_small(service: Service) -> None:
    """12 MB resident (architecture §3); interpreters after 3.11 are themselves up to a megabyte larger."""
    service.start().until_traced("worker installed")
    service.until_traced("boot")
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]
    limit = 12 * 1024 if sys.version_info < (3, 12) else 13.5 * 1024
    assert resident <= limit, f"{resident} kB"
    assert service.stop() == 0
