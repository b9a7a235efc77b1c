"""The provisioning document ``ovf-env.xml``: what the platform wants this machine to become (provisioning §3).

Prefixes differ between the platform and cloud-init's copies, so elements are known by namespace and local name. Scalars
are direct children of their section and stand there once; what is unknown is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

import attrs

from waagent.errors import OvfError, ProtocolError
from waagent.platform import xmldoc
from waagent.platform.xmldoc import Element

NAME = "ovf-env.xml"
MAX_BYTES = 1 << 20
MAX_PASSWORD = 72
"""Characters of a password, cloud-init's limit for Linux machines (provisioning §3.2)."""

OVF_SPACE = "http://schemas.dmtf.org/ovf/environment/1"
AZURE_SPACE = "http://schemas.microsoft.com/windowsazure"
WITHHELD = ("*", "REDACTED")
"""What stands in copies of the document instead of the password."""

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}\Z")
_USER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,31}\Z")
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}\Z")
_HIDDEN = "userpassword"
_HOST_RULE = "1 to 64 letters, digits, dots and hyphens, the first a letter or digit"
_INVALID = "Failed to validate OVF: "


@attrs.frozen
class DeployedPublicKey:
    """A public key that a user may log in with.

    Attributes:
        path: of the authorized keys; ``$HOME`` at its beginning stands for the parent of the users' homes.
        value: in OpenSSH form, ``None`` when only the certificate is named.
        thumbprint: of a certificate of the goal state, upper-case hex SHA-1; ``None`` when *value* is there.
    """

    path: str
    value: str | None = None
    thumbprint: str | None = None


@attrs.frozen
class DeployedKeyPair:
    """A key pair for a user: *path* of the private key, *thumbprint* of its certificate in the goal state."""

    path: str
    thumbprint: str


@attrs.frozen
class ProvisioningDocument:
    """What the platform wants this machine to become.

    Attributes:
        host_name: ``None`` only when the document was not read for provisioning by us.
        user_name: likewise.
        password: in the clear, a secret; ``None`` for none.
        password_withheld: there was a password, and this copy of the document does not hold it.
        disable_password_login: SSH is for keys only.
        public_keys: keys that the user may log in with.
        key_pairs: keys that the user gets.
        custom_data: as it came (base64 as a rule); may be a secret. ``None`` for none.
        guest_agent: ``False``: the owner wants no agent in the machine (``ProvisionGuestAgent``).
        guest_proxy_agent: the owner wants the proxy agent.
        preprovisioned: the kind of a machine from a pool (``Running``, ``Savable``, ``PreprovisionedOSDisk``), empty
            for any other machine.
        notes: what is odd about the document, for the log.
    """

    host_name: str | None = None
    user_name: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    password_withheld: bool = False
    disable_password_login: bool = False
    public_keys: tuple[DeployedPublicKey, ...] = ()
    key_pairs: tuple[DeployedKeyPair, ...] = ()
    custom_data: str | None = attrs.field(default=None, repr=False)
    guest_agent: bool = True
    guest_proxy_agent: bool = False
    preprovisioned: str = ""
    notes: tuple[str, ...] = ()

    @property
    def wants_password(self) -> bool:
        """Whether the owner gave the user a password, be it in this copy or not."""
        return self.password is not None or self.password_withheld


def parse_provisioning_document(data: bytes, *, complete: bool = True) -> ProvisioningDocument:
    """Read a provisioning document.

    Args:
        data: the file as it lies on the medium.
        complete: it has to say all that provisioning needs. ``False`` where somebody else provisions: then only the
            platform's settings are looked at closely (provisioning §13), and secrets and keys are not read at all.

    Raises:
        OvfError: it cannot be used; names the element and what was expected, and no secret.
    """
    root = _root(data)
    section = _only(root, AZURE_SPACE, "ProvisioningSection", needed=True)
    assert section is not None
    wanted = _only(section, AZURE_SPACE, "LinuxProvisioningConfigurationSet", needed=True)
    assert wanted is not None
    notes = []
    version = _text(section, "Version")
    if version != "1.0":
        notes.append(f"its version is {xmldoc.shown(version or 'not given')}; 1.0 is known here")
    text = _text if complete else _text_if_clear
    host_name, user_name = text(wanted, "HostName"), text(wanted, "UserName")
    password = _password(wanted) if complete else None
    keys: tuple[DeployedPublicKey, ...] = ()
    pairs: tuple[DeployedKeyPair, ...] = ()
    if complete:
        _check(host_name, "HostName", _HOST_NAME, _HOST_RULE)
        _check(user_name, "UserName", _USER_NAME, "a letter or _, then at most 31 letters, digits and _.@-")
        if password is not None and len(password) > MAX_PASSWORD:
            raise OvfError(f"{_INVALID}UserPassword: expected at most {MAX_PASSWORD} characters, found {len(password)}")
        keys, pairs = _keys(wanted)
    settings = _platform_settings(root)
    withheld = password in WITHHELD
    return ProvisioningDocument(
        host_name=host_name,
        user_name=user_name,
        password=None if withheld else password,
        password_withheld=withheld,
        disable_password_login=_is(text(wanted, "DisableSshPasswordAuthentication"), "true"),
        public_keys=keys,
        key_pairs=pairs,
        custom_data=_text(wanted, "CustomData") if complete else None,
        guest_agent=not _is(_text(settings, "ProvisionGuestAgent"), "false"),
        guest_proxy_agent=_is(_text(settings, "ProvisionGuestProxyAgent"), "true"),
        preprovisioned=_pool(settings),
        notes=tuple(notes),
    )


def redact_provisioning_document(data: bytes) -> bytes:
    """Return the document with ``*`` for each password, as UTF-8; everything else stays as it is written.

    Raises:
        OvfError: it cannot be read, so that nobody can say where the passwords are.
    """
    _root(data)
    try:
        raw = xmldoc.decode(data, NAME).encode("utf-8")
    except ProtocolError as problem:
        raise OvfError(str(problem)) from None
    cuts: list[tuple[int, int]] = []
    open_secrets: list[int] = []
    parser = expat.ParserCreate("utf-8")

    def start(name: str, _attributes: dict[str, str]) -> None:
        if _HIDDEN in name.lower():
            open_secrets.append(_end_of_tag(raw, parser.CurrentByteIndex))

    def end(name: str) -> None:
        if _HIDDEN in name.lower():
            begin = open_secrets.pop()
            # What lies inside another secret goes with that one.
            if raw[begin : parser.CurrentByteIndex].strip() and not open_secrets:
                cuts.append((begin, parser.CurrentByteIndex))

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(raw, True)
    for begin, stop in reversed(cuts):
        raw = raw[:begin] + b"*" + raw[stop:]
    return raw


def document_from_metadata(compute: Mapping[str, Any]) -> ProvisioningDocument | None:
    """Return what the metadata service tells instead of the document, ``None`` when that is not enough.

    It knows neither passwords nor custom data, so it is enough only for a machine without password logins.

    Args:
        compute: the ``compute`` object of the instance metadata.
    """
    profile = compute.get("osProfile")
    listed = compute.get("publicKeys")
    if not isinstance(profile, dict) or not isinstance(listed, list):
        return None
    host_name, user_name = str(profile.get("computerName") or ""), str(profile.get("adminUsername") or "")
    values = [str(one["keyData"]) for one in listed if isinstance(one, dict) and one.get("keyData")]
    closed = _is(str(profile.get("disablePasswordAuthentication")), "true")
    if not (closed and values and _HOST_NAME.match(host_name) and _USER_NAME.match(user_name)):
        return None
    # The paths that it gives are not looked at: they are for homes that need not be these (provisioning §26).
    path = f"$HOME/{user_name}/.ssh/authorized_keys"
    return ProvisioningDocument(
        host_name=host_name,
        user_name=user_name,
        disable_password_login=True,
        public_keys=tuple(DeployedPublicKey(path, value) for value in values),
        notes=("it was made from the instance metadata",),
    )


def build_provisioning_document(document: ProvisioningDocument) -> bytes:
    """Return a document with no more than user and host name, for those who look for it later (deprovisioning)."""
    # Both names were checked against patterns without any character that XML minds.
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<Environment xmlns="{OVF_SPACE}" xmlns:wa="{AZURE_SPACE}">'
        "<wa:ProvisioningSection><wa:Version>1.0</wa:Version><wa:LinuxProvisioningConfigurationSet>"
        f"<wa:HostName>{document.host_name}</wa:HostName><wa:UserName>{document.user_name}</wa:UserName>"
        "<wa:DisableSshPasswordAuthentication>true</wa:DisableSshPasswordAuthentication>"
        "</wa:LinuxProvisioningConfigurationSet></wa:ProvisioningSection>"
        "<wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>"
        "<wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>"
        "</wa:PlatformSettings></wa:PlatformSettingsSection></Environment>\n"
    ).encode("ascii")


def _root(data: bytes) -> Element:
    if len(data) > MAX_BYTES:
        raise OvfError(f"{NAME}: expected at most {MAX_BYTES} bytes, found {len(data)}")
    try:
        root = xmldoc.parse(data, NAME, namespaces=True, strip=False)
    except ProtocolError as problem:
        raise OvfError(str(problem)) from None
    if root.tag != f"{{{OVF_SPACE}}}Environment":
        local = root.tag.rpartition("}")[2]
        where = "" if local != "Environment" else " of another namespace"
        raise OvfError(f"{NAME}: expected the element Environment, found {xmldoc.shown(local)}{where}")
    return root


def _only(parent: Element, space: str, name: str, *, needed: bool = False) -> Element | None:
    """Return the one direct child of that name."""
    found = [child for child in parent.children if child.tag == f"{{{space}}}{name}"]
    if len(found) > 1:
        raise OvfError(f"{_INVALID}{name}: expected once, found {len(found)} times")
    if not found and needed:
        raise OvfError(f"{_INVALID}{name} not found")
    return found[0] if found else None


def _raw(parent: Element | None, name: str) -> str | None:
    element = _only(parent, AZURE_SPACE, name) if parent is not None else None
    if element is None:
        return None
    if element.children:
        raise OvfError(f"{_INVALID}{name}: expected text, found elements")
    return element.text or None


def _text(parent: Element | None, name: str) -> str | None:
    """Return the text of a child, ``None`` when it is absent or empty."""
    return (_raw(parent, name) or "").strip() or None


def _text_if_clear(parent: Element, name: str) -> str | None:
    """Return the text of a child as :func:`_text` does, ``None`` also when it cannot be made out."""
    try:
        return _text(parent, name)
    except OvfError:
        return None


def _password(wanted: Element) -> str | None:
    """Return the password as it stands there: blanks at its ends belong to it."""
    text = _raw(wanted, "UserPassword")
    return text if text is not None and text.strip(" \t\r\n") else None


def _check(text: str | None, name: str, pattern: re.Pattern[str], expected: str) -> None:
    if text is None:
        raise OvfError(f"{_INVALID}{name} not found")
    if not pattern.match(text):
        raise OvfError(f"{_INVALID}{name}: expected {expected}; found {xmldoc.shown(text)!r}")


def _keys(wanted: Element) -> tuple[tuple[DeployedPublicKey, ...], tuple[DeployedKeyPair, ...]]:
    ssh = _only(wanted, AZURE_SPACE, "SSH")
    if ssh is None:
        return (), ()
    public = []
    for element in _items(ssh, "PublicKeys", "PublicKey"):
        path, value = _text(element, "Path"), _text(element, "Value")
        if path is None:
            raise OvfError(f"{_INVALID}PublicKey: expected a Path (Public key path is None)")
        thumbprint = _thumbprint(element, "PublicKey") if value is None else None
        if value is None and thumbprint is None:
            raise OvfError(f"{_INVALID}PublicKey: SSH public key Fingerprint and Value are None")
        public.append(DeployedPublicKey(path, value, thumbprint))
    pairs = []
    for element in _items(ssh, "KeyPairs", "KeyPair"):
        path, thumbprint = _text(element, "Path"), _thumbprint(element, "KeyPair")
        if path is None or thumbprint is None:
            raise OvfError(f"{_INVALID}KeyPair: expected a Path and a Fingerprint")
        pairs.append(DeployedKeyPair(path, thumbprint))
    return tuple(public), tuple(pairs)


def _items(ssh: Element, group: str, name: str) -> list[Element]:
    parent = _only(ssh, AZURE_SPACE, group)
    wanted = f"{{{AZURE_SPACE}}}{name}"
    return [child for child in parent.children if child.tag == wanted] if parent is not None else []


def _thumbprint(element: Element, what: str) -> str | None:
    text = _text(element, "Fingerprint")
    if text is None:
        return None
    if not _THUMBPRINT.match(text):
        raise OvfError(f"{_INVALID}{what}: Fingerprint: expected 40 hexadecimal digits, found {xmldoc.shown(text)!r}")
    return text.upper()


def _platform_settings(root: Element) -> Element | None:
    section = _only(root, AZURE_SPACE, "PlatformSettingsSection")
    return _only(section, AZURE_SPACE, "PlatformSettings") if section is not None else None


def _pool(settings: Element | None) -> str:
    kind = _text(settings, "PreprovisionedVMType") or _text(settings, "PreprovisionedVmType")
    if kind is not None and not _is(kind, "none"):
        return xmldoc.shown(kind)
    return "Running" if _is(_text(settings, "PreprovisionedVm"), "true") else ""


def _is(text: str | None, word: str) -> bool:
    return text is not None and text.strip().lower() == word


def _end_of_tag(raw: bytes, at: int) -> int:
    """Return where the content begins of the element whose start tag is at *at*."""
    quote = 0
    for position in range(at, len(raw)):
        byte = raw[position]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte in b"\"'":
            quote = byte
        elif byte == 0x3E:
            return position + 1
    return len(raw)
