"""How to reach the API server and who we are: in a cluster, or by a kubeconfig.

`kubernetes` reads both and keeps tokens fresh (a mounted token is read again each minute, an exec
plugin is asked again when its token expires). What it does not notice is a client certificate that
was replaced, or a revoked token: a 401 makes us read everything anew, once. Nor does it end a
plugin that hangs, or say that one failed: we do.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.rest import RESTClientObject, should_bypass_proxies
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    KubeConfigLoader,
    KubeConfigMerger,
)
from urllib3.util import make_headers

from common.adapters.kubernetes.pool import keep_connections
from common.domain.errors import Unavailable

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IDLE_PER_HOST: Final = 10
PLUGIN_S: Final = 20.0  # a credential plugin asks a server of its own, perhaps a person

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """One reading of the configuration, and the connections that were opened with it."""

    configuration: Any
    connections: Any  # urllib3's PoolManager
    tls: ssl.SSLContext | None
    namespace: str
    plugin: str  # the program that gives our credentials; empty: none does

    @property
    def proxy(self) -> str | None:
        """The proxy for this server, as the plain calls use it."""
        c = self.configuration
        if not c.proxy or should_bypass_proxies(c.host, c.no_proxy or ""):
            return None
        return str(c.proxy)


class Access:
    """Thread-safe. Neither `context` nor `kubeconfig`: the pod's own account, if it has one."""

    def __init__(self, context: str = "", namespace: str = "", kubeconfig: str = "") -> None:
        self._kubeconfig = kubeconfig or None
        self._context = context
        self._namespace = namespace
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._local = threading.local()

    @property
    def namespace(self) -> str:
        """Where the workspaces are: as set, else the pod's own, else the context's."""
        return self._namespace or self.session().namespace

    def session(self) -> Session:
        """The current one. Raises Unavailable when there is no usable configuration."""
        with self._lock:
            if self._session is None:
                self._session = self._load()
            return self._session

    def renew(self, refused: Session) -> bool:
        """Read everything anew after a 401; False when somebody did so already: just try again."""
        with self._lock:
            if self._session is not refused:
                return False
            self._session = self._load()
            return True

    def authorization(self, session: Session) -> dict[str, str]:
        """The header that says who we are; a token that is due is refreshed first."""
        with self._lock:  # the refresh hook changes the configuration
            try:
                settings = _in_time(session.plugin, session.configuration.auth_settings)
            except (ConfigException, OSError) as error:
                raise Unavailable(f"no token for the Kubernetes API: {error}") from error
        found = settings.get("BearerToken")
        return {"authorization": str(found["value"])} if found else {}

    def client(self, session: Session) -> Any:
        """This thread's ApiClient: one shared by threads mixes their calls up."""
        client = getattr(self._local, "client", None)
        if client is None or client.configuration is not session.configuration:
            client = self._local.client = ApiClient(session.configuration)
            client.rest_client.pool_manager = session.connections
        return client

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.connections.clear()

    def _load(self) -> Session:
        configuration = Configuration()
        configuration.retries = False  # what is tried again is decided in api.py
        configuration.connection_pool_maxsize = IDLE_PER_HOST
        configuration.keep_alive = True
        try:
            namespace, plugin = self._configure(configuration)
            tls = _tls(configuration)
        except (ConfigException, OSError, ssl.SSLError) as error:
            raise Unavailable(f"no access to a Kubernetes cluster: {error}") from error
        _set_proxy(configuration)
        connections = RESTClientObject(configuration).pool_manager
        keep_connections(connections)
        return Session(configuration, connections, tls, namespace, plugin)

    def _configure(self, configuration: Any) -> tuple[str, str]:
        """Fill it in; answers the namespace that goes with it, and the plugin if there is one."""
        chosen = self._context or self._kubeconfig
        if not chosen and (_ACCOUNT / "token").exists():
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            return (_ACCOUNT / "namespace").read_text("utf-8").strip(), ""
        path = self._kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
        try:
            return self._read(path, configuration)
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
            # The library takes the file's shape for granted.
            raise ConfigException(f"{path} is no kubeconfig: {error}") from error

    def _read(self, path: str, configuration: Any) -> tuple[str, str]:
        found = KubeConfigMerger(path).config  # type: ignore[no-untyped-call]
        if found is None:
            raise ConfigException(f"there is no kubeconfig at {path}")
        loader: Any = KubeConfigLoader(found, active_context=self._context or None)  # type: ignore[no-untyped-call]
        context = loader.current_context["context"]
        plugin = _plugin_of(found, context)
        _in_time(plugin, lambda: loader.load_and_set(configuration))
        if plugin and not (configuration.api_key or configuration.cert_file):
            raise ConfigException(f"the credential plugin {plugin!r} failed, it has logged why")
        return str(context.get("namespace") or "default"), plugin


def _plugin_of(kubeconfig: Any, context: dict[str, Any]) -> str:
    """The program that the context's user names for credentials, if any."""
    if not (context.get("user") and kubeconfig.safe_get("users")):
        return ""
    found = kubeconfig["users"].get_with_name(context["user"], safe=True)
    user = found.safe_get("user") if found else None
    return str(user["exec"].get("command")) if user and user.get("exec") else ""


def _in_time(plugin: str, work: Callable[[], T]) -> T:
    """`work`, which may run the plugin; nothing in the library ends one that hangs."""
    if not plugin:
        return work()
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=run, name="credentials", daemon=True).start()
    try:
        return answer.result(PLUGIN_S)
    except TimeoutError:
        raise Unavailable(f"the credential plugin {plugin!r} does not answer") from None


def _set_proxy(configuration: Any) -> None:
    """What a proxy's URL says, also to plain calls: urllib3 leaves its user and password out."""
    parts = urlsplit(configuration.proxy or "")
    if parts.scheme.startswith("socks"):
        raise Unavailable("a SOCKS proxy for the Kubernetes API is not supported, HTTP is")
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        configuration.proxy_headers = make_headers(proxy_basic_auth=user)


def _tls(configuration: Any) -> ssl.SSLContext | None:
    """What plain calls do by urllib3's arguments, for WebSockets."""
    if not configuration.host.startswith("https:"):
        return None
    context = ssl.create_default_context(
        cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data
    )
    if not configuration.verify_ssl:  # the kubeconfig says insecure-skip-tls-verify
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif configuration.assert_hostname is False:
        context.check_hostname = False
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context
