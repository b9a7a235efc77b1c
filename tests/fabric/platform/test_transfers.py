"""Downloads and direct uploads through the transfer helper, with servers that misbehave (wireserver §16, §17.4)."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fabric.platform.rawserver import Connection, RawServer, always, serving
from tests.unit.platform.memoryworld import Clock, Events, Lines
from waagent.errors import ExtensionDownloadError, ProtocolError
from waagent.log import Log
from waagent.platform import transfer
from waagent.platform.channel import Channels
from waagent.platform.endpoint import Endpoint
from waagent.platform.helperprocess import HelperFailed, Stopped, TransferHelper
from waagent.platform.hostplugin import HostPlugin, Identity
from waagent.platform.observations import Observations
from waagent.platform.proxy import ProxyRules
from waagent.platform.statusblob import StorageCall, storage_calls
from waagent.platform.transfers import DIRECT, HOST, Transfers

pytestmark = pytest.mark.fabric

QUERY = "?sv=2018&sig=SECRET%2bvalue%3d"


class HostServer:
    """A host plugin whose artifact answer a test sets; it fetches nothing itself."""

    def __init__(self) -> None:
        self.artifact: Callable[[Connection, bytes], None] = lambda connection, _: connection.answer(b"", "502 Bad")
        self.server = RawServer(self._serve)

    def _serve(self, connection: Connection) -> None:
        while True:
            request = connection.request()
            if not request:
                return
            if request.startswith(b"GET /versions"):
                connection.answer(b'["2015-09-01"]')
            else:
                self.artifact(connection, request)

    @property
    def artifact_requests(self) -> list[bytes]:
        return [request for request in self.server.requests if b"/extensionArtifact" in request]


class Bench:
    """Transfers with everything that a test looks at."""

    def __init__(self, root: Path, helper: TransferHelper, environment: dict[str, str] | None = None) -> None:
        self.root = root
        self.clock = Clock()
        self.channels = Channels("agent")
        self.events = Events()
        self.sinks = Lines()
        self.stopping = threading.Event()
        self.host = HostServer()
        self.identity = Identity("container-1", "config-1.x")
        self.refreshed = 0
        self.health = Observations(self.events, self.clock)
        endpoint = Endpoint(
            "HostGAPlugin",
            self.host.server.address,
            self.channels,
            clock=self.clock,
            sleep=self.clock.sleep,
            stopping=self.stopping,
        )
        log = Log(self.sinks, "ExtHandler")
        self.plugin = HostPlugin(
            endpoint,
            identity=lambda: self.identity,
            refresh=self._refresh,
            fast_track_file=str(root / "fast_track.json"),
            log=log,
            events=self.events,
            health=self.health,
        )
        self.helper = helper
        self.transfers = Transfers(
            self.plugin,
            helper,
            ProxyRules(environment=environment or {}),
            log=log,
            events=self.events,
            period=lambda: 6.0,
        )

    def close(self) -> None:
        self.host.server.close()
        self.channels.close()

    def _refresh(self) -> None:
        self.refreshed += 1
        self.identity = Identity("container-2", "config-2.x")

    @property
    def target(self) -> str:
        return str(self.root / "package.zip.partial")

    def fetch(self, *uris: str, **options: Any) -> Any:
        return self.transfers.fetch("the artifact", uris, verify=False, **options)


@pytest.fixture(scope="module")
def helper() -> Iterator[TransferHelper]:
    made = TransferHelper("WALinuxAgent/3.0.0.0", idle=30)
    yield made
    if made.pid:
        os.kill(made.pid, signal.SIGKILL)


@pytest.fixture
def bench(tmp_path: Path, helper: TransferHelper) -> Iterator[Bench]:
    made = Bench(tmp_path, helper)
    yield made
    made.close()


def dead_url() -> str:
    with serving(always()) as server:
        return server.url("/gone" + QUERY)


def test_a_document_is_had_directly(bench: Bench) -> None:
    with serving(always(b"\xef\xbb\xbf<xml/>")) as server:
        path = "/c/a%5Fb%2Dc" + QUERY
        found = bench.fetch(server.url(path))
        assert (found.body, found.uri) == (b"<xml/>", server.url(path))
        request = server.requests[0].decode()
        assert request.startswith("GET /c/a%5Fb%2Dc?sv=2018&sig=SECRET%2Bvalue%3D HTTP/1.1\r\n")
        lines = sorted(line.partition(":")[0].lower() for line in request.strip().split("\r\n")[1:])
        assert lines == ["accept-encoding", "host", "user-agent"]
        assert "identity" in request
        assert "WALinuxAgent/3.0.0.0" in request
        assert bench.host.artifact_requests == []


def test_a_package_is_streamed_to_a_private_file(bench: Bench) -> None:
    data = os.urandom(5 << 20)
    with serving(always(data)) as server:
        found = bench.fetch(server.url("/p"), target=bench.target, kind="host-package")
        assert (found.size, found.body) == (len(data), b"")
    assert Path(bench.target).read_bytes() == data
    assert os.stat(bench.target).st_mode & 0o777 == 0o600


def test_through_the_host_plugin_when_there_is_no_way_out(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"content")
    uri = dead_url()
    found = bench.transfers.fetch("x", (uri,), verify=True, manifest_uri="https://m/manifest?sig=M")
    assert found.body == b"content"
    (request,) = bench.host.artifact_requests
    headers = dict(line.split(": ", 1) for line in request.decode().strip().split("\r\n")[1:])
    assert headers["x-ms-artifact-location"] == uri
    assert headers["x-ms-version"] == "2015-09-01"
    assert headers["x-ms-containerid"] == "container-1"
    assert headers["x-ms-host-config-name"] == "config-1.x"
    assert headers["x-ms-verify-from-artifacts-blob"] == "true"
    assert headers["x-ms-artifact-manifest-location"] == "https://m/manifest?sig=M"
    assert bench.transfers.channel == HOST
    assert bench.sinks.having("Default channel changed to HostGAPlugin channel.")
    assert len(bench.events.named("DefaultChannelChange")) == 1


def test_the_default_channel_sticks_and_changes_back(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"host")
    with serving(always(b"direct")) as server:
        assert bench.fetch(dead_url()).body == b"host"
        assert bench.fetch(server.url()).body == b"host"
        assert server.requests == []
        bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
        assert bench.fetch(server.url()).body == b"direct"
    assert bench.transfers.channel == DIRECT
    assert len(bench.events.named("DefaultChannelChange")) == 2


def test_both_channels_failing_keeps_the_default(bench: Bench) -> None:
    with pytest.raises(ExtensionDownloadError, match="Failed to download the artifact from all URIs") as caught:
        bench.fetch(dead_url())
    assert caught.value.code == 1001
    assert "SECRET" not in str(caught.value)
    assert bench.transfers.channel == DIRECT
    assert bench.clock.slept == [2, 3, 5, 8, 13]
    assert len(bench.host.artifact_requests) == 6


def test_requests_without_an_answer_are_counted_by_peer(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.reset()
    with pytest.raises(ExtensionDownloadError):
        bench.fetch(dead_url())
    with pytest.raises(ProtocolError):
        bench.transfers.upload(StorageCall(dead_url(), (), b"{}"))
    assert (bench.transfers.take_connection_errors(), bench.plugin.endpoint.take_connection_errors()) == (7, 6)
    assert (bench.transfers.take_connection_errors(), bench.plugin.endpoint.take_connection_errors()) == (0, 0)


def test_all_locations_are_tried_before_any_is_tried_again(bench: Bench) -> None:
    with serving(always(b"", "404 Not Found")) as bad, serving(always(b"good")) as good:
        for _ in range(5):
            bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
            assert bench.fetch(bad.url("/1"), good.url("/2"), bad.url("/3")).body == b"good"
        assert bench.clock.slept == []


def test_final_answers_are_not_tried_again(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
    with serving(always(b"<Error>BlobNotFound</Error>", "404 Not Found")) as server:
        with pytest.raises(ExtensionDownloadError, match="BlobNotFound"):
            bench.fetch(server.url())
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["204 No Content", "302 Found", "403 Forbidden"])
def test_a_failing_status_is_never_an_empty_success(bench: Bench, status: str) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
    answer = always(b"", status, "Location: http://127.0.0.1:1/")
    with serving(answer) as server, pytest.raises(ExtensionDownloadError):
        bench.fetch(server.url(), target=bench.target)
    assert not os.path.exists(bench.target)


def test_a_package_cut_short_once_is_fetched_again(bench: Bench) -> None:
    def serve(connection: Connection) -> None:
        while connection.request():
            if len(connection.server.requests) == 1:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
                return
            connection.answer(b"whole")

    with serving(serve) as server:
        found = bench.fetch(server.url(), target=bench.target, kind="host-package")
        assert found.size == 5
    assert Path(bench.target).read_bytes() == b"whole"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\nhalf",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_broken_answers_leave_no_file(bench: Bench, data: bytes) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(data)

    with serving(serve) as server:
        with pytest.raises(ExtensionDownloadError):
            bench.fetch(server.url(), target=bench.target)
        assert len(server.requests) == 6
    assert not os.path.exists(bench.target)


@pytest.mark.parametrize("announced", [True, False])
def test_a_package_that_is_too_large_is_refused(bench: Bench, announced: bool) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 2000000\r\n" if announced else b"") + b"\r\n")
        connection.send(b"x" * 2_000_000)

    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
    with serving(serve) as server:
        with pytest.raises(ExtensionDownloadError, match="allowed"):
            bench.fetch(server.url(), target=bench.target, limit=1_000_000)
        assert len(server.requests) == 1
    assert not os.path.exists(bench.target)


def test_the_deadline_covers_reads_under_way(bench: Bench) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not connection.server.over.wait(0.05):
            connection.send(b"x")

    with serving(serve) as server:
        started = time.monotonic()
        with pytest.raises(ExtensionDownloadError):
            bench.fetch(server.url(), target=bench.target, seconds=1.0)
        assert time.monotonic() - started < 8
    assert not os.path.exists(bench.target)


def test_the_time_between_rounds_counts(bench: Bench) -> None:
    with pytest.raises(ExtensionDownloadError, match="Timeout downloading the artifact"):
        bench.fetch(dead_url(), seconds=9.0)
    assert bench.clock.slept == [2, 3]


@pytest.mark.parametrize("when", ["in a transfer", "in a pause"])
def test_who_gives_a_download_up_is_back_soon(bench: Bench, when: str) -> None:
    stop = threading.Event()
    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")

    def serve(connection: Connection) -> None:
        while connection.request():
            if when == "in a pause":
                connection.answer(b"", "503 Busy", "Retry-After: 200")
                stop.set()
                continue
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            stop.set()
            connection.server.over.wait(30)

    with serving(serve) as server:
        began = time.monotonic()
        with pytest.raises(ExtensionDownloadError):
            bench.fetch(server.url(), target=bench.target, stop=stop)
        assert time.monotonic() - began < 10
    assert sum(bench.clock.slept) <= 1
    assert len(server.requests) == 1


def test_a_throttled_round_waits_as_long_as_it_is_asked_to(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")

    def serve(connection: Connection) -> None:
        while connection.request():
            many = len(connection.server.requests)
            if many == 1:
                connection.answer(b"", "503 Busy", "Retry-After: 20")
            elif many == 2:
                connection.answer(b"", "429 Slow down")
            else:
                connection.answer(b"content")

    with serving(serve) as server:
        assert bench.fetch(server.url()).body == b"content"
    assert bench.clock.slept == [20, 6]


@pytest.mark.parametrize("answer", ["410 Gone", "400 Bad Request"])
def test_a_stale_identity_is_refreshed_and_the_call_made_once_more(bench: Bench, answer: str) -> None:
    def artifact(connection: Connection, request: bytes) -> None:
        if b"container-2" in request:
            connection.answer(b"content")
        else:
            connection.answer(b"InvalidContainerConfiguration" if answer.startswith("400") else b"", answer)

    bench.host.artifact = artifact
    assert bench.fetch(dead_url()).body == b"content"
    assert (bench.refreshed, len(bench.host.artifact_requests)) == (1, 2)


def test_gone_twice_fails_and_the_default_channel_stays(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "410 Gone")
    with serving(always(b"", "404 Not Found")) as server, pytest.raises(ExtensionDownloadError):
        bench.fetch(server.url())
    assert len(bench.host.artifact_requests) == 2
    assert bench.transfers.channel == DIRECT


def test_a_package_that_does_not_pass_the_check_counts_as_a_failed_location(bench: Bench) -> None:
    def check(path: str) -> None:
        if Path(path).read_bytes() == b"bad":
            raise ValueError("not a zip")

    with serving(always(b"bad")) as bad, serving(always(b"good")) as good:
        for _ in range(4):
            found = bench.fetch(bad.url(), good.url(), target=bench.target, check=check)
            assert found.uri == good.url()
        with pytest.raises(ExtensionDownloadError, match="not a zip"):
            bench.fetch(bad.url(), target=bench.target, check=check)


def test_a_file_that_cannot_be_written_is_named(bench: Bench) -> None:
    with serving(always(b"x")) as server:
        with pytest.raises(ExtensionDownloadError, match="No such file or directory"):
            bench.fetch(server.url(), target=str(bench.root / "missing" / "file"))
        assert len(server.requests) == 1


def test_a_link_in_the_place_of_the_file_is_not_followed(bench: Bench) -> None:
    precious = bench.root / "precious"
    precious.write_text("precious")
    (bench.root / "link").symlink_to(precious)
    with serving(always(b"x")) as server, pytest.raises(ExtensionDownloadError, match="symbolic links"):
        bench.fetch(server.url(), target=str(bench.root / "link"))
    assert precious.read_text() == "precious"


def test_a_file_system_that_takes_no_more_is_named_and_keeps_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        f"runpy.run_path({transfer.__file__!r}, run_name='__main__')"
    )
    own = TransferHelper("agent", idle=0.2, argv=[sys.executable, "-I", "-S", "-c", script])
    bench = Bench(tmp_path, own)
    with serving(always(b"x" * 1_000_000)) as server:
        with pytest.raises(ExtensionDownloadError, match="File too large"):
            bench.fetch(server.url(), target=bench.target)
        assert len(server.requests) == 1
    bench.close()
    assert not os.path.exists(bench.target)
    wait_until(lambda: own.pid is None)


def test_no_location_at_all(bench: Bench) -> None:
    with pytest.raises(ExtensionDownloadError, match="no location"):
        bench.fetch("", "")


class TestProxies:
    def test_the_direct_channel_goes_through_the_proxy_and_the_host_channel_never(
        self, tmp_path: Path, helper: TransferHelper
    ) -> None:
        with serving(always(b"", "502 Bad Gateway")) as proxy:
            bench = Bench(tmp_path, helper, {"http_proxy": proxy.url()})
            bench.host.artifact = lambda connection, _: connection.answer(b"host")
            assert bench.fetch("http://storage.invalid/c/b" + QUERY).body == b"host"
            assert proxy.requests[0].startswith(b"GET http://storage.invalid/c/b?sv=2018&sig=SECRET")
            assert len(bench.host.artifact_requests) == 1
            bench.close()

    def test_https_goes_through_connect(self, tmp_path: Path, helper: TransferHelper) -> None:
        with serving(always(b"", "403 Forbidden")) as proxy:
            bench = Bench(tmp_path, helper, {"https_proxy": proxy.url(), "no_proxy": "other.invalid"})
            bench.host.artifact = lambda connection, _: connection.answer(b"host")
            assert bench.fetch("https://storage.invalid/c/b" + QUERY).body == b"host"
            assert proxy.requests[0].startswith(b"CONNECT storage.invalid:443 HTTP/1.")
            assert b"SECRET" not in proxy.requests[0]
            bench.close()

    def test_no_proxy_with_a_network(self, tmp_path: Path, helper: TransferHelper) -> None:
        with serving(always(b"", "502 Bad Gateway")) as proxy, serving(always(b"direct")) as server:
            bench = Bench(tmp_path, helper, {"http_proxy": proxy.url(), "no_proxy": "10.0.0.0/8,127.0.0.0/8"})
            assert bench.fetch(server.url()).body == b"direct"
            assert proxy.requests == []
            bench.close()

    def test_the_environment_of_the_process_does_not_reach_the_helper(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
        own = TransferHelper("agent", idle=0.2)
        bench = Bench(tmp_path, own)
        with serving(always(b"direct")) as server:
            assert bench.fetch(server.url()).body == b"direct"
        bench.close()
        wait_until(lambda: own.pid is None)
        monkeypatch.undo()


class TestUploads:
    def test_a_block_blob(self, bench: Bench) -> None:
        with serving(always(b"", "201 Created")) as server:
            (call,) = storage_calls(server.url("/c/s" + QUERY), "BlockBlob", b'{"a":1}', "2026-01-01T00:00:00Z")
            bench.transfers.upload(call)
            head, _, body = server.requests[0].partition(b"\r\n\r\n")
            assert body == b'{"a":1}'
            assert head.startswith(b"PUT /c/s?sv=2018&sig=SECRET%2Bvalue%3D HTTP/1.1")
            for line in (b"Content-Length: 7", b"x-ms-blob-type: BlockBlob", b"x-ms-version: 2014-02-14"):
                assert head.count(line) == 1

    def test_the_creation_of_a_page_blob_has_no_body(self, bench: Bench) -> None:
        with serving(always(b"", "201 Created")) as server:
            for call in storage_calls(server.url("/c/s" + QUERY), "PageBlob", b"x" * 600):
                bench.transfers.upload(call)
            creation, page = server.requests
            assert b"Content-Length: 0\r\n" in creation
            assert creation.endswith(b"\r\n\r\n")
            assert b"comp=page" in page
            assert len(page.partition(b"\r\n\r\n")[2]) == 1024

    @pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "404 Not Found", "503 Busy"])
    def test_only_201_is_success(self, bench: Bench, status: str) -> None:
        with serving(always(b"", status)) as server:
            with pytest.raises(ProtocolError) as caught:
                bench.transfers.upload(StorageCall(server.url("/c/s" + QUERY), (), b"x"))
            assert "SECRET" not in str(caught.value)


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.02)


def job(url: str, **changes: Any) -> dict[str, Any]:
    return {"ways": [{"url": url}], "target": None, "limit": 1 << 20, "deadline": 20.0, "timeout": 10.0, **changes}


def never() -> bool:
    return False


class TestHelper:
    def test_one_process_serves_a_batch_and_leaves_when_idle(self) -> None:
        own = TransferHelper("agent", idle=0.3)
        with serving(always(b"x")) as server:
            for _ in range(20):
                assert own.run(job(server.url()), never)["way"] == 0
            pid = own.pid
            assert (own.started, server.connections) == (1, 1)
            assert pid is not None
            wait_until(lambda: own.pid is None)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert own.run(job(server.url()), never)["way"] == 0
            assert own.started == 2
            wait_until(lambda: own.pid is None)

    def test_its_command_line_and_environment_hold_no_secret(self, bench: Bench) -> None:
        seen: list[bytes] = []

        def serve(connection: Connection) -> None:
            while connection.request():
                folder = Path(f"/proc/{bench.helper.pid}")
                seen.extend(((folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()))
                connection.answer(b"x")

        if not os.path.isdir("/proc/self"):
            pytest.skip("no /proc here")
        with serving(serve) as server:
            bench.fetch(server.url("/x" + QUERY))
        assert len(seen) == 2
        assert b"transfer.py" in seen[0]
        assert not any(b"SECRET" in text or b"sig=" in text for text in seen)

    def test_several_lanes_at_once(self) -> None:
        own = TransferHelper("agent", idle=0.3)
        together = threading.Barrier(4)

        def serve(connection: Connection) -> None:
            while connection.request():
                together.wait(10)  # answered only when four are under way
                connection.answer(b"x" * 100_000)

        answers: list[dict[str, Any]] = []
        with serving(serve) as server:
            threads = [
                threading.Thread(target=lambda: answers.append(own.run(job(server.url()), never))) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert [answer["size"] for answer in answers] == [100_000] * 8
        assert own.started == 1
        wait_until(lambda: own.pid is None)

    def test_it_is_started_again_when_it_dies_and_the_transfer_repeated(self) -> None:
        own = TransferHelper("agent", idle=0.3)

        def serve(connection: Connection) -> None:
            while connection.request():
                if len(connection.server.requests) == 1:
                    assert own.pid is not None
                    os.kill(own.pid, signal.SIGKILL)
                    return
                connection.answer(b"second")

        with serving(serve) as server:
            answer = own.run(job(server.url()), never)
            assert (answer["way"], own.started) == (0, 2)
        wait_until(lambda: own.pid is None)

    def test_a_helper_that_dies_again_and_again_is_an_error(self) -> None:
        own = TransferHelper("agent", argv=[sys.executable, "-I", "-S", "-c", "pass"])
        with pytest.raises(HelperFailed, match="ended without an answer"):
            own.run(job("http://127.0.0.1:1/"), never)
        assert own.started == 2

    def test_a_helper_that_cannot_be_started_is_an_error(self) -> None:
        own = TransferHelper("agent", argv=["/nonexistent/python"])
        with pytest.raises(HelperFailed, match="cannot be started: No such file"):
            own.run(job("http://127.0.0.1:1/"), never)

    def test_a_helper_that_answers_nonsense_and_hangs_is_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("waagent.platform.helperprocess.GRACE", 0.5)
        script = "import time; print('nonsense', flush=True); print('{\"id\": 99}', flush=True); time.sleep(60)"
        own = TransferHelper("agent", argv=[sys.executable, "-I", "-S", "-c", script])
        with pytest.raises(HelperFailed, match="did not keep its deadline"):
            own.run(job("http://127.0.0.1:1/", deadline=0.5), never)
        wait_until(lambda: own.pid is None)

    def test_stopping_gives_a_transfer_up(self) -> None:
        own = TransferHelper("agent", idle=0.3)
        asked = threading.Event()

        def serve(connection: Connection) -> None:
            connection.request()
            asked.set()
            connection.server.over.wait(30)

        with serving(serve) as server:
            started = time.monotonic()
            with pytest.raises(Stopped):
                own.run(job(server.url()), asked.is_set)
            assert time.monotonic() - started < 5
            assert own.pid is None, "what nobody waits for is not transferred any more"

    def test_a_transfer_beside_one_that_is_given_up_succeeds(self) -> None:
        own = TransferHelper("agent", idle=0.3)
        both = threading.Barrier(2)
        answers: list[dict[str, Any]] = []

        def serve(connection: Connection) -> None:
            while request := connection.request():
                if len(connection.server.requests) <= 2:
                    both.wait(10)
                    connection.server.over.wait(30)
                elif request.startswith(b"GET /kept"):
                    connection.answer(b"content")

        with serving(serve) as server:
            kept = threading.Thread(target=lambda: answers.append(own.run(job(server.url("/kept")), never)))
            kept.start()
            with pytest.raises(Stopped):
                own.run(job(server.url("/unwanted")), lambda: len(server.requests) >= 2)
            kept.join(20)
        assert [answer["way"] for answer in answers] == [0]
        wait_until(lambda: own.pid is None)

    def test_it_leaves_with_the_process_that_started_it(self) -> None:
        read, write = os.pipe()
        hello = json.dumps({"path": sys.path, "user_agent": "agent", "idle": 60}).encode() + b"\n"
        import subprocess

        with subprocess.Popen(
            [sys.executable, "-I", "-S", transfer.__file__], stdin=read, stdout=subprocess.PIPE
        ) as process:
            os.close(read)
            os.write(write, hello)
            os.close(write)
            assert process.wait(10) == 0

    def test_a_broken_installation_is_an_answer(self) -> None:
        own = TransferHelper("agent", idle=0.3)
        script = (
            "import sys, runpy; sys.argv = ['transfer.py']; "
            f"sys.modules['requests'] = None; runpy.run_path({transfer.__file__!r}, run_name='__main__')"
        )
        own = TransferHelper("agent", idle=0.3, argv=[sys.executable, "-I", "-c", script])
        answer = own.run(job("http://127.0.0.1:1/"), never)
        assert answer["way"] is None
        assert "ModuleNotFoundError" in answer["failures"][0]["message"]
        wait_until(lambda: own.pid is None)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://host/x", "http://", "http://[bad/", "http://host:99999/", "http://ho st/", "file:///etc/passwd"]
)  # fmt: skip
def test_what_is_no_url_is_an_error_of_that_location(bench: Bench, url: str) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "404 Not Found")
    with serving(always(b"good")) as server:
        assert bench.fetch(*(item for item in (url, server.url()) if item)).body == b"good"


def test_an_untrusted_certificate_is_refused(bench: Bench, tmp_path: Path) -> None:
    import ssl
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=127.0.0.1", "-newkey", "rsa:2048", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(connection: Connection) -> None:
        try:
            with context.wrap_socket(connection.raw, server_side=True) as wrapped:
                Connection(wrapped, connection.server).request()
        except (OSError, ValueError):
            return

    bench.host.artifact = lambda connection, _: connection.answer(b"host")
    with serving(serve) as server:
        assert bench.fetch(f"https://{server.address}/x" + QUERY).body == b"host"
        assert server.requests == []


def test_the_health_of_the_host_plugin_is_noted(bench: Bench) -> None:
    bench.host.artifact = lambda connection, _: connection.answer(b"", "500 Broken")
    for _ in range(6):
        with pytest.raises(ExtensionDownloadError):
            bench.fetch(dead_url())
        bench.clock.now += 60
    assert [event for event in bench.events.seen if "GuestAgentPluginArtifact" in event[2]]
    assert isinstance(bench.health.take(), bytes)


def test_a_host_plugin_that_is_not_available_is_told(tmp_path: Path, helper: TransferHelper) -> None:
    bench = Bench(tmp_path, helper)
    bench.close()
    with pytest.raises(ExtensionDownloadError, match="refused"):
        bench.fetch(dead_url())


class TestOtherWork:
    """Functions that run in the helper, because what they import should not stay in the worker."""

    def test_a_result_comes_back_and_the_modules_stay_away(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "GoalState.xml").write_text("<GoalState/>")
        helper = TransferHelper("x/1", idle=0.2)
        wanted = {"directory": str(tmp_path), "surplus": ["two", "gone"], "plain": ["one"]}
        assert helper.call("waagent.platform.history:tidy", wanted, 30.0, lambda: False) == []
        assert sorted(os.listdir(tmp_path)) == ["one.zip"]

    @pytest.mark.parametrize(
        ("function", "said"),
        [("nowhere.at:all", "ModuleNotFoundError"), ("os:nothing", "AttributeError"), ("os:listdir", "TypeError")],
    )
    def test_what_goes_wrong_there_is_told_here(self, function: str, said: str) -> None:
        helper = TransferHelper("x/1", idle=0.2)
        with pytest.raises(HelperFailed, match=f"{function}: {said}"):
            helper.call(function, {"unknown": 1}, 30.0, lambda: False)
