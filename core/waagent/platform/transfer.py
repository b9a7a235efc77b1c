"""The transfer helper: a short-lived process for what needs TLS, proxies and streaming (ruling 30a).

Started by :mod:`waagent.platform.helperprocess` as a script. Standard input: one JSON line with the module search path,
then one JSON line per transfer; standard output: one JSON line per transfer, in the order in which they end. It leaves
when it had nothing to do for a while, or when its standard input ends. URLs come over standard input alone: they open
doors.

A transfer tries each of its ways once, in order, until one succeeds. What is tried again, and when, is decided by the
resident side.

Request::

    {"id": 1, "ways": [{"url": …, "method": "GET", "headers": [[name, value], …], "proxy": "http://host:port" or null,
                        "body": base64 or null, "success": [200, 201, 202]}, …],
     "target": path of a partial file or null, "limit": bytes, "deadline": seconds, "timeout": seconds}

Answer::

    {"id": 1, "way": index or null, "size": bytes, "body": base64 or null,
     "failures": [{"way": index, "kind": "status" | "connection" | "timeout" | "cut" | "large" | "file" | "request",
                   "status": code or null, "headers": {…}, "message": text, "body": text}, …]}

Other work that would leave heavy modules behind in a resident process is done here too (unzipping, zipping)::

    {"id": 2, "call": "module:function", "arguments": {…}, "deadline": seconds}
    {"id": 2, "result": JSON} or {"id": 2, "failed": text}
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

IDLE = 5.0
"""Seconds without a transfer after which the helper leaves."""
WORKERS = 4
"""Transfers at a time."""
PIECE = 1 << 20
SHOWN_BODY = 1024


class Failed(Exception):
    """One way did not work.

    Attributes:
        kind: see the module's description.
        status: the status code, ``None`` when there was none.
    """

    def __init__(
        self, kind: str, message: str, status: int | None = None, headers: dict[str, str] | None = None, body: str = ""
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.headers = headers or {}
        self.body = body


def trust_store() -> str | bool:
    """Return the system's certificate authorities, which administrators maintain; the library's own without any."""
    import ssl

    found = ssl.get_default_verify_paths()
    if found.cafile:
        return found.cafile
    if found.capath and any(name.endswith(".0") for name in os.listdir(found.capath)):
        return found.capath
    return True


def make_session(user_agent: str) -> Any:
    """Return a session that does nothing of its own accord: no environment, no redirects, no headers but ours."""
    from http.cookiejar import DefaultCookiePolicy

    import requests

    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "identity"})
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=WORKERS, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.verify = trust_store()
    return session


def perform(session: Any, job: dict[str, Any], clock: Any = time.monotonic) -> dict[str, Any]:
    """Make one transfer and return its answer."""
    deadline = clock() + float(job["deadline"])
    failures: list[dict[str, Any]] = []
    for index, way in enumerate(job["ways"]):
        try:
            size, body = _try(session, job, way, deadline, clock)
        except Failed as problem:
            failures.append(
                {
                    "way": index,
                    "kind": problem.kind,
                    "status": problem.status,
                    "headers": problem.headers,
                    "message": str(problem),
                    "body": problem.body,
                }
            )
            if problem.kind == "file":
                break
            continue
        return {"id": job["id"], "way": index, "size": size, "body": body, "failures": failures}
    return {"id": job["id"], "way": None, "size": 0, "body": None, "failures": failures}


def _try(session: Any, job: dict[str, Any], way: dict[str, Any], deadline: float, clock: Any) -> tuple[int, str | None]:
    import requests
    import urllib3

    left = deadline - clock()
    if left <= 0:
        raise Failed("timeout", "out of time")
    timeout = min(float(job["timeout"]), left)
    where = _bare(way["url"])
    try:
        request = requests.Request(way.get("method") or "GET", way["url"])
        prepared = session.prepare_request(request)
        # The library rewrites percent escapes (%2D becomes -), and a signature may be over them.
        prepared.url = way["url"]
        body = way.get("body")
        if body is not None:
            prepared.body = base64.b64decode(body)
            prepared.headers["Content-Length"] = str(len(prepared.body))
        for name, value in way.get("headers") or ():
            prepared.headers[name] = value
        proxy = way.get("proxy")
        response = session.send(
            prepared,
            timeout=(timeout, timeout),
            stream=True,
            allow_redirects=False,
            proxies={"http": proxy, "https": proxy} if proxy else {},
        )
    except requests.exceptions.Timeout:
        raise Failed("timeout", f"{where}: no answer in time") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema):
        raise Failed("request", f"{where}: not a URL that can be asked") from None
    except (requests.exceptions.InvalidHeader, UnicodeError, ValueError) as problem:
        raise Failed("request", f"{where}: the request cannot be sent ({type(problem).__name__})") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as problem:
        raise Failed("connection", f"{where}: {_reason(problem)}") from None
    with contextlib.closing(response), _out_of_time_ends(response, deadline - clock()):
        return _receive(response, job, way, where, deadline, clock)


def _receive(
    response: Any, job: dict[str, Any], way: dict[str, Any], where: str, deadline: float, clock: Any
) -> tuple[int, str | None]:
    limit = int(job["limit"])
    if response.status_code not in (way.get("success") or (200, 201, 202)):
        said = b""
        with contextlib.suppress(Exception):
            said = response.raw.read(SHOWN_BODY, decode_content=False)
        wanted = ("retry-after", "x-ms-error-code")
        headers = {name.lower(): value for name, value in response.headers.items() if name.lower() in wanted}
        raise Failed(
            "status", f"{where}: {response.status_code} {response.reason}", response.status_code, headers,
            said.decode("ascii", "ignore"),
        )  # fmt: skip
    length = response.headers.get("Content-Length")
    expected = int(length) if length is not None and length.isascii() and length.isdecimal() else None
    if expected is not None and expected > limit:
        raise Failed("large", f"{where}: {expected} bytes, allowed are {limit}")
    target = job.get("target")
    received = 0
    pieces: list[bytes] = []
    try:
        with _partial(target) as stream:
            for piece in _pieces(response, where, deadline, clock):
                received += len(piece)
                if received > limit:
                    raise Failed("large", f"{where}: more than the {limit} bytes allowed")
                if stream is None:
                    pieces.append(piece)
                else:
                    stream.write(piece)
            if expected is not None and received != expected:
                raise Failed("cut", f"{where}: the answer was cut short, {received} of {expected} bytes came")
    except OSError as problem:
        raise Failed("file", f"{target}: {problem.strerror or problem}") from None
    return received, None if target else base64.b64encode(b"".join(pieces)).decode("ascii")


def _pieces(response: Any, where: str, deadline: float, clock: Any) -> Iterator[bytes]:
    import urllib3

    while True:
        if clock() >= deadline:
            raise Failed("timeout", f"{where}: the transfer took too long")
        try:
            piece = response.raw.read(PIECE, decode_content=False)
        except urllib3.exceptions.ReadTimeoutError:
            raise Failed("timeout", f"{where}: the transfer stalled") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as problem:
            late = clock() >= deadline
            kind = "timeout" if late else "cut"
            said = "the transfer took too long" if late else f"the answer was cut short ({_reason(problem)})"
            raise Failed(kind, f"{where}: {said}") from None
        if not piece:
            return
        yield piece


@contextlib.contextmanager
def _partial(path: str | None) -> Iterator[Any]:
    """Open the partial file, which is deleted unless everything went well."""
    if path is None:
        yield None
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            yield stream
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


@contextlib.contextmanager
def _out_of_time_ends(response: Any, seconds: float) -> Iterator[None]:
    """Cut the connection when the time is over: a peer that sends a byte now and then never stalls long enough."""
    import socket

    connection = getattr(response.raw, "connection", None) or getattr(response.raw, "_connection", None)
    wire: Any = getattr(connection, "sock", None)

    def cut() -> None:
        with contextlib.suppress(OSError, AttributeError):
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _bare(url: str) -> str:
    from waagent.redaction import bare_url

    return bare_url(url)


def _reason(problem: BaseException) -> str:
    """What went wrong without the library's wrapping, which repeats the URL with its query."""
    while True:
        inner = getattr(problem, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in problem.args if isinstance(item, BaseException)), None)
        if inner is None:
            break
        problem = inner
    from waagent.redaction import redact

    text = getattr(problem, "strerror", None) or str(problem)
    text = text.rpartition(">: ")[2] or type(problem).__name__
    return redact(" ".join(text.split())[:300]) or type(problem).__name__


def call(job: dict[str, Any]) -> dict[str, Any]:
    """Call the function that the job names and return the answer."""
    from importlib import import_module

    module, _, name = job["call"].partition(":")
    try:
        return {"id": job["id"], "result": getattr(import_module(module), name)(**job["arguments"])}
    except Exception as problem:
        return {"id": job["id"], "failed": f"{job['call']}: {type(problem).__name__}: {problem}"}


class Helper:
    """Reads jobs, runs a few at a time and writes their answers."""

    def __init__(self, source: int, sink: int, idle: float = IDLE) -> None:
        self._source = source
        self._sink = sink
        self._idle = idle
        self._session: Any = None
        self._running = 0
        self._condition = threading.Condition()
        self._buffer = b""
        self._user_agent = "WALinuxAgent"

    def run(self) -> None:
        """Work until nothing comes for a while, or the input ends: then nobody waits for answers any more."""
        while True:
            line = self._line()
            if line is None:
                break
            message = json.loads(line)
            if "path" in message:
                sys.path[:] = message["path"]
                self._user_agent = message["user_agent"]
                self._idle = float(message.get("idle", self._idle))
                continue
            with self._condition:
                self._condition.wait_for(lambda: self._running < WORKERS)
                self._running += 1
            if self._session is None and "call" not in message:
                self._session = self._open_session()
            threading.Thread(target=self._work, args=(message,), daemon=True).start()

    def _open_session(self) -> Any:
        try:
            return make_session(self._user_agent)
        except Exception as problem:  # a broken installation is an answer too
            return problem

    def _work(self, job: dict[str, Any]) -> None:
        try:
            if "call" in job:
                answer = call(job)
            elif isinstance(self._session, Exception):
                raise self._session
            else:
                answer = perform(self._session, job)
        except Exception as problem:  # whatever it is: the resident side waits for an answer
            message = f"the transfer helper failed: {type(problem).__name__}"
            failure = {"way": 0, "kind": "request", "status": None, "headers": {}, "message": message, "body": ""}
            answer = {"id": job.get("id"), "way": None, "size": 0, "body": None, "failures": [failure]}
        data = json.dumps(answer).encode("ascii") + b"\n"
        with self._condition:
            try:
                while data:
                    data = data[os.write(self._sink, data) :]
            except OSError:
                os._exit(1)  # the resident side is gone
            self._running -= 1
            self._condition.notify_all()

    def _line(self) -> bytes | None:
        while b"\n" not in self._buffer:
            if not self._readable():
                return None
            data = os.read(self._source, 1 << 16)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        while not poll.poll(self._idle * 1000):
            with self._condition:
                if self._running == 0:
                    return False
        return True


def main() -> None:
    """Be the helper: jobs on standard input, answers on standard output."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    Helper(0, 1).run()
    os._exit(0)  # threads that nobody waits for do not hold the process


if __name__ == "__main__":
    main()
