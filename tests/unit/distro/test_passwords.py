"""Password hashes: by the system's library, by openssl, and never by anything weak or silent."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from waagent.errors import AgentError, NoAnswer
from waagent_distro.steps import passwords

PASSWORD = "Hello world!"
VECTORS = [
    (
        "6", "saltstring",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    ("5", "saltstring", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    ("1", "saltstri", "$1$saltstri$YMyguxXMBpd2TEZ.vS/3q1"),
]  # fmt: skip
needs_libcrypt = pytest.mark.skipif(passwords._find_crypt() is None, reason="this system has no libcrypt")


@needs_libcrypt
@pytest.mark.parametrize(("method", "salt", "hashed"), VECTORS)
def test_known_hashes_by_the_systems_library(method, salt, hashed):
    assert passwords.by_libcrypt(PASSWORD, passwords.setting(method, salt)) == hashed


@pytest.mark.skipif(shutil.which("openssl") is None, reason="this system has no openssl")
@pytest.mark.parametrize(("method", "salt", "hashed"), VECTORS)
def test_known_hashes_by_openssl(machine, monkeypatch, method, salt, hashed):
    def openssl(command, data):
        done = subprocess.run(command, input=data, capture_output=True, timeout=30, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    machine.write("etc/waagent.conf", f"Provisioning.PasswordCryptId={method}\nOS.OpensslPath=openssl\n")
    machine.answer("openssl", openssl)
    monkeypatch.setattr(passwords, "LIBRARIES", ())
    monkeypatch.setattr(passwords, "make_salt", lambda _method, _length: salt)
    assert passwords.hash_password(machine, PASSWORD) == hashed
    assert machine.inputs == [PASSWORD.encode() + b"\n"]
    assert PASSWORD not in " ".join(machine.ran[0])


@needs_libcrypt
def test_bcrypt_has_its_own_salt_and_can_be_checked(machine):
    machine.write("etc/waagent.conf", "Provisioning.PasswordCryptId=2a\nProvisioning.PasswordCryptSaltLength=10\n")
    hashed = passwords.hash_password(machine, PASSWORD)
    assert re.fullmatch(r"\$2a\$10\$[./A-Za-z0-9]{53}", hashed)
    assert passwords.by_libcrypt(PASSWORD, hashed[:29]) == hashed


@needs_libcrypt
@pytest.mark.parametrize(("method", "asked", "used"), [("6", 10, 10), ("6", 40, 16), ("5", 1, 1), ("1", 10, 8)])
def test_the_salt_is_as_long_as_asked_for_and_used(machine, method, asked, used):
    lines = f"Provisioning.PasswordCryptId={method}\nProvisioning.PasswordCryptSaltLength={asked}\n"
    machine.write("etc/waagent.conf", lines)
    salts = {passwords.hash_password(machine, PASSWORD).split("$")[2] for _ in range(3)}
    assert all(re.fullmatch(r"[A-Za-z0-9]+", salt) and len(salt) == used for salt in salts)
    assert used == 1 or len(salts) == 3


def test_without_library_and_openssl_it_fails_loudly(machine, monkeypatch):
    monkeypatch.setattr(passwords, "LIBRARIES", ())
    with pytest.raises(AgentError, match="neither libcrypt nor openssl"):
        passwords.hash_password(machine, PASSWORD)
    machine.write("etc/waagent.conf", "Provisioning.PasswordCryptId=2a\n")
    with pytest.raises(AgentError, match="2a, and openssl cannot"):
        passwords.hash_password(machine, PASSWORD)


def test_a_library_that_refuses_a_method_is_not_believed(monkeypatch):
    for answer in (b"*0", b"", b"$1$salt$x", None):
        monkeypatch.setattr(passwords, "_find_crypt", lambda answer=answer: lambda _password, _how: answer)
        assert passwords.by_libcrypt(PASSWORD, "$6$salt") is None


@pytest.mark.parametrize("password", ["", "two\nlines", "nul\0", "re\rturn"])
def test_what_nobody_can_type_is_no_password(machine, password):
    with pytest.raises(NoAnswer, match="nobody could log in"):
        machine.distro.set_password("amy", password)
    assert machine.ran == []


def test_unknown_methods_are_refused():
    with pytest.raises(AgentError, match="PasswordCryptId=7 is unknown"):
        passwords.make_salt("7", 10)
