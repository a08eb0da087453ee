"""What can be set for `rdev up`: its environment variables and options, read once."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_ROOT = Path(__file__).resolve().parents[2]  # the checkout, or site-packages
_MIGRATE = ("python", "-m", "common.entrypoints.migrate", "--admin-key-file")


@dataclass(frozen=True)
class Settings:
    """Everything `rdev up` is told; times in seconds."""

    home: Path
    port: int = 8080  # 0: any free one
    tick_s: float = 5.0
    idle_s: float = 30.0  # without requests for so long, a function goes to zero
    database_url: str | None = None  # None: the embedded PostgreSQL
    listen_url: str | None = None
    secret_keys: str | None = None  # None: the key in $RDEV_HOME/secret.key
    keep_running: bool = False  # leave commands alive when stopped
    json: bool = False
    workspaces: str = "local"  # or "kubernetes": commands run in a cluster's pods
    broker_faults: str = ""  # see faults.py
    # What the zygote imports; None: every function is spawned.
    zygote: str | None = "common.entrypoints.serve"
    root: Path = _ROOT  # where `functions` is importable from, `/app` in the image
    base: Path = _ROOT / "infra" / "base"
    # Run before the first function; the path of the admin key file is appended. Empty: nothing.
    migrate: tuple[str, ...] = _MIGRATE
    environment: Mapping[str, str] = field(default_factory=dict)  # what functions inherit

    @classmethod
    def read(cls, argv: Sequence[str] | None, environment: Mapping[str, str]) -> Self:
        """Read options and environment; options win. Wrong options end the process."""
        options = _parser(environment).parse_args(argv)
        return cls(
            home=Path(options.home).absolute(),
            port=options.port,
            tick_s=options.tick,
            idle_s=float(environment.get("RDEV_IDLE_S", cls.idle_s)),
            database_url=environment.get("RDEV_DATABASE_URL") or None,
            listen_url=environment.get("RDEV_DATABASE_LISTEN_URL") or None,
            secret_keys=environment.get("RDEV_SECRET_KEYS") or None,
            keep_running=options.keep_running,
            json=options.json,
            workspaces="kubernetes" if options.kubernetes else "local",
            broker_faults=environment.get("RDEV_BROKER_FAULTS", ""),
            zygote=cls.zygote if _may_fork(environment) else None,
            environment={**environment, **_cluster(options)},
        )


def _cluster(options: argparse.Namespace) -> dict[str, str]:
    """What functions are told of the cluster whose pods are the workspaces."""
    given = {
        "RDEV_KUBERNETES_CONTEXT": options.context,
        "RDEV_KUBERNETES_NAMESPACE": options.namespace,
    }
    return {name: value for name, value in given.items() if value}


def _may_fork(environment: Mapping[str, str]) -> bool:
    """Forking a process that has loaded system frameworks is safe on Linux only."""
    return environment.get("RDEV_ZYGOTE", "1") != "0" and sys.platform == "linux"


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdev up", description="Run rdev, whole, on this machine until Ctrl-C."
    )
    parser.add_argument(
        "--port", type=int, default=environment.get("RDEV_PORT", "8080"), help="or RDEV_PORT"
    )
    parser.add_argument(
        "--home", default=environment.get("RDEV_HOME", ".rdev"), help="or RDEV_HOME"
    )
    parser.add_argument(
        "--tick",
        type=float,
        metavar="SECONDS",
        default=environment.get("RDEV_TICK_S", "5"),
        help="between two repairs, or RDEV_TICK_S",
    )
    parser.add_argument(
        "--keep-running", action="store_true", help="leave commands alive when rdev is stopped"
    )
    parser.add_argument(
        "--kubernetes",
        action="store_true",
        default=environment.get("RDEV_WORKSPACES") == "kubernetes",
        help="run commands in a cluster's pods",
    )
    parser.add_argument("--context", help="of the kubeconfig, or RDEV_KUBERNETES_CONTEXT")
    parser.add_argument("--namespace", help="of the pods, or RDEV_KUBERNETES_NAMESPACE")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser
