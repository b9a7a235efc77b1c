"""Password hashes by the system's own libcrypt, else by ``openssl passwd`` (ruling 40). No hash code of ours."""

from __future__ import annotations

import ctypes
import secrets
import string
import threading
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

LIBRARIES = ("libcrypt.so.2", "libcrypt.so.1", "libcrypt.so.1.1", "libcrypt.so.5", "libcrypt.so", None)
"""Where ``crypt`` may be: libxcrypt, glibc (Debian's libxcrypt too), FreeBSD; the C library itself (musl)."""

LONGEST_SALT = {"1": 8, "5": 16, "6": 16}
"""Characters of salt that each method uses; a longer salt would be cut by the library without a word."""

BCRYPT_COST = 10
_LETTERS = string.ascii_letters + string.digits
_BCRYPT_LETTERS = "./" + _LETTERS
_BCRYPT_SALT = 22
_OPENSSL = {"1": "-1", "5": "-5", "6": "-6"}
_crypt_lock = threading.Lock()  # crypt() answers in a buffer of its own


def hash_password(agent: Agent, password: str) -> str:
    """Return the hash of *password* as ``Provisioning.PasswordCryptId`` and ``…SaltLength`` ask for.

    Raises:
        AgentError: the password cannot be one, the method is unknown, or nothing on this system makes such a hash.
    """
    method = agent.config.text("Provisioning.PasswordCryptId") or "6"
    length = agent.config.integer("Provisioning.PasswordCryptSaltLength")
    if not password or any(letter in password for letter in "\0\n\r"):
        raise AgentError("the password is empty or holds a line break or a NUL: nobody could log in with it")
    salt = make_salt(method, length)
    hashed = by_libcrypt(password, setting(method, salt))
    if hashed is None:
        hashed = _by_openssl(agent, password, method, salt)
    if not hashed.startswith(f"${method}$"):
        raise AgentError(f"the hash of the password is not of the method {method} that was asked for")
    return hashed


def make_salt(method: str, length: int) -> str:
    """Return a new salt, from the system's source of randomness.

    Raises:
        AgentError: the method is unknown.
    """
    if method == "2a":  # its salt is 128 bits, no more and no less
        return "".join(secrets.choice(_BCRYPT_LETTERS) for _ in range(_BCRYPT_SALT))
    if method not in LONGEST_SALT:
        raise AgentError(f"Provisioning.PasswordCryptId={method} is unknown: 1, 2a, 5 or 6")
    return "".join(secrets.choice(_LETTERS) for _ in range(max(1, min(length, LONGEST_SALT[method]))))


def setting(method: str, salt: str) -> str:
    """Return what ``crypt`` takes beside the password."""
    return f"$2a${BCRYPT_COST:02}${salt}" if method == "2a" else f"${method}${salt}"


def by_libcrypt(password: str, how: str) -> str | None:
    """Return the hash, or ``None`` where there is no libcrypt or it does not know the method (or FIPS forbids it)."""
    crypt = _find_crypt()
    if crypt is None:
        return None
    with _crypt_lock:
        answer = crypt(password.encode(), how.encode())
        hashed = answer.decode("ascii", "replace") if answer else ""
    method = how.split("$")[1]
    # An answer of "*0", or of another method than asked for, is the library's way to fail.
    return hashed if hashed.startswith(f"${method}$") and len(hashed) > len(how) else None


def _find_crypt() -> ctypes._NamedFuncPointer | None:
    for name in LIBRARIES:
        try:
            crypt = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        crypt.restype = ctypes.c_char_p
        return crypt
    return None


def _by_openssl(agent: Agent, password: str, method: str, salt: str) -> str:
    if method not in _OPENSSL:
        raise AgentError(f"no libcrypt here makes hashes of the method {method}, and openssl cannot")
    program = agent.config.text("OS.OpensslPath") or "openssl"
    done = agent.run((program, "passwd", _OPENSSL[method], "-salt", salt, "-stdin"), input=f"{password}\n".encode())
    hashed = done.stdout.strip()
    if not done.ok or not hashed.startswith(f"${method}$"):
        raise AgentError(
            f"neither libcrypt nor openssl makes a hash of the method {method} here: {done.stderr.strip()}"
        )
    return hashed
