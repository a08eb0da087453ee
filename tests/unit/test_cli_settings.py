"""Where the server and the key come from, and that a key goes nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdev.errors import NotAllowed, Unreachable, WrongUsage
from rdev.profiles import Profile
from rdev.settings import Server, Settings, checked_url

LOCAL = "http://127.0.0.1:8080"


def home(folder: Path, url: str | None = LOCAL, key: str | None = "rdev_local") -> Path:
    path = folder / ".rdev"
    path.mkdir()
    if url is not None:
        (path / "url").write_text(f"{url}\n")
    if key is not None:
        (path / "admin.key").write_text(f"{key}\n")
    return path


def settings(cwd: Path, **environ: str) -> Settings:
    return Settings({"XDG_CONFIG_HOME": str(cwd / "config"), **environ}, cwd)


def log_in(found: Settings, url: str = "https://far.example", name: str = "far") -> None:
    found.profiles.put(Profile(name, url, "rdev_far", "there"))


def test_finds_the_local_rdev_from_a_folder_below(tmp_path: Path) -> None:
    """After `rdev up` it works anywhere below the folder that holds `.rdev`."""
    home(tmp_path)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    server = settings(below).server()
    assert (server.url, server.api_key) == (LOCAL, "rdev_local")


def test_rdev_home_names_the_home(tmp_path: Path) -> None:
    """RDEV_HOME is looked into wherever one stands."""
    path = home(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert settings(elsewhere, RDEV_HOME=str(path)).server().api_key == "rdev_local"


def test_the_environment_wins(tmp_path: Path) -> None:
    """RDEV_URL, RDEV_API_KEY and RDEV_PROJECT need no file."""
    home(tmp_path)
    server = settings(
        tmp_path, RDEV_URL="https://ci.example/", RDEV_API_KEY="rdev_ci", RDEV_PROJECT="web"
    ).server()
    assert (server.url, server.api_key, server.project) == ("https://ci.example", "rdev_ci", "web")
    assert server.key_source == "RDEV_API_KEY"


def test_never_sends_a_found_key_to_another_url(tmp_path: Path) -> None:
    """Neither the laptop's key nor a profile's goes to a URL it does not belong to."""
    home(tmp_path)
    found = settings(tmp_path, RDEV_URL="https://evil.example")
    log_in(found)
    assert found.server().api_key is None


@pytest.mark.parametrize("url", [LOCAL, f"{LOCAL}/", "http://localhost:8080"])
def test_sends_a_found_key_to_the_same_url(tmp_path: Path, url: str) -> None:
    """The same place under another spelling is still the place the key belongs to."""
    home(tmp_path)
    assert settings(tmp_path, RDEV_URL=url).server().api_key == "rdev_local"


def test_uses_the_current_profile_without_a_local_rdev(tmp_path: Path) -> None:
    """After `rdev login` it works where no rdev runs."""
    found = settings(tmp_path)
    log_in(found)
    server = found.server()
    assert (server.url, server.api_key, server.project) == (
        "https://far.example",
        "rdev_far",
        "there",
    )


def test_a_local_rdev_is_nearer_than_the_current_profile(tmp_path: Path) -> None:
    """Inside a checkout whose rdev runs, that one is meant."""
    home(tmp_path)
    found = settings(tmp_path)
    log_in(found)
    assert found.server().url == LOCAL


def test_a_named_profile_is_meant(tmp_path: Path) -> None:
    """RDEV_PROFILE wins over the local rdev."""
    home(tmp_path)
    found = settings(tmp_path, RDEV_PROFILE="far")
    log_in(found)
    assert found.server().url == "https://far.example"


def test_a_missing_profile_is_wrong_usage(tmp_path: Path) -> None:
    """A profile that nobody made is not replaced by another server."""
    home(tmp_path)
    with pytest.raises(WrongUsage, match="no profile 'far'"):
        settings(tmp_path, RDEV_PROFILE="far").server()


def test_a_named_home_without_rdev_says_so(tmp_path: Path) -> None:
    """RDEV_HOME without a running rdev does not fall back to a profile."""
    path = home(tmp_path, url=None)
    found = settings(tmp_path, RDEV_HOME=str(path))
    log_in(found)
    with pytest.raises(Unreachable, match="not running in"):
        found.server()


def test_nothing_known_says_what_to_do(tmp_path: Path) -> None:
    """Without any server the person learns the three ways to name one."""
    with pytest.raises(Unreachable) as caught:
        settings(tmp_path).server()
    assert "rdev up" in str(caught.value.hint)
    assert "rdev login" in str(caught.value.hint)


def test_ignores_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.rdev` that another user put into a parent folder chooses no server for us."""
    home(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    assert settings(tmp_path).home is None


def test_a_key_without_its_file_is_none(tmp_path: Path) -> None:
    """A home that has a URL but no key gives a server without a key."""
    home(tmp_path, key=None)
    assert settings(tmp_path).server().api_key is None


def test_a_server_does_not_show_its_key() -> None:
    """A traceback that prints the server prints no secret."""
    assert "secret" not in repr(Server("http://x", "test", "rdev_secret"))
    assert "secret" not in repr(Profile("x", "http://x", "rdev_secret"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x.example",
        "http://",
        "http://u:p@x",
        "http://x?a=1",
        "http://x#f",
        "http://[::1",
        "http://x:port",
    ],
)
def test_refuses_urls_that_make_no_sense(url: str) -> None:
    """What is no plain http URL is refused before anything is sent."""
    with pytest.raises(WrongUsage):
        checked_url(url, "RDEV_URL")


def test_keeps_profiles_private(tmp_path: Path) -> None:
    """The file is 0600 from its first moment, in a folder that is 0700."""
    found = settings(tmp_path)
    log_in(found)
    assert found.profiles.path.stat().st_mode & 0o777 == 0o600
    assert found.profiles.path.parent.stat().st_mode & 0o777 == 0o700


def test_refuses_a_profile_file_that_others_can_read(tmp_path: Path) -> None:
    """A key that others may read is no key to trust."""
    found = settings(tmp_path)
    log_in(found)
    found.profiles.path.chmod(0o644)
    with pytest.raises(NotAllowed, match="others may read"):
        found.server()


def test_keeps_other_profiles(tmp_path: Path) -> None:
    """A second login adds a profile and becomes the current one."""
    found = settings(tmp_path)
    log_in(found)
    log_in(found, "https://near.example", "near")
    assert found.server().url == "https://near.example"
    assert settings(tmp_path, RDEV_PROFILE="far").server().url == "https://far.example"


@pytest.mark.parametrize("content", ["{", "[]", '{"profiles": {"a": 1}}', '{"profiles": []}'])
def test_a_damaged_profile_file_is_said(tmp_path: Path, content: str) -> None:
    """A damaged file is reported with its path, and never overwritten in silence."""
    found = settings(tmp_path)
    log_in(found)
    found.profiles.path.write_text(content)
    with pytest.raises(WrongUsage, match=r"profiles\.json"):
        found.server()
    with pytest.raises(WrongUsage):
        log_in(found)
    assert found.profiles.path.read_text() == content
