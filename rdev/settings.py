"""Where the server is and which key to show it: the environment, `.rdev` of `rdev up`, a profile.

A key belongs to a URL. One that was found in a file is only ever sent to the URL that stands in
the same place, so setting RDEV_URL cannot carry a laptop's admin key to somebody else's server.

Order: RDEV_URL and RDEV_API_KEY; the profile named by RDEV_PROFILE; RDEV_HOME, else `.rdev` here
or in a parent folder; the current profile. The nearest wins, as with git.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from rdev.errors import NotAllowed, Unreachable, WrongUsage
from rdev.profiles import ProfileStore

HOME_FOLDER = ".rdev"
HOW_TO_START = "start one with `rdev up`, or set RDEV_URL and RDEV_API_KEY, or run `rdev login`"


@dataclass(frozen=True, slots=True)
class Server:
    """A server to talk to. `source` says where the URL was found, for messages and `doctor`."""

    url: str
    source: str
    api_key: str | None = None
    key_source: str | None = None
    project: str | None = None

    def __repr__(self) -> str:
        # Without the key: a traceback or a debugger must not show it.
        return f"Server(url={self.url!r}, source={self.source!r})"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; reading it once keeps every other module a function of it."""

    environ: Mapping[str, str]
    cwd: Path

    @classmethod
    def from_environment(cls) -> Settings:
        """This process's environment and folder."""
        return cls(dict(os.environ), Path.cwd())

    def _get(self, name: str) -> str | None:
        return self.environ.get(name, "").strip() or None

    @property
    def profiles(self) -> ProfileStore:
        """Where `rdev login` keeps what it learnt."""
        base = self._get("XDG_CONFIG_HOME")
        folder = Path(base) if base else self._user_home() / ".config"
        return ProfileStore(folder / "rdev" / "profiles.json")

    def _user_home(self) -> Path:
        return Path(self._get("HOME") or Path.home())

    @property
    def home(self) -> Path | None:
        """The folder `rdev up` keeps its state in: RDEV_HOME, or the nearest `.rdev` of ours."""
        named = self._get("RDEV_HOME")
        if named is not None:
            return self.cwd / named
        return next(self._homes_above(), None)

    def _homes_above(self) -> Iterator[Path]:
        for folder in (self.cwd, *self.cwd.parents):
            candidate = folder / HOME_FOLDER
            if _is_ours(candidate):
                yield candidate

    def server(self) -> Server:
        """The server to use.

        Raises Unreachable when nothing names one, WrongUsage when what names it makes no sense.
        """
        url, key = self._get("RDEV_URL"), self._get("RDEV_API_KEY")
        if url is None:
            return self._with_overrides(self._found(), key)
        server = Server(checked_url(url, "RDEV_URL"), "RDEV_URL")
        known = server if key else self._known_at(server)
        return self._with_overrides(known, key)

    def _found(self) -> Server:
        server = next(self._candidates(), None)
        if server is None:
            raise Unreachable(self._nothing_found(), hint=HOW_TO_START)
        return server

    def _known_at(self, server: Server) -> Server:
        """`server` with the key that is kept beside the very same URL, if there is one."""
        for known in self._candidates():
            if _same_place(known.url, server.url):
                return replace(known, url=server.url, source=server.source)
        return server

    def _with_overrides(self, server: Server, key: str | None) -> Server:
        project = self._get("RDEV_PROJECT") or server.project
        if key is None:
            return replace(server, project=project)
        return replace(server, project=project, api_key=key, key_source="RDEV_API_KEY")

    def _candidates(self) -> Iterator[Server]:
        """What files say, the most explicit first; lazily, so that a later one is not even read."""
        name = self._get("RDEV_PROFILE")
        if name is not None:
            yield from self._profile(name)
        yield from self._local()
        if name is None and self._get("RDEV_HOME") is None:
            yield from self._profile(None)

    def _local(self) -> Iterator[Server]:
        home = self.home
        if home is None:
            return
        url_file, key_file = home / "url", home / "admin.key"
        url = read_line(url_file)
        if url is not None:
            url = checked_url(url, str(url_file))
            yield Server(url, str(url_file), read_line(key_file), str(key_file))

    def _profile(self, name: str | None) -> Iterator[Server]:
        store = self.profiles
        profile = store.get(name)
        if profile is not None:
            source = f"profile {profile.name} in {store.path}"
            yield Server(profile.url, source, profile.api_key, source, profile.project)

    def _nothing_found(self) -> str:
        home = self.home
        if home is None:
            return "no rdev server is known here"
        return f"rdev is not running in {home} (there is no file `url`)"


def _same_place(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    return parts.scheme, "127.0.0.1" if host == "localhost" else host, port, parts.path


def _is_ours(folder: Path) -> bool:
    """Whether `folder` is a directory of this user.

    A `.rdev` that somebody else put into a shared parent (/tmp) would otherwise choose which
    server gets our prompts: git refuses foreign repositories for the same reason.
    """
    try:
        info = folder.stat()
    except OSError:
        return False
    return folder.is_dir() and info.st_uid == os.geteuid()


def read_line(path: Path) -> str | None:
    """The first line of a small file; None when there is none.

    Raises NotAllowed when the file is there and may not be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise NotAllowed(f"{path} may not be read by this user") from error
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{path} is not a text file") from error
    return text.strip().partition("\n")[0].strip() or None


def checked_url(text: str, source: str) -> str:
    """`text` as a base URL without a trailing slash.

    Raises WrongUsage unless it is http or https with a host, and nothing secret inside it.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise WrongUsage(f"{source} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise WrongUsage(f"{source} must be http://HOST or https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise WrongUsage(f"{source} must hold no user, password, query or fragment")
    return text.rstrip("/")
