"""Actions, their order and their warnings, per distribution and option (cli §5.2, provisioning §18.3, §29 item 8)."""

from __future__ import annotations

from typing import Any

import pytest

from waagent_deprovision import planner

FACTS: dict[str, Any] = {
    "service": "waagent",
    "host_keys": True,
    "root_password": True,
    "resolver": ("/etc/resolv.conf",),
    "resolver_stays": (),
    "delete_user": True,
    "users": ("ops",),
    "ovf": "read",
    "distribution": "debian",
    "also": (),
}
WARNINGS = [
    "The waagent service will be stopped.",
    "All SSH host key pairs will be deleted.",
    "Cached DHCP leases will be deleted.",
    "root password will be disabled. You will not be able to login as root.",
    "/etc/resolv.conf will be deleted.",
    "ops account and entire home directory will be deleted.",
]
ALL = [
    "service", "host keys", "leases", "host name", "root password", "resolver", "user ops", "state directory", "logs",
    "network units", "service drop-ins",
]  # fmt: skip


def names(**changes: Any) -> list[str]:
    return [name for name, _warning in planner.actions({**FACTS, **changes})]


def warnings(**changes: Any) -> list[str]:
    rows = planner.actions({**FACTS, **changes})
    return [line for _name, warning in rows for line in (warning or "").split("\n") if line]


def test_everything_in_order() -> None:
    assert names() == ALL
    assert warnings() == WARNINGS, "in the order of cli §5.2"


def without(*left_out: str) -> list[str]:
    return [name for name in ALL if name not in left_out]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host_keys": False}, without("host keys")),
        ({"root_password": False}, without("root password")),
        ({"resolver": ()}, without("resolver")),  # Ubuntu, and wherever it is a link
        ({"delete_user": False}, without("user ops")),
        ({"users": (), "ovf": "missing"}, without("user ops")),
        ({"users": (), "ovf": "unreadable"}, without("user ops")),
        ({"distribution": "arch"}, [*ALL, "machine id"]),
        ({"distribution": "flatcar"}, [*ALL, "machine id"]),
        ({"distribution": "coreos"}, [*ALL, "machine id"]),
        ({"also": ("fstab", "machine-id")}, [*ALL, "machine-id", "fstab"]),
        ({"also": ("machine-id",), "distribution": "arch"}, [*ALL, "machine id"]),
        (
            {"users": ("ops", "dev")},
            [*ALL[:6], "user ops", "user dev", *ALL[7:]],
        ),
    ],
)
def test_conditions(changes: dict[str, Any], expected: list[str]) -> None:
    assert names(**changes) == expected


@pytest.mark.parametrize(
    ("ovf", "lines"),
    [
        ("missing", ["ovf-env.xml is not found.", "Skip delete user."]),
        ("unreadable", ["ovf-env.xml cannot be read.", "Skip delete user."]),
    ],
)
def test_without_a_document_the_user_is_skipped_and_that_is_said_in_its_place(ovf: str, lines: list[str]) -> None:
    assert warnings(users=(), ovf=ovf) == [*WARNINGS[:5], *lines]
    assert warnings(users=(), ovf=ovf, delete_user=False) == WARNINGS[:5]


@pytest.mark.parametrize(
    ("changes", "rest"),
    [
        ({}, ["ops account and entire home directory will be deleted."]),
        ({"delete_user": False}, []),
        ({"users": (), "ovf": "missing"}, ["ovf-env.xml is not found.", "Skip delete user."]),
    ],
)
def test_a_resolver_file_that_stays_is_told_in_its_place(changes: dict[str, Any], rest: list[str]) -> None:
    stays = {"resolver": (), "resolver_stays": ("/etc/resolv.conf",)}
    assert warnings(**stays, **changes) == [*WARNINGS[:4], "/etc/resolv.conf will not be deleted.", *rest]


def test_the_user_goes_before_what_names_it() -> None:
    order = names()
    assert order.index("user ops") < order.index("state directory")


def test_the_machine_id_is_warned_of_last() -> None:
    assert warnings(distribution="arch") == [*WARNINGS, "/etc/machine-id will be removed."]


@pytest.mark.parametrize("word", list(planner.EXTRAS))
def test_every_extra_warns_for_itself(word: str) -> None:
    assert warnings(also=(word,)) == [*WARNINGS, planner.EXTRAS[word]]
