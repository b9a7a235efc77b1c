from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest
import requests

from waagent_fabric import Fault

pytestmark = pytest.mark.fabric

GOAL_STATE = "/machine/?comp=goalstate"


def test_latency(client, fabric, clean):
    fabric.inject(Fault("latency", seconds=0.3, times=1))
    began = time.monotonic()
    assert client.wire(GOAL_STATE).status_code == 200
    assert time.monotonic() - began >= 0.3
    assert fabric.requests[-1].fault == "latency"
    assert fabric.requests[-1].seconds >= 0.3


def test_drop_gives_no_answer(client, fabric, clean):
    fabric.inject(Fault("drop", times=1))
    with pytest.raises(requests.exceptions.ReadTimeout):
        client.session.get(f"http://{fabric.wireserver}{GOAL_STATE}", headers=client.WIRE, timeout=0.3)
    record = fabric.wait_for(lambda: [item for item in fabric.requests if item.fault == "drop"], 5)[0]
    assert record.status == 0


def test_drop_ends_the_connection_after_its_seconds(client, fabric, clean):
    fabric.inject(Fault("drop", times=1, seconds=0.1))
    with pytest.raises(requests.exceptions.ConnectionError):
        client.wire(GOAL_STATE)


def test_clearing_lets_held_requests_go(client, fabric, clean):
    fault = fabric.inject(Fault("latency", seconds=600))
    answers = []
    asker = threading.Thread(target=lambda: answers.append(client.wire(GOAL_STATE).status_code), daemon=True)
    asker.start()
    fabric.wait_for(lambda: fault.hits, 5)
    assert answers == []
    fabric.clear_faults()
    asker.join(10)
    assert answers == [200]


def test_reset(client, fabric, clean):
    host, _, port = fabric.wireserver.partition(":")
    fabric.inject(Fault("reset", times=1))
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET {GOAL_STATE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_sequence_of_codes(client, fabric, clean):
    fabric.inject(Fault("status", statuses=(500, 503, 429), retry_after=7, body="why"))
    answers = [client.wire(GOAL_STATE) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [500, 503, 429, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert answers[1].text == "why"


def test_one_code_until_cleared(client, fabric, clean):
    fault = fabric.inject(Fault("status", statuses=403, server="wireserver"))
    assert {client.wire(GOAL_STATE).status_code for _ in range(3)} == {403}
    assert fault.hits == 3
    fabric.clear_faults()
    assert client.wire(GOAL_STATE).status_code == 200


def test_matching(client, fabric, clean):
    fabric.inject(Fault("status", statuses=500, server="hostplugin", method="GET", path="/versions"))
    assert client.wire(GOAL_STATE).status_code == 200
    assert client.host("/health").status_code == 200
    assert client.host("/versions").status_code == 500


def test_garbage_is_no_document(client, fabric, clean):
    fabric.inject(Fault("garbage", times=1))
    answer = client.wire(GOAL_STATE)
    assert answer.status_code == 200
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()


def test_replacing(client, fabric, clean):
    fabric.inject(Fault("replace", body="<GoalState/>", times=1))
    assert client.wire(GOAL_STATE).text == "<GoalState/>"


def test_truncation(client, fabric, clean):
    fabric.inject(Fault("truncate", times=1))
    connection = http.client.HTTPConnection(fabric.wireserver, timeout=10)
    connection.request("GET", GOAL_STATE, headers=client.WIRE)
    with pytest.raises(http.client.IncompleteRead) as caught:
        connection.getresponse().read()
    connection.close()
    whole = client.wire(GOAL_STATE).content
    assert len(caught.value.partial) == len(whole) // 2
    assert whole.startswith(caught.value.partial)


def test_an_oversize_answer(client, fabric, clean):
    fabric.inject(Fault("oversize", size=3_000_000, times=1))
    assert len(client.wire(GOAL_STATE).content) == 3_000_000


def test_an_oversize_answer_that_nobody_reads(client, fabric, clean):
    fabric.inject(Fault("oversize", size=1 << 30, times=1))
    with client.session.get(f"http://{fabric.wireserver}{GOAL_STATE}", stream=True, timeout=10) as answer:
        assert answer.headers["Content-Length"] == str(1 << 30)
    assert client.wire(GOAL_STATE).status_code == 200


def test_the_goal_state_of_before(client, fabric, clean):
    fabric.publish()
    fabric.inject(Fault("stale", path="comp=goalstate", times=1))
    stale = client.field("ExtensionsConfig")
    assert stale.endswith("incarnation=1")
    assert client.session.get(stale, headers=client.WIRE).status_code == 410
    assert client.field("Incarnation") == "2"


def test_outage_and_return(client, fabric, clean):
    address = fabric.wireserver
    assert client.wire(GOAL_STATE).status_code == 200  # a connection to lose
    fabric.inject(Fault("outage", server="wireserver"))
    for _ in range(2):
        with pytest.raises(requests.exceptions.ConnectionError):
            client.wire(GOAL_STATE)
    assert requests.get(f"http://{fabric.host_plugin}/health", timeout=10).status_code == 200
    fabric.clear_faults()
    assert fabric.wireserver == address
    assert client.wire(GOAL_STATE).status_code == 200


def test_an_outage_ends_by_itself(client, fabric, clean):
    fabric.inject(Fault("outage", seconds=0.3))
    deadline = time.monotonic() + 10
    while True:
        try:
            assert client.wire(GOAL_STATE).status_code == 200
            break
        except requests.exceptions.ConnectionError:
            assert time.monotonic() < deadline


def test_requests_are_recorded_as_sent(client, fabric, clean):
    path = "/machine/%2D%5f?comp=goalstate&x=%2b"
    host, _, port = fabric.wireserver.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Odd-CASE: Value\r\nx-ms-version: 2012-11-30\r\n"
                           "x-ms-agent-name: a\r\nConnection: close\r\n\r\n".encode())  # fmt: skip
        while connection.recv(65536):
            pass
    (record,) = fabric.wait_for_request("wireserver", "%2D%5f", timeout=5)
    assert record.path == path
    assert record.headers["X-Odd-CASE"] == "Value"
    assert record.header("x-odd-case") == "Value"
    assert record.header("absent") is None


def test_connections_are_counted(client, fabric):
    for _ in range(3):
        client.wire(GOAL_STATE)
    assert fabric.connections == 1
    requests.get(f"http://{fabric.host_plugin}/health", timeout=10)
    assert fabric.connections == 2


def test_waiting_says_what_did_not_come(fabric):
    with pytest.raises(TimeoutError, match=r"no such status within 0\.1 s; the last of 0: None"):
        fabric.wait_for_status(timeout=0.1)
    with pytest.raises(TimeoutError, match="1 requests to imds with '/metadata'"):
        fabric.wait_for_request("imds", "/metadata", timeout=0.1)
    with pytest.raises(TimeoutError, match=r"Contoso\.A not success"):
        fabric.wait_for_extension("Contoso.A", timeout=0.1)
