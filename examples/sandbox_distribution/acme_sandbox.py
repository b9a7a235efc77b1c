"""An operating system that is a directory: a third party's distribution plugin, in one file.

Installed beside the agent it answers for roots whose ``etc/os-release`` says ``ID=sandbox``. Whatever the agent would
do to a machine becomes small files under the root, and one line in ``sandbox.jsonl``. So provisioning runs for real, as
anybody, and nothing outside the directory is touched: swap the operating system by swapping one plugin.

The provisioning medium is the directory ``dev/sr0`` with ``ovf-env.xml`` in it; the machine's id is the file
``sys/class/dmi/id/product_uuid``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from waagent import AgentError, ensure_dir, hookimpl, write_atomic

if TYPE_CHECKING:
    from waagent import Agent

waagent_any_root = True
"""Nothing outside the agent's root is changed by this plugin: it is asked under any root, not only under ``/``."""

RECORD = "/sandbox.jsonl"


def record(agent: Agent, operation: str, **facts: object) -> bool:
    """Note what would have been done to a machine; no secrets."""
    line = json.dumps({"operation": operation, **facts}, sort_keys=True) + "\n"
    descriptor = os.open(agent.paths.at(RECORD), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return True


def read(agent: Agent, path: str) -> str:
    try:
        with open(agent.paths.at(path), encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(agent: Agent, path: str, text: str, mode: int = 0o644) -> None:
    place = agent.paths.at(path)
    ensure_dir(os.path.dirname(place), 0o755)
    write_atomic(place, text, mode)


def put_line(agent: Agent, path: str, line: str, mode: int = 0o644) -> None:
    """Make *line* the one line of *path* that begins with its first field."""
    key = line.partition(":")[0].partition(" ")[0]
    kept = [one for one in read(agent, path).splitlines() if one.partition(":")[0].partition(" ")[0] != key]
    write(agent, path, "\n".join([*kept, line]) + "\n", mode)


# ---- The machine -----------------------------------------------------------------------------------------------------


@hookimpl
def read_vm_id(agent):
    return read(agent, "/sys/class/dmi/id/product_uuid").strip().upper()


@hookimpl
def set_hostname(agent, hostname):
    write(agent, "/etc/hostname", hostname + "\n")
    return record(agent, "set_hostname", hostname=hostname)


@hookimpl
def set_dhcp_hostname(agent, hostname):
    return record(agent, "set_dhcp_hostname", hostname=hostname)


@hookimpl
def publish_hostname(agent, hostname):
    return record(agent, "publish_hostname", hostname=hostname)


@hookimpl
def service_action(agent, service, action):
    return record(agent, "service_action", service=service, action=action)


@hookimpl
def label_path():
    return True


@hookimpl
def find_resource_disk():
    return ""


# ---- Accounts --------------------------------------------------------------------------------------------------------


@hookimpl
def create_user(agent, name, comment, expiration):
    home = f"/home/{name}"
    ensure_dir(agent.paths.at(home), 0o755)
    put_line(agent, "/etc/passwd", f"{name}:x:1000:1000:{comment or ''}:{home}:/bin/sh")
    return record(agent, "create_user", name=name, expiration=expiration)


@hookimpl
def delete_user(agent, name):
    kept = [line for line in read(agent, "/etc/passwd").splitlines() if not line.startswith(name + ":")]
    write(agent, "/etc/passwd", "".join(line + "\n" for line in kept))
    shutil.rmtree(agent.paths.at(f"/home/{name}"), ignore_errors=True)
    return record(agent, "delete_user", name=name)


@hookimpl
def set_password(agent, name, password):
    # A plain digest is good enough for a machine that nobody can log in to.
    put_line(agent, "/etc/shadow", f"{name}:{hashlib.sha256(password.encode()).hexdigest()}", 0o600)
    return record(agent, "set_password", name=name)


@hookimpl
def lock_root_password(agent):
    put_line(agent, "/etc/shadow", "root:*LOCK*", 0o600)
    return record(agent, "lock_root_password")


@hookimpl
def configure_sudo(agent, name, password_required):
    rights = "ALL" if password_required else "NOPASSWD: ALL"
    put_line(agent, "/etc/sudoers.d/waagent", f"{name} ALL=(ALL) {rights}", 0o440)
    return record(agent, "configure_sudo", name=name, password_required=password_required)


# ---- SSH -------------------------------------------------------------------------------------------------------------


@hookimpl
def configure_sshd(agent, password_authentication, client_alive_interval):
    if password_authentication is not None:
        word = "yes" if password_authentication else "no"
        put_line(agent, "/etc/ssh/sshd_config", f"PasswordAuthentication {word}")
    if client_alive_interval is not None:
        put_line(agent, "/etc/ssh/sshd_config", f"ClientAliveInterval {client_alive_interval}")
    return record(agent, "configure_sshd", password_authentication=password_authentication)


@hookimpl
def regenerate_host_keys(agent, kind):
    kind = "rsa" if kind == "auto" else kind
    blob = base64.b64encode(secrets.token_bytes(32)).decode()
    write(agent, f"/etc/ssh/ssh_host_{kind}_key", "a private key that opens nothing\n", 0o600)
    write(agent, f"/etc/ssh/ssh_host_{kind}_key.pub", f"ssh-{kind} {blob} sandbox\n")
    return record(agent, "regenerate_host_keys", kind=kind)


@hookimpl
def restart_ssh(agent):
    return record(agent, "restart_ssh")


@hookimpl
def deploy_ssh_key(agent, name, path, public_key, private_key):
    path = path.replace("$HOME", "/home", 1)
    if private_key is not None:
        write(agent, path, private_key, 0o600)
    elif public_key not in read(agent, path).splitlines():
        write(agent, path, read(agent, path) + public_key + "\n", 0o600)
    return record(agent, "deploy_ssh_key", name=name, path=path, pair=private_key is not None)


# ---- The provisioning medium: a directory ----------------------------------------------------------------------------


@hookimpl
def find_provisioning_media(agent, but):
    device = agent.paths.at("/dev/sr0")
    return device if os.path.isdir(device) and device not in but else ""


@hookimpl
def mount_provisioning_media(agent, device, mount_point):
    if not os.path.isdir(device):
        raise AgentError(f"there is no medium in {device}")
    shutil.copytree(device, mount_point, dirs_exist_ok=True)
    return record(agent, "mount_provisioning_media")


@hookimpl
def unmount_provisioning_media(agent, mount_point):
    shutil.rmtree(mount_point, ignore_errors=True)
    return True


@hookimpl
def eject_provisioning_media(agent, device):
    shutil.rmtree(device, ignore_errors=True)
    return record(agent, "eject_provisioning_media")
