"""Who we are to an API server and how we get there: TLS, proxies, tokens, plugins, connections.

Everything is tried by a plain call and by exec, because they are two clients: urllib3 by way of
`kubernetes`, and `websockets`.
"""

from __future__ import annotations

import base64
import json
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes.config import incluster_config, kube_config

from common.adapters.kubernetes import access as access_module
from common.adapters.kubernetes import pool
from common.adapters.kubernetes.access import IDLE_PER_HOST, Access
from common.domain.discovery import Life
from common.domain.errors import Unavailable
from common.domain.workspace import Place, WorkspaceUnreachable
from common.ports.dependencies import KUBERNETES
from tests.fake_kubernetes.running import NAMESPACE, FakeKubernetes
from tests.harness.connect_proxy import ConnectProxy
from tests.integration.kubernetes_bench import Bench

PATIENCE_S = 30.0
API_VERSION = "client.authentication.k8s.io/v1"
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    folder = tmp_path_factory.mktemp("tls")
    AUTHORITY.cert_pem.write_to_path(str(folder / "ca.crt"))
    server = AUTHORITY.issue_cert("127.0.0.1", "kubernetes.test")
    server.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.crt"))
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    with FakeKubernetes(folder, tls=folder) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeKubernetes) -> Iterator[FakeKubernetes]:
    running.pod("demo-0", project="demo")
    yield running
    running.reset()


class Caller:
    """Writes kubeconfigs, and calls the API with the latest one."""

    def __init__(self, fake: FakeKubernetes, folder: Path) -> None:
        self.fake = fake
        self.folder = folder
        self.authority = {"certificate-authority": str(fake.folder / "ca.crt")}
        self.benches: list[Bench] = []

    def bench(
        self, user: dict[str, Any] | None = None, cluster: Mapping[str, Any] | None = None
    ) -> Bench:
        """A process that has read this configuration."""
        self.write(user, cluster)
        bench = Bench(self.fake, self.folder)
        self.benches.append(bench)
        return bench

    def write(
        self, user: dict[str, Any] | None = None, cluster: Mapping[str, Any] | None = None
    ) -> None:
        """Replace the kubeconfig; a token and the authority that is right unless told otherwise."""
        self.fake.write_kubeconfig(user or {"token": "t"}, dict(cluster or self.authority))


@pytest.fixture
def place(fake: FakeKubernetes, tmp_path: Path) -> Place:
    """The pod as it is."""
    return Bench(fake, tmp_path).place()


@pytest.fixture
def caller(fake: FakeKubernetes, tmp_path: Path) -> Iterator[Caller]:
    made = Caller(fake, tmp_path)
    yield made
    for bench in made.benches:
        bench.close()


def plain(bench: Bench, place: Place) -> None:
    bench.api.get("/version")


def by_exec(bench: Bench, place: Place) -> None:
    """A connection of its own, and nothing else: what the pod is was asked before."""
    life = Life.parse(place.pod_uid)
    assert life is not None
    connection = bench.transport._as_known(place, life, ("true",))
    connection.close_socket()


Call = Callable[[Bench, Place], None]
both = pytest.mark.parametrize("call", [plain, by_exec])


# -- TLS ------------------------------------------------------------------------------------------


def as_data(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


@both
def test_an_authority_of_its_own_is_trusted(place: Place, caller: Caller, call: Call) -> None:
    """By its file or by its bytes in the kubeconfig."""
    for cluster in (
        caller.authority,
        {"certificate-authority-data": as_data(AUTHORITY.cert_pem.bytes())},
    ):
        bench = caller.bench(cluster=cluster)
        call(bench, place)


@both
def test_an_authority_nobody_named_is_refused(place: Place, caller: Caller, call: Call) -> None:
    """Neither none nor another one will do, and no token was sent to whoever it is."""
    other = as_data(trustme.CA().cert_pem.bytes())
    for cluster in ({"tls-server-name": "127.0.0.1"}, {"certificate-authority-data": other}):
        bench = caller.bench(cluster=cluster)
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            call(bench, place)
    assert "connection" not in caller.fake.seen


@both
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # that is what it asks for
def test_insecure_is_as_the_kubeconfig_says(place: Place, caller: Caller, call: Call) -> None:
    """`insecure-skip-tls-verify` asks for no name and no authority."""
    bench = caller.bench(cluster={"insecure-skip-tls-verify": True})
    call(bench, place)


@both
def test_a_server_is_known_by_the_name_that_is_given(
    place: Place, caller: Caller, call: Call
) -> None:
    """`tls-server-name` stands for the address; a wrong one is refused."""
    right = caller.bench(cluster=caller.authority | {"tls-server-name": "kubernetes.test"})
    call(right, place)
    wrong = caller.bench(cluster=caller.authority | {"tls-server-name": "other.test"})
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        call(wrong, place)


def certificate(caller: Caller, name: str) -> dict[str, str]:
    """A kubeconfig's user with a client certificate of the authority."""
    made = AUTHORITY.issue_cert(common_name=name)
    chain, key = caller.folder / f"{name}.crt", caller.folder / f"{name}.key"
    made.cert_chain_pems[0].write_to_path(str(chain))
    made.private_key_pem.write_to_path(str(key))
    return {"client-certificate": str(chain), "client-key": str(key)}


@both
def test_a_client_certificate_says_who_we_are(place: Place, caller: Caller, call: Call) -> None:
    """From files or as data; replaced by another one, it is read again after one 401."""
    user = certificate(caller, "rdev")
    caller.fake.fail(certificate="rdev")
    in_files = caller.bench(user)
    call(in_files, place)
    data = {f"{k}-data": as_data(Path(v).read_bytes()) for k, v in user.items()}
    as_text = caller.bench(data)
    call(as_text, place)
    assert "401" not in caller.fake.seen
    caller.write(certificate(caller, "next"))
    caller.fake.fail(certificate="next")
    call(as_text, place)
    assert caller.fake.seen["401"] == 1


# -- proxies --------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """A proxy; the test says who uses it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with ConnectProxy() as made:
        yield made


@both
def test_a_proxy_of_the_kubeconfig(
    place: Place, caller: Caller, proxy: ConnectProxy, call: Call
) -> None:
    """`proxy-url`; TLS goes through it to the server."""
    bench = caller.bench(cluster=caller.authority | {"proxy-url": f"http://{proxy.address}"})
    call(bench, place)
    assert proxy.asked == [caller.fake.url.removeprefix("https://")]


@both
@pytest.mark.parametrize("no_proxy", ["", "elsewhere.test", "127.0.0.1", "127.0.0.0/8", "*"])
def test_a_proxy_of_the_environment(
    place: Place,
    caller: Caller,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    no_proxy: str,
) -> None:
    """HTTPS_PROXY, except for what NO_PROXY names: by address, by network, or all."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    bench = caller.bench()
    call(bench, place)
    assert bool(proxy.asked) == (no_proxy in ("", "elsewhere.test"))


@both
def test_a_proxy_that_wants_a_password(
    place: Place, caller: Caller, proxy: ConnectProxy, call: Call
) -> None:
    """It is in the proxy's URL, quoted; without it nothing was asked of the server."""
    proxy.authorization = "Basic " + as_data(b"me:p@ss")
    bench = caller.bench(
        cluster=caller.authority | {"proxy-url": f"http://me:p%40ss@{proxy.address}"}
    )
    call(bench, place)
    asked = caller.fake.seen["connection"]
    without = caller.bench(cluster=caller.authority | {"proxy-url": f"http://{proxy.address}"})
    with pytest.raises(Unavailable, match="407"):
        call(without, place)
    assert caller.fake.seen["connection"] == asked


def test_a_socks_proxy_is_said_to_be_unsupported(place: Place, caller: Caller) -> None:
    """A clear word, whoever asks first."""
    bench = caller.bench(cluster=caller.authority | {"proxy-url": "socks5://127.0.0.1:1"})
    with pytest.raises(Unavailable, match="SOCKS"):
        plain(bench, place)


# -- the pod's own account ------------------------------------------------------------------------


class Account:
    """A mounted service account, and a clock that the library looks at."""

    def __init__(self, fake: FakeKubernetes, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.fake = fake
        self._folder = folder
        self._ahead = timedelta(0)
        folder.mkdir()
        (folder / "namespace").write_text(NAMESPACE)
        (folder / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())
        self.rotate("one")
        host, _, port = fake.url.removeprefix("https://").partition(":")
        patch.setenv("KUBERNETES_SERVICE_HOST", host)
        patch.setenv("KUBERNETES_SERVICE_PORT", port)
        patch.setattr(access_module, "_ACCOUNT", folder)
        patch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
        patch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))
        clock = types.SimpleNamespace(now=lambda: datetime.now(UTC) + self._ahead)
        times = types.SimpleNamespace(datetime=clock, timedelta=timedelta)
        patch.setattr(incluster_config, "datetime", times)

    def rotate(self, token: str) -> None:
        """What kubelet does some time before a token expires."""
        (self._folder / "token").write_text(token)

    def pass_time(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


@pytest.fixture
def account(fake: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    return Account(fake, tmp_path / "account", monkeypatch)


@both
def test_a_mounted_token_that_rotates_is_read_each_minute(
    place: Place, account: Account, fake: FakeKubernetes, tmp_path: Path, call: Call
) -> None:
    """Before the old one is refused; its namespace is where the workspaces are."""
    bench = Bench(fake, tmp_path, access=Access())
    assert bench.access.namespace == NAMESPACE
    fake.fail(token="one")
    call(bench, place)
    account.rotate("two")
    account.pass_time(59)
    call(bench, place)
    account.pass_time(2)
    fake.fail(token="two")
    call(bench, place)
    assert "401" not in fake.seen
    bench.close()


@both
def test_a_mounted_token_that_is_refused_is_read_at_once(
    place: Place, account: Account, fake: FakeKubernetes, tmp_path: Path, call: Call
) -> None:
    """It was revoked before its minute was over."""
    bench = Bench(fake, tmp_path, access=Access())
    call(bench, place)
    account.rotate("two")
    fake.fail(token="two")
    call(bench, place)
    assert fake.seen["401"] == 1
    bench.close()


# -- credential plugins ---------------------------------------------------------------------------


class Plugin:
    """A program that answers `token-N` at its Nth call."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "plugin"
        self._calls = folder / "calls"
        self._status = folder / "status"

    @property
    def user(self) -> dict[str, Any]:
        command = {"apiVersion": API_VERSION, "command": str(self.path), "interactiveMode": "Never"}
        return {"exec": command}

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().split()) if self._calls.exists() else 0

    def answers(self, **status: str) -> None:
        """From now on; `{n}` in a value is the number of the call."""
        answer = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": status}
        self._status.write_text(json.dumps(answer))
        self.does(f'n=$(wc -l <{self._calls}); sed "s/{{n}}/$n/" {self._status}')

    def does(self, script: str) -> None:
        self.path.write_text(f"#!/bin/sh\necho >>{self._calls} call\n{script}\n")
        self.path.chmod(0o755)


def hence(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


@both
def test_a_plugins_token_is_used_until_it_expires(
    place: Place, caller: Caller, plugin: Plugin, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Asked once while it is good, again when it is over, and then by nobody's 401."""
    plugin.answers(token="token-{n}", expirationTimestamp=hence(3600))
    caller.fake.fail(token="token-1")
    bench = caller.bench(plugin.user)
    for _ in range(3):
        call(bench, place)
    assert plugin.calls == 1
    caller.fake.fail(token="token-2")
    call(bench, place)  # refused: the server had enough of it
    caller.fake.fail(token="token-3")
    monkeypatch.setattr(kube_config, "EXPIRY_SKEW_PREVENTION_DELAY", timedelta(hours=2))
    call(bench, place)  # over by its own word
    assert (plugin.calls, caller.fake.seen["401"]) == (3, 1)


@both
def test_a_plugin_may_give_a_certificate(
    place: Place, caller: Caller, plugin: Plugin, call: Call
) -> None:
    """Instead of a token."""
    files = certificate(caller, "plugged")
    chain, key = (Path(path).read_text() for path in files.values())
    plugin.answers(clientCertificateData=chain, clientKeyData=key)
    caller.fake.fail(certificate="plugged")
    bench = caller.bench(plugin.user)
    call(bench, place)


@both
@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 1", "failed"), ("echo no JSON", "failed"), ("exec sleep 60", "not answer")],
)
def test_a_plugin_in_trouble_is_named(
    place: Place,
    caller: Caller,
    plugin: Plugin,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    script: str,
    said: str,
) -> None:
    """One that fails, talks nonsense or hangs: which it is, and nothing was asked as nobody."""
    if said == "not answer":
        monkeypatch.setattr(access_module, "PLUGIN_S", 0.2)
    plugin.does(script)
    bench = caller.bench(plugin.user)
    with pytest.raises(Unavailable, match=rf"plugin '.*/plugin' .*{said}"):
        call(bench, place)
    assert "connection" not in caller.fake.seen


@pytest.mark.parametrize("text", ["", "a: [", "[]", "words", "\0", "current-context: f\nusers: 3"])
def test_what_is_no_kubeconfig_is_said_to_be_none(caller: Caller, text: str) -> None:
    """With its path, whatever is in the file; as when there is no file."""
    caller.write()
    caller.fake.kubeconfig.write_text(text)
    with pytest.raises(Unavailable, match=r"no access to a Kubernetes cluster: .*kube-?config"):
        Access(kubeconfig=str(caller.fake.kubeconfig)).session()
    with pytest.raises(Unavailable, match="no kubeconfig at /nowhere"):
        Access(kubeconfig="/nowhere").session()


def test_without_credentials_the_api_servers_breaker_opens(
    place: Place, caller: Caller, plugin: Plugin
) -> None:
    """It is said where people look, and no workspace's breaker is to blame."""
    plugin.does("exit 1")
    bench = caller.bench(plugin.user)
    for _ in range(5):
        with pytest.raises(WorkspaceUnreachable):
            bench.transport.open(place, ("true",))
    row = bench.dependencies.read(KUBERNETES)
    assert row is not None
    assert (row.state, bench.breakers.of("workspace/demo").state) == ("open", "closed")
    assert "plugin" in str(row.detail)


# -- connections ----------------------------------------------------------------------------------


def test_a_connection_is_kept_for_ninety_seconds(
    place: Place, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls one after another share it; idle for longer, it is not trusted any more."""
    now = 1000.0
    monkeypatch.setattr(pool, "time", types.SimpleNamespace(monotonic=lambda: now))
    bench = caller.bench()
    for wait in (0.0, 1.0, 89.9, 90.0):
        now += wait
        plain(bench, place)
    assert caller.fake.seen["connection"] == 1
    now += 90.1
    plain(bench, place)
    assert caller.fake.seen["connection"] == 2


def test_ten_idle_connections_a_host_and_a_hundred_in_all(caller: Caller) -> None:
    """Sixteen at once are served; ten stay, and the next ten calls at once open none."""
    bench = caller.bench()
    at_once(bench, 16)
    manager = bench.access.session().connections
    host = manager.connection_from_url(caller.fake.url)
    idle = [connection for connection in host.pool.queue if connection is not None]
    assert (len(idle), host.pool.maxsize, IDLE_PER_HOST) == (10, 10, 10)
    assert manager.pools._maxsize * IDLE_PER_HOST == 100
    before = caller.fake.seen["connection"]
    at_once(bench, 10)
    assert caller.fake.seen["connection"] == before


def at_once(bench: Bench, calls: int) -> None:
    """So many answers, none of which is given back before the last has come."""
    barrier = threading.Barrier(calls)
    errors: list[Exception] = []

    def one() -> None:
        session = bench.access.session()
        url = f"{session.configuration.host}/version"
        try:
            answer = session.connections.request("GET", url, preload_content=False)
            barrier.wait(PATIENCE_S)
            assert answer.read()
        except Exception as error:  # carried to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
