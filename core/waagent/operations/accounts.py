"""Operations on accounts: users, passwords, sudo, SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.markers import changes

if TYPE_CHECKING:
    from waagent.agent import Agent


@changes(comment=None, expiration=None)
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool | None:
    """Create a user with a home directory. Changing.

    When: provisioning; just-in-time accounts.
    Arguments: ``agent``; ``name``; ``comment``: for the password file; ``expiration``: the last day, ``YYYY-MM-DD``.
    Returns: ``True`` when the user is there.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def create_user(agent, name):
            agent.run(("adduser", "-D", "-s", "/bin/ash", name), check=True)
            return True
    """


@changes()
def delete_user(agent: Agent, name: str) -> bool | None:
    """Delete a user with home directory and sudo rights; a system user is refused. Changing.

    When: deprovisioning with ``+user``; expired just-in-time accounts.
    Arguments: ``agent``; ``name``.
    Returns: ``True`` when the user is gone.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def delete_user(agent, name):
            agent.run(("rmuser", "-y", name), check=True)
            return True
    """


@changes()
def set_password(agent: Agent, name: str, password: str) -> bool | None:
    """Set a user's password. Changing.

    When: provisioning; just-in-time accounts.
    Arguments: ``agent``; ``name``; ``password``: in the clear, a secret: neither logged nor put on a command line.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def set_password(agent, name, password):
            agent.run(("chpasswd", "-e"), input=f"{name}:{hashed(agent, password)}".encode(), check=True)
            return True
    """


@changes()
def lock_root_password(agent: Agent) -> bool | None:
    """Make root's password unusable. Changing.

    When: provisioning and deprovisioning with ``Provisioning.DeleteRootPassword=y``.
    Arguments: ``agent``.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def lock_root_password(agent):
            agent.run(("pw", "usermod", "root", "-h", "-"), check=True)
            return True
    """


@changes()
def configure_sudo(agent: Agent, name: str, password_required: bool) -> bool | None:
    """Let a user become root. Changing.

    When: after ``create_user``.
    Arguments: ``agent``; ``name``; ``password_required``: ``False`` for a user without a password.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def configure_sudo(agent, name):
            append_line(agent.paths.at("/etc/doas.conf"), f"permit keepenv nopass {name}")
            return True
    """


@changes(password_authentication=None, client_alive_interval=None)
def configure_sshd(
    agent: Agent, password_authentication: bool | None, client_alive_interval: int | None
) -> bool | None:
    """Set options of the SSH server (provisioning §8.3); the caller restarts it. Changing.

    When: provisioning.
    Arguments: ``agent``; ``password_authentication``: allowed or not, ``None`` leaves it; ``client_alive_interval``:
        seconds, ``None`` leaves it.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def configure_sshd():
            return True  # this image keeps its own settings
    """


@changes()
def regenerate_host_keys(agent: Agent, kind: str) -> bool | None:
    """Replace the SSH server's host keys by new ones; the caller restarts it. Changing.

    When: provisioning, with ``Provisioning.RegenerateSshHostKeyPair=y``.
    Arguments: ``agent``; ``kind``: ``rsa``, ``dsa``, ``ecdsa`` or ``ed25519``; ``auto`` for one pair of each kind that
        the server uses.
    Returns: ``True`` when the new keys are in place; they are complete before the old ones go.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes: then there are other keys again.
    Example::

        @hookimpl
        def regenerate_host_keys(agent):
            agent.run(("dropbearkey", "-t", "ed25519", "-f", agent.paths.at(HOST_KEY)), check=True)
            return True
    """


@changes()
def restart_ssh(agent: Agent) -> bool | None:
    """Make the SSH server read its configuration and host keys again; open connections stay. Changing.

    When: provisioning, after a change.
    Arguments: ``agent``.
    Returns: ``True`` when it is done, or when the server starts per connection.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def restart_ssh(agent):
            return agent.distro.service_action("sshd", "reload")
    """


@changes(public_key=None, private_key=None)
def deploy_ssh_key(agent: Agent, name: str, path: str, public_key: str | None, private_key: str | None) -> bool | None:
    """Give a user a key: a public one goes into the authorized keys, a pair into its two files. Changing.

    When: provisioning.
    Arguments: ``agent``; ``name``: the user; ``path``: of the authorized keys, or of the private key; ``public_key``:
        one line in OpenSSH form; ``private_key``: PEM, a secret.
    Returns: ``True`` when it is done.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes: a key that is there is not added twice.
    Example::

        @hookimpl
        def deploy_ssh_key(agent, name, path, public_key):
            append_key(agent.paths.at(path), public_key, owner=name)
            return True
    """


@changes()
def label_path(agent: Agent, path: str) -> bool | None:
    """Give a file the security label that its place demands. Changing.

    When: after a file outside the agent's own directories was written.
    Arguments: ``agent``; ``path``: absolute.
    Returns: ``True`` when it is done, or when labels are not enforced here.
    Answers: the first.
    Failure: the next plugin is asked.
    Deadline: 120 s.
    Again: yes.
    Example::

        @hookimpl
        def label_path(agent, path):
            agent.run(("restorecon", path), check=True)
            return True
    """
