"""Packages with good and bad signatures (extensions §16); every certificate, signature and check by openssl."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.signatures.authority import DAY, as_text, openssl, sign, with_timestamp
from waagent_signatures import anchors, verifier

ROOT_2011 = "847DF6A78497943F27FC72EB93F9A637320A02B561D0A91B09E87A7807ED7C61"
HARMLESS = "This failure can be safely ignored; will continue processing the package."


def left_over(machine: Any) -> list[str]:
    return sorted(set(os.listdir(machine.paths.lib_dir)) - {machine.package.name, "microsoft_root_certificate.pem"})


# ---- What is good and what is not ------------------------------------------------------------------------------------


def test_a_signed_package_is_verified(machine: Any, signed: str) -> None:
    assert machine.verify(signed) is None
    operation, success, message = machine.verdict
    assert (operation, success) == ("PackageSignatureResult", True)
    assert message == "the signature is valid; when it was made is not attested: it has no timestamp"
    assert left_over(machine) == []


def test_openssl_is_asked_as_it_always_was(machine: Any, signed: str) -> None:
    machine.verify(signed)
    stem = os.path.join(machine.paths.lib_dir, machine.package.name)
    assert machine.ran[-1] == (
        "/usr/bin/openssl", "cms", "-verify", "-binary", "-inform", "der", "-in", f"{stem}_signature.pem",
        "-content", stem, "-purpose", "any", "-CAfile", f"{machine.root}/etc/anchor.pem", "-no_check_time",
        "-out", "/dev/null",
    )  # fmt: skip


@pytest.mark.parametrize("change", ["one byte", "appended", "cut short"])
def test_a_changed_package_fails_and_is_let_pass(machine: Any, signed: str, change: str) -> None:
    data = bytearray(machine.package.read_bytes())
    if change == "one byte":
        data[len(data) // 2] ^= 1
    elif change == "appended":
        data += b"\0"
    else:
        del data[-1]
    machine.package.write_bytes(data)
    assert machine.verify(signed) is None
    assert machine.verdict[:2] == ("PackageSignatureResult", False)
    assert machine.seen[1] == ("PackageSignatureResult", False, f"Signature: {signed}")
    warnings = [line for line in machine.lines if line.startswith("WARNING")]
    assert len(warnings) == 1
    assert warnings[0].endswith(HARMLESS)
    assert left_over(machine) == []


def test_a_failure_is_a_refusal_when_the_configuration_says_so(machine: Any, signed: str) -> None:
    machine.restart("Debug.IgnoreExtSignatureValidationErrors=n\n")
    assert machine.verify(signed) is None
    machine.package.write_bytes(b"something else")
    veto = machine.verify(signed)
    assert veto.code == 1009
    assert "The signature of the package of Contoso.Tools.Sample-1.4.2 is not valid" in veto.reason
    assert HARMLESS not in veto.reason


def test_a_signer_that_nobody_trusts_fails(machine: Any, authorities: Any) -> None:
    machine.verify(as_text(sign(machine.package, authorities.stranger)))
    operation, success, message = machine.verdict
    assert (operation, success) == ("PackageSignatureResult", False)
    assert "unable to get local issuer certificate" in message


def test_what_openssl_trusts_by_itself_does_not_count(
    machine: Any, authorities: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = sign(machine.package, authorities.stranger)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "stranger.pem").write_bytes(authorities.strangers.root.read_bytes())
    openssl("rehash", str(trusted), cwd=tmp_path)
    monkeypatch.setenv("SSL_CERT_DIR", str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted / "stranger.pem"))
    machine.verify(as_text(signature))
    assert machine.verdict[:2] == ("PackageSignatureResult", False)
    # The same command in this environment is taken in: that is what the check keeps out.
    file = tmp_path / "signature"
    file.write_bytes(signature)
    argv = [str(file) if part.endswith("_signature.pem") else part for part in machine.ran[-1]]
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("signature", "operation", "said"),
    [
        ("MII", "SignatureValidation", "not base64"),
        ("\u00e4\u00f6", "SignatureValidation", "not base64"),
        ("====", "SignatureValidation", "the signature"),
        (base64.b64encode(b"garbage").decode(), "PackageSignatureResult", "openssl ended with"),
        (base64.b64encode(b"\x30\x80" * 500).decode(), "PackageSignatureResult", "openssl ended with"),
        ("A" * (2 << 20), "SignatureValidation", "the signature has 1572864 bytes"),
    ],
)
def test_garbage_fails(machine: Any, signature: str, operation: str, said: str) -> None:
    assert machine.verify(signature) is None
    assert machine.verdict[:2] == (operation, False)
    assert said in machine.verdict[2]
    assert left_over(machine) == []


def test_an_unsigned_package_is_not_checked(machine: Any) -> None:
    machine.restart("Debug.IgnoreExtSignatureValidationErrors=n\n")
    assert machine.verify("") is None
    assert (machine.seen, machine.ran) == ([], [])


@pytest.mark.parametrize("switch", ["Debug.EnableExtSignatureValidation", "Debug.EnableSignatureValidation"])
def test_both_names_of_the_switch_switch_it_off(machine: Any, signed: str, switch: str) -> None:
    machine.restart(f"{switch}=n\n")
    machine.package.write_bytes(b"something else")
    assert machine.verify(signed) is None
    assert (machine.seen, machine.ran) == ([], [])
    machine.plugin.on_start(machine)
    assert left_over(machine) == []


def test_a_package_that_is_gone_fails(machine: Any, signed: str) -> None:
    machine.package.unlink()
    assert machine.verify(signed) is None
    assert machine.verdict[1] is False


# ---- Time ------------------------------------------------------------------------------------------------------------


def days_ago(days: int) -> int:
    return int(time.time()) - days * DAY


def test_an_expired_signer_counts_when_nobody_attests_the_time(machine: Any, authorities: Any) -> None:
    machine.verify(as_text(sign(machine.package, authorities.expired)))
    assert machine.verdict[1] is True
    assert "not attested" in machine.verdict[2]


@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_a_timestamp_from_before_its_end_makes_it_good(machine: Any, authorities: Any, hash_name: str) -> None:
    moment = days_ago(600)
    signature = with_timestamp(sign(machine.package, authorities.expired), authorities.clock, moment, name=hash_name)
    machine.verify(as_text(signature))
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    assert machine.verdict == ("PackageSignatureResult", True, f"the signature is valid and was made at {when}")
    assert left_over(machine) == []


@pytest.mark.parametrize("days", [300, 850])
def test_a_timestamp_from_outside_its_time_makes_it_bad(machine: Any, authorities: Any, days: int) -> None:
    signature = with_timestamp(sign(machine.package, authorities.expired), authorities.clock, days_ago(days))
    machine.verify(as_text(signature))
    operation, success, message = machine.verdict
    assert (operation, success) == ("PackageSignatureResult", False)
    assert message.startswith("not valid when it was signed, at ")


def test_a_timestamp_that_does_not_hold_attests_nothing(machine: Any, authorities: Any) -> None:
    signature = sign(machine.package, authorities.leaf)
    now = days_ago(0)
    for bad, said in (
        (with_timestamp(signature, authorities.wrong_clock, now), "unable to get local issuer certificate"),
        (with_timestamp(signature, authorities.no_clock, now), "openssl ended with"),
        (with_timestamp(signature, authorities.clock, days_ago(1000)), "certificate is not yet valid"),
        (with_timestamp(signature, authorities.clock, now, about=b"other"), "belongs to another signature"),
        (with_timestamp(signature, authorities.clock, now, name="sha1"), "unknown or weak hash"),
        (with_timestamp(with_timestamp(signature, authorities.clock, now), authorities.clock, now), "several"),
    ):
        machine.seen.clear()
        machine.verify(as_text(bad))
        assert machine.verdict[1] is True
        assert "when it was made is not attested" in machine.verdict[2]
        assert said in machine.verdict[2]
        assert left_over(machine) == []


def test_without_a_root_for_timestamps_the_time_is_not_attested(machine: Any, authorities: Any) -> None:
    (machine.root / "etc" / "stamps.pem").unlink()
    signature = with_timestamp(sign(machine.package, authorities.leaf), authorities.clock, days_ago(0))
    machine.verify(as_text(signature))
    assert machine.verdict[1] is True
    assert "the file that Signatures.TimestampAnchor names cannot be read" in machine.verdict[2]


# ---- The certificates that everything hangs on -----------------------------------------------------------------------


def test_microsofts_root_is_written_at_each_start(machine: Any) -> None:
    machine.restart("Signatures.TrustAnchor=None\n")
    path = Path(machine.paths.lib_dir) / "microsoft_root_certificate.pem"
    for before in (None, "something else"):
        if before is not None:
            path.write_text(before)
            path.chmod(0o666)
        machine.plugin.on_start(machine)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        said = openssl("x509", "-in", str(path), "-noout", "-fingerprint", "-sha256", "-serial", cwd=machine.root)
        assert ROOT_2011 in said.decode().replace(":", "")
        assert "serial=3F8BC8B5FC9FB29643B569D66C42E144" in said.decode()
    assert machine.lines == []


def test_the_root_for_timestamps_is_the_known_one(machine: Any) -> None:
    said = openssl(
        "x509", "-in", anchors.TIMESTAMPS.path, "-noout", "-subject", "-fingerprint", "-sha256", "-serial",
        cwd=machine.root,
    ).decode()  # fmt: skip
    assert "Microsoft Root Certificate Authority 2010" in said
    assert anchors.TIMESTAMPS.sha256 in said.replace(":", "")
    assert "serial=28CC3A25BFBA44AC449A9B586B4339AA" in said


def refusal(machine: Any, signed: str) -> str:
    machine.verify(signed)
    operation, success, message = machine.verdict
    assert (operation, success) == ("SignatureValidation", False)
    return str(message)


def test_an_anchor_that_cannot_be_used_verifies_nothing(machine: Any, signed: str) -> None:
    anchor = machine.root / "etc" / "anchor.pem"
    good = anchor.read_bytes()
    anchor.chmod(0o664)
    assert "others than root may change" in refusal(machine, signed)
    anchor.chmod(0o644)
    for content in (b"", b"-----BEGIN CERTIFICATE-----\n", good.replace(b"CERTIFICATE", b"SOMETHING")):
        machine.seen.clear()
        anchor.write_bytes(content)
        assert "there is no certificate in" in refusal(machine, signed)
    machine.seen.clear()
    anchor.unlink()
    assert "cannot be read" in refusal(machine, signed)
    machine.plugin.on_start(machine)
    assert machine.lines[-1].startswith("WARNING Package signatures cannot be verified: the file that")


def test_nobody_can_pass_for_microsoft(machine: Any, signed: str, tmp_path_factory: Any) -> None:
    from tests.unit.signatures.authority import Authority

    impostor = Authority(tmp_path_factory.mktemp("x") / "a", "Microsoft Root Certificate Authority 2011")
    (machine.root / "etc" / "anchor.pem").write_bytes(impostor.root.read_bytes())
    assert f"instead of {ROOT_2011}" in refusal(machine, signed)
    with pytest.raises(anchors.NoAnchor, match="its SHA-256 is"):
        anchors.check(impostor.root.read_bytes(), "a file")
    anchors.check(Path(anchors.PACKAGES.path).read_bytes(), "a file")


def test_a_root_that_did_not_come_with_the_agent_is_missed(machine: Any, signed: str, monkeypatch: Any) -> None:
    machine.restart("Signatures.TrustAnchor=None\n")
    missing = anchors.Root(anchors.PACKAGES.name, anchors.PACKAGES.sha256, str(machine.root / "none.pem"))
    monkeypatch.setattr(anchors, "PACKAGES", missing)
    assert "is not installed with the agent" in refusal(machine, signed)
    other = anchors.Root(anchors.PACKAGES.name, anchors.PACKAGES.sha256, anchors.TIMESTAMPS.path)
    monkeypatch.setattr(anchors, "PACKAGES", other)
    machine.seen.clear()
    assert "is not the certificate Microsoft Root Certificate Authority 2011" in refusal(machine, signed)


# ---- openssl ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo OpenSSL 1.0.2k-fips  26 Jan 2017", "OpenSSL 1.1.0 or newer is needed"),
        ("echo LibreSSL 3.8.2", "is not OpenSSL: LibreSSL 3.8.2"),
        ("exit 3", "ended with 3"),
    ],
)
def test_an_openssl_that_cannot_do_it_is_said_once_and_left_alone(
    machine: Any, signed: str, script: str, said: str
) -> None:
    machine.restart(machine.fake_openssl(script) + "Debug.IgnoreExtSignatureValidationErrors=n\n")
    for _ in range(3):
        assert machine.verify(signed) is None
    assert len(machine.ran) == 1
    assert len(machine.lines) == 1
    assert said in machine.lines[0]


def test_no_openssl(machine: Any, signed: str) -> None:
    machine.restart("OS.OpensslPath=/nonexistent/openssl\n")
    assert machine.verify(signed) is None
    assert "cannot be started" in machine.lines[0]


def test_a_check_that_takes_too_long_is_the_last_one(machine: Any, signed: str) -> None:
    slow = machine.fake_openssl('[ "$1" = version ] && exec /usr/bin/openssl version\nexec sleep 60\n')
    machine.restart(slow + "Debug.SignatureValidationTimeout=1\n")
    began = time.monotonic()
    assert machine.verify(signed) is None
    assert time.monotonic() - began < 10
    assert "it took longer than 1 s" in machine.verdict[2]
    ran = len(machine.ran)
    assert machine.verify(signed) is None
    assert len(machine.ran) == ran
    assert left_over(machine) == []


def test_what_fails_unexpectedly_refuses_nothing(machine: Any, signed: str, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(verifier, "check", fail)
    assert machine.verify(signed) is None
    assert machine.verdict == ("SignatureValidation", False, "RuntimeError: the disk is on fire")


def test_files_of_a_check_that_was_cut_off_go_at_the_next_start(machine: Any) -> None:
    lib = Path(machine.paths.lib_dir)
    for name in ("A__1.zip_signature.pem", "A__1.zip.partial_timestamp.pem", "A__1.zip_timeinfo.pem"):
        (lib / name).touch()
    (lib / "somebodys_signature.pem").touch()
    machine.plugin.on_start(machine)
    assert left_over(machine) == ["somebodys_signature.pem"]


def test_after_the_last_day_of_telemetry_the_log_alone_tells(machine: Any, signed: str) -> None:
    machine.restart("Debug.SignatureValidationTelemetryExpiryTime=2020-01-01\n")
    machine.package.write_bytes(b"something else")
    machine.verify(signed)
    assert machine.seen == []
    assert machine.lines[0].endswith(HARMLESS)


# ---- The published vector --------------------------------------------------------------------------------------------


def test_a_signature_from_the_field_was_made_when_its_timestamp_says(machine: Any, fixtures: Path) -> None:
    machine.restart("Signatures.TrustAnchor=None\nSignatures.TimestampAnchor=None\n")
    text = (fixtures / "signing" / "vm_access_signature.txt").read_text()
    signature = base64.b64decode(text)
    stem = os.path.join(machine.paths.lib_dir, "A__1.zip")
    moment, why = verifier.signing_time(machine, signature, stem, verifier.Clock(20))
    assert why == ""
    assert moment is not None
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment)) == "2025-03-31 22:01:12"
    # Its chain ends at the root that comes with the agent, and was valid then; its package is not at hand.
    certificates = machine.root / "inside.pem"
    (machine.root / "inside.der").write_bytes(signature)
    openssl(
        "cms", "-verify", "-noverify", "-nosigs", "-inform", "der", "-in", "inside.der", "-certsout",
        str(certificates), "-content", os.devnull, "-binary", "-out", os.devnull, cwd=machine.root,
    )  # fmt: skip
    openssl(
        "verify", "-no-CApath", "-CAfile", anchors.PACKAGES.path, "-untrusted", str(certificates), "-attime",
        str(moment), "-purpose", "any", str(certificates), cwd=machine.root,
    )  # fmt: skip
    machine.verify(text)
    assert machine.verdict[:2] == ("PackageSignatureResult", False), "of another package"
