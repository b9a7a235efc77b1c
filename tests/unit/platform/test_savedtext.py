"""What is written to the history and the log holds no signature and no protected settings (§22)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from waagent.platform.extensionsconfig import redact_extensions_config
from waagent.platform.vmsettings import redact_vm_settings

Captured = Callable[[str], bytes]

SECRET = "MIIBc2VjcmV0/+c2V0dGluZ3M="
SIGNATURE = "kNWgC2c2lnbmF0dXJl%3d"
MARK = "***REDACTED***"


def config(settings: str, blob: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<Extensions>'
        f'<StatusUploadBlob statusBlobType="BlockBlob">{blob}</StatusUploadBlob>'
        f'<PluginSettings><Plugin name="A"><RuntimeSettings seqNo="1">{settings}</RuntimeSettings></Plugin>'
        "</PluginSettings></Extensions>"
    )


@pytest.mark.parametrize(
    "settings",
    [
        f'{{"runtimeSettings":[{{"handlerSettings":{{"protectedSettings":"{SECRET}","publicSettings":{{"k":"v"}}}}}}]}}',
        f'{{\n  "runtimeSettings": [{{"handlerSettings": {{"protectedSettings" :\n "{SECRET}"}}}}]}}',
        f'{{"runtimeSettings":[{{"handlerSettings":{{"ProtectedSettings":"{SECRET}"}}}}]}}',
        f"{{&quot;runtimeSettings&quot;:[{{&quot;handlerSettings&quot;:{{&quot;protectedSettings&quot;:&quot;{SECRET}&quot;}}}}]}}",
        f"{{&#34;protectedSettings&#x22;:&#34;{SECRET}&#34;}}",
        f'<![CDATA[{{"protectedSettings":"{SECRET}"}}]]>',
        f"{{'protectedSettings': '{SECRET}'}}",
        f'{{"protectedSettings": "{SECRET}',  # cut short
        f'{{"protectedSettings":"a\\"{SECRET}"}}',
        f'{{"protectedSettings":"{SECRET.replace("/", chr(92) + "/")}"}}',
        f'{{"protected\\u0053ettings":"{SECRET}"}}',
        f'{{"protectedSettings":{{"password":"{SECRET}"}}}}',
        f"protectedSettings={SECRET}",
        f'"protectedSettings": {SECRET}',
        f'<![CDATA[{{"protectedSettings":"a<{SECRET}"}}]]>',
    ],
)
def test_protected_settings_are_nowhere(settings: str) -> None:
    for data in (config(settings), config(settings).encode()):
        text = redact_extensions_config(data)
        for piece in ("MIIBc2Vjcm", "c2V0dGluZ3M"):
            assert piece not in text


def test_form_and_everything_else_stay() -> None:
    settings = (
        '{"runtimeSettings":[{"handlerSettings":{"protectedSettingsCertThumbprint":"0123",'
        f'"protectedSettings":"{SECRET}","publicSettings":{{"k":"v & w?"}}}}}}]}}'
    ).replace("&", "&amp;")
    text = redact_extensions_config(config(settings, f"https://c/s.status?sv=1&amp;sig={SIGNATURE}&amp;sp=w"))
    expected = config(settings.replace(SECRET, MARK), f"https://c/s.status?{MARK}")
    assert text == expected


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        ("https://c/s.status", "https://c/s.status"),  # nothing to replace, and nothing inserted
        ("https://c/s.status?", "https://c/s.status?"),
        ("\n  https://c/s.status?anything=1\n ", f"\n  https://c/s.status?{MARK}"),
        (f"<![CDATA[https://c/s.status?sig={SIGNATURE}]]>", f"<![CDATA[https://c/s.status?{MARK}]]>"),
    ],
)
def test_the_query_of_a_blob_goes_whatever_is_in_it(blob: str, expected: str) -> None:
    assert redact_extensions_config(config("{}", blob)) == config("{}", expected)


def test_signatures_anywhere_go() -> None:
    inside = (
        f"<InVMArtifactsProfileBlob>https://c/p?sig={SIGNATURE}</InVMArtifactsProfileBlob>"
        f"<HealthStatusBlobUri>https://c/h?sr=b&amp;sig={SIGNATURE}</HealthStatusBlobUri>"
        f'<Other location=\'http://d/x?a=1&amp;SIG={SIGNATURE}\'>{{"fileUris":["https://e/y?sig={SIGNATURE}"]}}</Other>'
    )
    text = redact_extensions_config(f"<Extensions>{inside}</Extensions>")
    assert "bmF0dXJl" not in text
    assert text.count(f"?{MARK}") == 2
    assert text.count("?<redacted>") == 2


def test_null_is_no_secret() -> None:
    text = config('{"runtimeSettings":[{"handlerSettings":{"protectedSettings":null,"publicSettings":{}}}]}')
    assert redact_extensions_config(text) == text


@pytest.mark.parametrize(
    "data", [b"", b"<Extensions>", f"<Extensions>{SECRET}".encode(), b"\xff\xfe\x00", b"<!DOCTYPE a><a/>"]
)
def test_what_cannot_be_redacted_is_not_shown(data: bytes) -> None:
    text = redact_extensions_config(data)
    assert text.startswith("Could not redact ExtensionsConfig.xml, so it is not shown: ExtensionsConfig: expected")
    assert text.count("\n") == 1
    assert SECRET not in text


@pytest.mark.parametrize(
    "text",
    [
        "<Extensions>" + "<StatusUploadBlob>a?b</StatusUploadBlob>" * 100_000 + "</Extensions>",
        "<Extensions><![CDATA[" + "<StatusUploadBlob>" * 500_000 + "]]></Extensions>",
        "<Extensions><![CDATA[" + '"protectedSettings":"' * 500_000 + "]]></Extensions>",
        "<Extensions><![CDATA[" + '"protectedSettings"' + " " * 5_000_000 + "]]></Extensions>",
    ],
    ids=["blobs", "open tags", "keys", "white space"],
)
def test_hostile_text_does_not_take_long(text: str) -> None:
    begin = time.process_time()
    redact_extensions_config(text)
    assert time.process_time() - begin < 5


def test_vm_settings_lose_their_secrets_and_nothing_else() -> None:
    document = {
        "hostGAPluginVersion": "1.0.8.175",
        "StatusUploadBlob": {"statusBlobType": "PageBlob", "Value": f"https://c/s?anything={SIGNATURE}"},
        "extensionGoalStates": [
            {
                "name": "A.B",
                "settings": [
                    {
                        "ProtectedSettings": SECRET,
                        "protectedSettingsCertThumbprint": "0123",
                        "publicSettings": json.dumps({"uri": f"https://d/e?sr=b&sig={SIGNATURE}", "k": "v"}),
                    },
                    {"protectedSettings": None, "publicSettings": None},
                    {"protectedSettings": {"password": SECRET}},
                ],
            }
        ],
    }
    text = redact_vm_settings(json.dumps(document))
    assert json.loads(text) == {
        "hostGAPluginVersion": "1.0.8.175",
        "StatusUploadBlob": {"statusBlobType": "PageBlob", "Value": f"https://c/s?{MARK}"},
        "extensionGoalStates": [
            {
                "name": "A.B",
                "settings": [
                    {
                        "ProtectedSettings": MARK,
                        "protectedSettingsCertThumbprint": "0123",
                        "publicSettings": json.dumps({"uri": "https://d/e?<redacted>", "k": "v"}),
                    },
                    {"protectedSettings": None, "publicSettings": None},
                    {"protectedSettings": MARK},
                ],
            }
        ],
    }


def test_vm_settings_that_are_no_json_are_not_shown() -> None:
    text = redact_vm_settings(f'{{"protectedSettings": "{SECRET}'.encode())
    assert text.startswith("Could not redact VmSettings.json, so it is not shown: vmSettings: expected JSON")
    assert SECRET not in text


@pytest.mark.parametrize(
    "name",
    [
        "wire/ext_conf.xml",
        "wire/ext_conf_in_vm_artifacts_profile.xml",
        "wire/ext_conf_multiple_extensions.xml",
        "wire/ext_conf_no_extensions-page_blob.xml",
        "wire/ext_conf_redact.xml",
        "wire/ext_conf_sequencing.xml",
        "wire/multi-config/ext_conf_with_multi_config.xml",
        "hostgaplugin/ext_conf.xml",
    ],
)
def test_captured_extensions_configs(captured: Captured, name: str) -> None:
    data = captured(name)
    text = redact_extensions_config(data)
    assert text.startswith(data.decode("utf-8")[:20])
    assert "sig=" not in text
    assert '"protectedSettings": "MII' not in text
    assert '"protectedSettings":"MII' not in text
    assert text.count(f'"{MARK}"') == data.count(b'"protectedSettings"')


def test_captured_vm_settings(captured: Captured) -> None:
    data = captured("hostgaplugin/vm_settings.json")
    text = redact_vm_settings(data)
    assert "sig=" not in text
    assert "MIIBsAYJ" not in text
    assert text.count(MARK) == data.count(b'"protectedSettings"') + 1


@pytest.mark.parametrize(
    "text",
    [
        '{"runtimeSettings": [{"handlerSettings": {"protectedSettings": "SECRET',
        '{"protectedSettings": "SECRET", "x": 1}',
        "protectedSettings=SECRET",
    ],
)
def test_settings_inside_a_text_of_vm_settings_lose_their_secrets(text: str) -> None:
    document = json.dumps({"extensionGoalStates": [{"settings": [{"publicSettings": text}]}]})
    assert "SECRET" not in redact_vm_settings(document)


def test_public_settings_that_merely_name_the_thumbprint_stay() -> None:
    text = '{"protectedSettingsCertThumbprint": "AB", "command": "date"}'
    assert "date" in redact_vm_settings(json.dumps({"settings": [{"publicSettings": text}]}))
