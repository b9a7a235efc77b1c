"""Which proxy a storage URL goes through (wireserver §3.4)."""

from __future__ import annotations

import pytest

from waagent.platform.proxy import Proxy, ProxyRules, is_excluded, parse_proxy

URL = "https://account.blob.core.windows.net/c/b?sig=x"


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, URL, None),
        ({"https_proxy": "http://p:3128"}, URL, Proxy("p", 3128)),
        ({"HTTPS_PROXY": "http://P:3128"}, URL, Proxy("P", 3128)),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://UP:2"}, URL, Proxy("low", 1)),
        ({"http_proxy": "http://p:3128"}, URL, None),
        ({"http_proxy": "http://p:3128"}, "http://host/x", Proxy("p", 3128)),
        ({"https_proxy": "p:3128"}, URL, Proxy("p", 3128)),
        ({"https_proxy": "http://user:secret@p:3128/"}, URL, Proxy("p", 3128)),
        ({"https_proxy": "http://p"}, URL, None),
        ({"https_proxy": "http://:3128"}, URL, None),
        ({"https_proxy": "http://p:99999"}, URL, None),
        ({"https_proxy": "http://[fd00::1]:3128"}, URL, Proxy("fd00::1", 3128)),
        ({"https_proxy": "http://p:1", "no_proxy": "windows.net"}, URL, None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "a.example, Windows.NET"}, URL, None),
        ({"https_proxy": "http://p:1", "no_proxy": "example.com"}, URL, Proxy("p", 1)),
    ],
)
def test_environment(environment: dict[str, str], url: str, expected: Proxy | None) -> None:
    assert ProxyRules(environment=environment).choose(url) == expected


def test_the_configured_proxy_wins_over_the_environment_but_not_over_no_proxy() -> None:
    environment = {"https_proxy": "http://env:1", "no_proxy": "internal.example"}
    rules = ProxyRules("conf", 8080, environment)
    assert rules.choose(URL) == Proxy("conf", 8080)
    assert rules.choose("http://other/x") == Proxy("conf", 8080)
    assert rules.choose("https://store.internal.example/x") is None
    assert ProxyRules("conf", None, {}).choose(URL) == Proxy("conf", 80)


@pytest.mark.parametrize(
    ("host", "no_proxy", "excluded"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.2.3", "10.1.2.2/31", True),
        ("10.1.2.3", "10.1.2.3/32", True),
        ("10.1.2.3", "0.0.0.0/1", True),
        ("10.1.2.3", "0.0.0.0/0", False),
        ("10.1.2.3", "10.0.0.0/33", False),
        ("10.1.2.3", "10.0.0.0/x", False),
        ("10.1.2.3", "2.3", False),
        ("10.1.2.3", " 192.168.0.0/16 , 10.0.0.0/8 ", True),
        ("host.example.com", "example.com", True),
        ("host.example.com", ".example.com", True),
        ("hostexample.com", "example.com", True),
        ("host.EXAMPLE.com", "Example.COM", True),
        ("example.com.evil", "example.com", False),
        ("host.example.com", "*", False),
        ("host.example.com", "", False),
        ("host.example.com", ",,", False),
    ],
)
def test_no_proxy(host: str, no_proxy: str, excluded: bool) -> None:
    assert is_excluded(host, no_proxy) is excluded


def test_a_proxy_is_named_as_libraries_want_it() -> None:
    assert Proxy("p", 3128).url == "http://p:3128"
    assert parse_proxy("http://[fd00::1]:3128") == Proxy("fd00::1", 3128)
    assert Proxy("fd00::1", 3128).url == "http://[fd00::1]:3128"
