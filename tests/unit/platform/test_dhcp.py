from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.errors import DhcpError
from waagent.platform import dhcp
from waagent.platform.dhcp import DhcpAnswer, build_discover, exchange, parse_options, parse_response

Captured = Callable[[str], bytes]

MAC = b"\x00\x15\x5d\x38\xaa\x38"
TRANSACTION = b"\xc6\xaa\xd1\x5d"
COOKIE = b"\x63\x82\x53\x63"


def answer(options: bytes, mac: bytes = MAC, transaction: bytes = TRANSACTION, cookie: bytes = COOKIE) -> bytes:
    return b"\x02\x01\x06\x00" + transaction + bytes(20) + mac + bytes(202) + cookie + options


ENDPOINT = b"\x35\x01\x02\xf5\x04\xa8\x3f\x81\x10\xff"


def test_a_request_byte_for_byte() -> None:
    request = build_discover(MAC, TRANSACTION, broadcast=False)
    assert len(request) == 244
    assert request[:12] == b"\x01\x01\x06\x00\xc6\xaa\xd1\x5d\x00\x00\x00\x00"
    assert request[12:28] == bytes(16)
    assert request[28:34] == MAC
    assert request[34:236] == bytes(202)
    assert request[236:] == b"\x63\x82\x53\x63\x35\x01\x01\xff"


def test_only_the_flags_of_later_requests_differ() -> None:
    first = build_discover(MAC, TRANSACTION, broadcast=False)
    later = build_discover(MAC, TRANSACTION, broadcast=True)
    assert later[10:12] == b"\x80\x00"
    assert later[:10] + b"\0\0" + later[12:] == first


def test_a_request_needs_a_whole_address() -> None:
    with pytest.raises(DhcpError, match=r"MAC address of 6 bytes"):
        build_discover(b"\0" * 5, TRANSACTION, broadcast=False)


def test_captured_answer(captured: Captured) -> None:
    response = captured("dhcp")
    request = build_discover(response[0x1C:0x22], response[4:8], broadcast=False)
    assert parse_response(request, response) == DhcpAnswer("10.62.144.140", "10.62.144.1")


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"", "expected at least 246 bytes, found 0"),
        (answer(b"\xff" * 5), "expected at least 246 bytes, found 245"),
        (answer(ENDPOINT, transaction=b"none"), "the transaction id is not that of the request"),
        (answer(ENDPOINT, mac=b"\0" * 6), "the MAC address is not that of the request"),
        (answer(ENDPOINT, cookie=b"none"), "the magic cookie is not that of the request"),
    ],
)
def test_answers_to_somebody_else(response: bytes, said: str) -> None:
    with pytest.raises(DhcpError, match=said):
        parse_response(build_discover(MAC, TRANSACTION, broadcast=False), response)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ENDPOINT, DhcpAnswer("168.63.129.16")),
        (b"\x00\x00" + ENDPOINT, DhcpAnswer("168.63.129.16")),  # pads
        (b"\xff" + ENDPOINT, DhcpAnswer()),  # after the end
        (b"\xf5\x04\xa8\x3f\x81\x10", DhcpAnswer("168.63.129.16")),  # no end
        (b"\xf5\x05\xa8\x3f\x81\x10\x00\xff", DhcpAnswer()),  # wrong length
        (b"\xf5\x04\xa8\x3f", DhcpAnswer()),  # cut short
        (b"\xf5", DhcpAnswer()),
        (b"\x03\x04\x0a\x00\x00\x01\x03\x03\x0a\x00\x00\xff", DhcpAnswer(None, "10.0.0.1")),
        (
            b"\xf9\x0e\x20\xa9\xfe\xa9\xfe\x0a\x00\x00\x01\x00\x0a\x00\x00\x02\xff",
            DhcpAnswer(None, None, (("169.254.169.254/32", "10.0.0.1"), ("0.0.0.0/0", "10.0.0.2"))),
        ),
        (
            b"\xf9\x08\x17\x0a\x02\x04\x0a\x00\x00\x01\xff",
            DhcpAnswer(None, None, (("10.2.4.0/23", "10.0.0.1"),)),
        ),
        (b"\xf9\x05\x21\x0a\x00\x00\x01\xff", DhcpAnswer()),  # no such prefix
        (b"\xf9\x06\x00\x0a\x00\x00\x01\x20\xff", DhcpAnswer(None, None, (("0.0.0.0/0", "10.0.0.1"),))),  # rest cut
        (b"\xf9\x04\x00\x0a\x00\x00\xff", DhcpAnswer()),
    ],
)
def test_options(options: bytes, expected: DhcpAnswer) -> None:
    assert parse_options(options) == expected


@given(st.binary(max_size=600))
def test_no_options_are_read_past_the_end(options: bytes) -> None:
    parse_options(options)
    if len(options) >= 6:
        parse_response(build_discover(MAC, TRANSACTION, broadcast=False), answer(options))


class Network:
    """A socket factory with one outcome per attempt: an answer, or an error."""

    def __init__(self, *outcomes: bytes | OSError) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.pauses: list[float] = []
        self.closed = 0
        self.prepared = 0

    def open(self) -> socket.socket:
        return self  # type: ignore[return-value]

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append((data, address))

    def recv(self, size: int) -> bytes:
        assert size == 1024
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def close(self) -> None:
        self.closed += 1

    def prepare(self) -> None:
        self.prepared += 1
        raise OSError("no iptables here")

    def run(self, *, stop_at: int | None = None, broadcast: bool = False) -> DhcpAnswer:
        def sleep(seconds: float) -> bool:
            self.pauses.append(seconds)
            return len(self.pauses) == stop_at

        return exchange(
            MAC,
            broadcast=broadcast,
            opened=self.open,
            before_attempt=self.prepare,
            sleep=sleep,
            random=lambda size: TRANSACTION[:size],
        )


def test_an_exchange_that_succeeds_at_once() -> None:
    network = Network(answer(ENDPOINT))
    assert network.run() == DhcpAnswer("168.63.129.16")
    assert network.sent == [(build_discover(MAC, TRANSACTION, broadcast=False), ("255.255.255.255", 67))]
    assert (network.pauses, network.closed, network.prepared) == ([], 1, 1)


def test_an_exchange_goes_on_after_failures_and_then_asks_for_a_broadcast() -> None:
    network = Network(socket.timeout("timed out"), b"short", answer(ENDPOINT, mac=b"\0" * 6), answer(ENDPOINT))
    assert network.run() == DhcpAnswer("168.63.129.16")
    assert network.pauses == [0, 10, 30]
    assert [data[10:12] for data, _address in network.sent] == [b"\0\0", b"\x80\0", b"\x80\0", b"\x80\0"]
    assert (network.closed, network.prepared) == (4, 4)


def test_an_exchange_gives_up_after_five_attempts() -> None:
    network = Network(*[socket.timeout("timed out")] * 5)
    with pytest.raises(DhcpError, match=r"^Failed to receive dhcp response\. timed out$"):
        network.run(broadcast=True)
    assert network.pauses == [0, 10, 30, 60]
    assert network.closed == 5
    assert network.sent[0][0][10:12] == b"\x80\0"


def test_an_exchange_ends_when_the_agent_is_stopped() -> None:
    network = Network(*[socket.timeout("timed out")] * 5)
    with pytest.raises(DhcpError):
        network.run(stop_at=2)
    assert len(network.sent) == 2


def test_the_socket_of_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp, "_CLIENT", ("127.0.0.1", 0))  # the real port takes root
    with dhcp.open_socket() as opened:
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert opened.type == socket.SOCK_DGRAM
        assert opened.gettimeout() == 10
    monkeypatch.setattr(dhcp, "_CLIENT", ("192.0.2.1", 68))
    with pytest.raises(OSError):
        dhcp.open_socket()


def test_a_socket_that_cannot_be_opened_is_a_failed_attempt() -> None:
    def refuse() -> socket.socket:
        raise PermissionError("Operation not permitted")

    with pytest.raises(DhcpError, match=r"Operation not permitted"):
        exchange(MAC, opened=refuse, sleep=lambda _seconds: False)
