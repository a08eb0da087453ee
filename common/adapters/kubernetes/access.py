"""How to reach the API server and who we are: in a cluster, or by a kubeconfig.

`kubernetes` reads both and keeps tokens fresh (a mounted token is read again each minute, an exec
plugin is asked again when its token expires). What it does not notice is a client certificate that
was replaced, or a revoked token: a 401 makes us read everything anew, once.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.client import ApiClient, Configuration
from kubernetes.client.rest import RESTClientObject, should_bypass_proxies
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.kube_config import list_kube_config_contexts

from common.adapters.kubernetes.pool import keep_connections
from common.domain.errors import Unavailable

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IDLE_PER_HOST: Final = 10


@dataclass(frozen=True)
class Session:
    """One reading of the configuration, and the connections that were opened with it."""

    configuration: Any
    connections: Any  # urllib3's PoolManager
    tls: ssl.SSLContext | None
    namespace: str

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
                found = session.configuration.auth_settings().get("BearerToken")
            except (ConfigException, OSError) as error:
                raise Unavailable(f"no token for the Kubernetes API: {error}") from error
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
            namespace = self._configure(configuration)
            tls = _tls(configuration)
        except (ConfigException, OSError, ssl.SSLError) as error:
            raise Unavailable(f"no access to a Kubernetes cluster: {error}") from error
        connections = RESTClientObject(configuration).pool_manager
        keep_connections(connections)
        return Session(configuration, connections, tls, namespace)

    def _configure(self, configuration: Any) -> str:
        """Fill it in; answers the namespace that goes with it."""
        chosen = self._context or self._kubeconfig
        if not chosen and (_ACCOUNT / "token").exists():
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            return (_ACCOUNT / "namespace").read_text("utf-8").strip()
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=self._kubeconfig,
            context=self._context or None,
            client_configuration=configuration,
            persist_config=False,
        )
        contexts, active = list_kube_config_contexts(self._kubeconfig)  # type: ignore[no-untyped-call]
        if self._context:
            active = next(c for c in contexts if c["name"] == self._context)
        return str(active["context"].get("namespace") or "default")


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
