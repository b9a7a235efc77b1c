"""A platform in memory: answers requests without a network, so that thousands of polls take a moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from waagent.conffile import RawConfig, Setting
from waagent.config import Config
from waagent.errors import CryptError
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.platform.channel import Answer, Unreachable
from waagent.platform.client import Platform
from waagent.platform.fabricparts import Opener
from waagent.platform.models import CertificateInfo

WIRE = "10.9.8.7:80"
TICKS = 638_000_000_000_000_000
SIGNATURE = "sig=SECRET%2bSIGNATURE%3d"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.now += seconds
        return False


class Events:
    """Remembers events."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, str]] = []

    def add(self, operation: str, *, success: bool = True, message: str = "", **_: Any) -> None:
        self.seen.append((operation, success, message))

    def named(self, operation: str) -> list[tuple[str, bool, str]]:
        return [event for event in self.seen if event[0] == operation]


class Lines(Sinks):
    """Keeps log lines instead of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def write(self, level: int, body: str) -> None:
        if level >= self.level:
            self.lines.append((level, body))

    def having(self, text: str) -> list[str]:
        return [line for _, line in self.lines if text in line]


def ok(body: bytes | str = b"", **headers: str) -> Answer:
    return status(200, body, **headers)


def status(code: int, body: bytes | str = b"", **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    return Answer(code, "Reason", {name.replace("_", "-"): value for name, value in headers.items()}, data)


def unreachable(kind: str = "connection") -> Unreachable:
    return Unreachable("GET http://somewhere: Connection refused", kind, 111)


def settings_json(number: int, thumbprint: str | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"publicSettings": {"n": number}}
    if thumbprint:
        content.update(protectedSettings="UFJPVEVDVEVE", protectedSettingsCertThumbprint=thumbprint)
    return content


class World:
    """Stands for the connections of :class:`waagent.platform.client.Platform`.

    ``overrides`` is asked first: pairs of a substring of ``METHOD url`` and answers or errors, each used once.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes | None]] = []
        self.overrides: list[tuple[str, list[Answer | Exception]]] = []
        self.down = False
        self.incarnation = "1"
        self.container = "container-1"
        self.config_name = "deployment-1.rest"
        self.extensions_ticks: int | None = TICKS
        self.extensions_thumbprint: str | None = None
        self.certificates: tuple[CertificateInfo, ...] = ()
        self.names_extensions = True
        self.names_certificates = True
        self.has_status_blob = True
        self.remote_access = False
        self.vm: dict[str, Any] | None = None
        self.etag = "1"
        self.on_request: Callable[[str], None] = lambda what: None

    def answer_next(self, where: str, *answers: Answer | Exception) -> None:
        self.overrides.append((where, list(answers)))

    def paths(self, part: str = "") -> list[str]:
        return [f"{method} {url}" for method, url, _, _ in self.requests if part in f"{method} {url}"]

    def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        timeout: float = 10.0,
        limit: int = 0,
    ) -> Answer:
        what = f"{method} {url}"
        self.requests.append((method, url, dict(headers), body))
        self.on_request(what)
        for where, answers in self.overrides:
            if where in what and answers:
                found = answers.pop(0)
                if isinstance(found, Exception):
                    raise found
                return found
        if self.down:
            raise unreachable()
        return self._normal(method, url, dict(headers))

    def _normal(self, method: str, url: str, headers: dict[str, str]) -> Answer:
        if method != "GET":
            return status(202 if "roleProperties" in url else 200)
        if "comp=versions" in url:
            return ok("<Versions><Preferred><Version>2012-11-30</Version></Preferred></Versions>")
        if "comp=goalstate" in url:
            return ok(self.goal_state())
        if "type=extensionsConfig" in url:
            return ok(self.extensions_config())
        if "type=hostingEnvironmentConfig" in url:
            return ok('<HostingEnvironmentConfig><Incarnation instance="vm"/></HostingEnvironmentConfig>')
        if "type=sharedConfig" in url:
            return ok("<SharedConfig/>")
        if "comp=certificates" in url:
            return ok("<CertificateFile><Incarnation>1</Incarnation><Data>AAAA</Data></CertificateFile>")
        if "comp=remote" in url:
            return ok("<RemoteAccess><Incarnation>1</Incarnation><Users/></RemoteAccess>")
        if url.endswith("/versions"):
            return ok('["2015-09-01"]')
        if url.endswith("/health"):
            return ok("")
        if "/metadata/instance?" in url:
            address = {"ipAddress": [{"privateIpAddress": "10.0.0.4"}]}
            return ok(json.dumps({"network": {"interface": [{"macAddress": "000D3A000001", "ipv4": address}]}}))
        if url.endswith("/vmSettings"):
            if self.vm is None:
                return status(404)
            if headers.get("If-None-Match") == self.etag:
                return status(304)
            return ok(json.dumps(self.vm), etag=self.etag)
        raise AssertionError(f"unexpected request: {method} {url}")

    def goal_state(self) -> str:
        base = f"http://{WIRE}/machine/{self.container}/vm?"

        def uri(tag: str, query: str) -> str:
            return f"<{tag}>{base}{query}&amp;incarnation={self.incarnation}</{tag}>"

        parts = uri("HostingEnvironmentConfig", "comp=config&amp;type=hostingEnvironmentConfig")
        parts += uri("SharedConfig", "comp=config&amp;type=sharedConfig")
        if self.names_extensions:
            parts += uri("ExtensionsConfig", "comp=config&amp;type=extensionsConfig")
        if self.names_certificates:
            parts += uri("Certificates", "comp=certificates")
        remote = uri("RemoteAccessInfo", "comp=remote") if self.remote_access else ""
        return (
            f"<GoalState><Incarnation>{self.incarnation}</Incarnation><Container>"
            f"<ContainerId>{self.container}</ContainerId>{remote}<RoleInstanceList><RoleInstance>"
            f"<InstanceId>role-1._vm</InstanceId><Configuration>{parts}<ConfigName>{self.config_name}</ConfigName>"
            "</Configuration></RoleInstance></RoleInstanceList></Container></GoalState>"
        )

    def extensions_config(self) -> str:
        ticks = "" if self.extensions_ticks is None else f' createdOnTicks="{self.extensions_ticks}"'
        content = {"runtimeSettings": [{"handlerSettings": settings_json(1, self.extensions_thumbprint)}]}
        blob = (
            f'<StatusUploadBlob statusBlobType="BlockBlob">https://blob/status?{SIGNATURE}</StatusUploadBlob>'
            if self.has_status_blob
            else ""
        )
        text = json.dumps(content)
        return (
            f"<Extensions>{blob}"
            '<Plugins><Plugin name="A.Handler" version="1.0.0" state="enabled" location="https://blob/manifest.xml"/>'
            '</Plugins><PluginSettings><Plugin name="A.Handler" version="1.0.0">'
            f'<RuntimeSettings seqNo="1">{text}</RuntimeSettings></Plugin></PluginSettings>'
            f"<InVMGoalStateMetaData{ticks}/></Extensions>"
        )

    def serve_vm_settings(
        self, ticks: int, *, source: str = "FastTrack", thumbprint: str | None = None, etag: str | None = None
    ) -> None:
        self.etag = etag or str(int(self.etag) + 1)
        content = settings_json(2, thumbprint)
        content["publicSettings"] = json.dumps(content["publicSettings"])
        self.vm = {
            "hostGAPluginVersion": "1.0.8.175",
            "extensionsLastModifiedTickCount": ticks,
            "extensionGoalStatesSource": source,
            "inSvdSeqNo": 9,
            "statusUploadBlob": {"statusBlobType": "BlockBlob", "value": f"https://blob/status?{SIGNATURE}"},
            "extensionGoalStates": [
                {
                    "name": "A.Handler",
                    "version": "1.0.0",
                    "state": "enabled",
                    "location": "https://blob/manifest.xml",
                    "settingsSeqNo": 2,
                    "settings": [content],
                }
            ],
        }


def configuration(**values: str) -> Config:
    """The defaults, with ``Platform__WireServer="…"`` for ``Platform.WireServer``."""
    raw = RawConfig()
    given = {"Platform.WireServer": WIRE, **{name.replace("__", "."): value for name, value in values.items()}}
    for number, (name, value) in enumerate(given.items(), 1):
        raw.settings[name] = Setting(name, value, "test", number)
    return Config(raw)


class Machine:
    """A Platform on a :class:`World`, with everything that a test looks at."""

    def __init__(self, root: Path, world: World | None = None, **options: str) -> None:
        self.world = world or World()
        self.clock = Clock()
        self.events = Events()
        self.sinks = Lines()
        self.paths = Paths(str(root))
        self.stopping = threading.Event()
        self.opened: list[bytes] = []
        self.unopenable: CryptError | None = None
        self.platform = Platform(
            configuration(**options),
            self.paths,
            Log(self.sinks, "ExtHandler"),
            self.events,
            clock=self.clock,
            sleep=self.clock.sleep,
            stopping=self.stopping,
            environment={},
            channels=self.world,  # type: ignore[arg-type]
            opener=Opener(lambda: "CERTIFICATE", self._open),
        )

    def _open(self, data: bytes) -> tuple[CertificateInfo, ...]:
        self.opened.append(data)
        if self.unopenable is not None:
            raise self.unopenable
        for item in self.world.certificates:
            Path(self.paths.lib(f"{item.thumbprint}.crt")).write_text("certificate")
        return self.world.certificates

    @property
    def history(self) -> list[str]:
        folder = Path(self.paths.lib("history"))
        return sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []

    def everything_written(self) -> str:
        """All that can be read in the state directory, zips unpacked, and the log."""
        import zipfile

        texts = [line for _, line in self.sinks.lines] + [message for _, _, message in self.events.seen]
        for path in Path(self.paths.lib_dir).rglob("*"):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    texts += [archive.read(name).decode("latin-1") for name in archive.namelist()]
            elif path.is_file():
                texts.append(path.read_text("latin-1"))
        return "\n".join(texts)
