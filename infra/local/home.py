"""The directory that holds a laptop's rdev: keys, projects, database, logs."""

import base64
import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger("rdev.home")

_PROJECTS_YAML = """\
# Settings of projects. Every directory in workspaces/ is a project, with or without an entry here.
# Changes are noticed within a second.
#
# demo:
#   description: a place to try things
#   workspace: /somewhere/else            # default: workspaces/<name> beside this file
#   allowed_commands: [shell, git]        # default: all kinds
#   max_concurrent_commands: 5
"""

_README = """\
# demo

A project to try rdev with:

    rdev run -p demo -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done'
"""


class HomeError(Exception):
    """The home cannot be used; the message says why and what to do."""


class Home:
    """One `RDEV_HOME`, locked by one `rdev up` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.workspaces = path / "workspaces"
        self.admin_key = path / "admin.key"
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the home for this process; raise HomeError when another one has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode().strip()
            raise HomeError(
                f"another rdev up (pid {owner}) runs on {self.path}: stop it or set RDEV_HOME"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def prepare(self) -> None:
        """Create what is not there yet."""
        self.logs.mkdir(exist_ok=True)
        self.workspaces.mkdir(exist_ok=True)
        projects = self.path / "projects.yaml"
        if not projects.exists():
            projects.write_text(_PROJECTS_YAML)
        if not (self.workspaces / "demo").exists():
            self._create_demo()

    def announce(self, url: str) -> None:
        """Leave the address where the `rdev` command looks for it; only while it is true."""
        unfinished = self.path / "url.new"
        unfinished.write_text(url + "\n")
        unfinished.replace(self.path / "url")

    def retract(self) -> None:
        (self.path / "url").unlink(missing_ok=True)

    def secret_keys(self) -> str:
        """Return the Fernet key that seals secrets, made once."""
        path = self.path / "secret.key"
        if not path.exists():
            unfinished = path.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.urlsafe_b64encode(os.urandom(32)) + b"\n")
                file.flush()
                os.fsync(file.fileno())  # what is sealed with a lost key is lost too
            unfinished.rename(path)
        return path.read_text().strip()

    def _create_demo(self) -> None:
        """Make the project `demo` beside its place, so that nobody sees it half-made."""
        unfinished = Path(tempfile.mkdtemp(prefix="demo-", dir=self.path))
        (unfinished / "README.md").write_text(_README)
        if shutil.which("git") is None:
            log.warning("git is not installed: the project demo is a plain directory")
        else:
            _git(unfinished, "init", "--quiet")
            _git(unfinished, "add", "README.md")
            _git(unfinished, "commit", "--quiet", "-m", "A project to try rdev with")
        unfinished.rename(self.workspaces / "demo")


def _git(directory: Path, *arguments: str) -> None:
    """Run git without the user's own configuration, which might sign, hook or ask."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ("-c", "user.name=rdev", "-c", "user.email=rdev@localhost")
    done = subprocess.run(
        ["git", *identity, "-c", "init.defaultBranch=main", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HomeError(f"git {arguments[0]} failed in {directory}: {done.stderr.strip()}")
