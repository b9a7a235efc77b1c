from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.platform.leases import (
    lease_address,
    parse_isc_leases,
    parse_networkd_lease,
    parse_openbsd_leases,
)

Captured = Callable[[str], bytes]
NOW = 1_800_000_000.0  # 2027-01-15


def lease(value: str, expire: str | None = "never", option: str = "unknown-245", indent: str = "  ") -> str:
    lines = ["lease {", f'{indent}interface "eth0";', f"{indent}option {option} {value};"]
    if expire is not None:
        lines.append(f"{indent}expire {expire};")
    return "\n".join([*lines, "}", ""])


def isc(*leases: str) -> str | None:
    return parse_isc_leases("".join(leases).encode(), NOW)


@pytest.mark.parametrize(
    ("expire", "valid"),
    [
        ("never", True),
        ("0 never", True),
        ("4 2030/01/31 08:15:42", True),
        ("5 2027/01/15 08:00:01", True),
        ("5 2027/01/15 08:00:00", False),
        ("4 2015/06/16 16:58:54", False),
        ("epoch 1900000000; # Sun Mar 17", True),
        ("epoch 1700000000; # Tue Nov 14", False),
        ("4 2030/02/30 08:15:42", False),
        ("sometime", False),
        ("", False),
        (None, False),
    ],
)
def test_expiry(expire: str | None, valid: bool) -> None:
    assert isc(lease("a8:3f:81:10", expire)) == ("168.63.129.16" if valid else None)


def test_the_last_valid_lease_wins() -> None:
    old = "4 2015/06/16 16:58:54"
    assert isc(lease("a8:3f:81:1"), lease("a8:3f:81:2"), lease("a8:3f:81:3", old)) == "168.63.129.2"
    assert isc(lease("a8:3f:81:1", old), lease("nonsense")) is None
    # A lease without the option hides none before it.
    assert isc(lease("a8:3f:81:1"), lease("10.0.0.1", option="routers")) == "168.63.129.1"
    assert isc(lease("a8:3f:81:1"), lease("a8:3f:81:2").replace("}\n", "")) == "168.63.129.1"


def test_openbsd_leases() -> None:
    data = lease("a8:3f:81:10", "4 2030/01/31 08:15:42 UTC", "option-245").encode()
    assert parse_openbsd_leases(data, NOW) == "168.63.129.16"
    assert parse_isc_leases(data, NOW) is None


def test_networkd_leases() -> None:
    assert parse_networkd_lease(b"# This is private data.\nADDRESS=10.0.0.4\nOPTION_245=a83f8110\n") == "168.63.129.16"
    assert parse_networkd_lease(b"OPTION_245=a83f8110\nOPTION_245=zz\n") == "168.63.129.16"
    assert parse_networkd_lease(b"OPTION_2450=a83f8110\nOPTION_245\n") is None


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("a8:3f:81:10", "168.63.129.16"),
        ("0:1:2:A", "0.1.2.10"),
        ("a83f8110", "168.63.129.16"),
        ('"\\250?\\201\\020"', "168.63.129.16"),
        ('"b\\L6 "', "98.76.54.32"),
        ('"\\"?\\\\a"', "34.63.92.97"),
        ("b8:c9:da:1ff", None),
        ("a8:3f:81", None),
        ("a8:3f:81:10:11", None),
        ('""', None),
        ('"abc"', None),
        ('"abcde"', None),
        ("x" * 100_000, None),
        ("", None),
    ],
)
def test_forms_of_the_option(value: str, address: str | None) -> None:
    assert lease_address(value) == address


def test_captured_leases(captured: Captured) -> None:
    assert parse_isc_leases(captured("dhcp.leases"), NOW) == "168.63.129.16"
    assert parse_isc_leases(captured("dhcp.leases.multi"), NOW) == "168.63.129.2"
    # After 2152 only the lease that never expires is left.
    assert parse_isc_leases(captured("dhcp.leases"), 6e9) == "168.63.129.16"
    assert parse_isc_leases(captured("dhcp.leases.multi"), 6e9) is None


@given(st.binary(max_size=300) | st.text('lease{};:0123456789abcdef opti"\\unkw-245xyr/n\n').map(str.encode))
def test_no_file_is_refused(data: bytes) -> None:
    for parser in (parse_isc_leases, parse_openbsd_leases):
        address = parser(data, NOW)
        assert address is None or address.count(".") == 3
    parse_networkd_lease(data)
