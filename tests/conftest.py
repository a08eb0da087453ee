"""What every suite may ask for: a real PostgreSQL, and a fresh migrated database on it per test."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from common.adapters.postgres.connection import Connection
from common.adapters.postgres.migrate import migrate
from common.adapters.postgres.target import Target
from infra.local.postgres import EmbeddedPostgres

_numbers = itertools.count()

# How long an example takes is the machine's, and says nothing about the code. The same examples
# every time: a change that fails is the one that broke it. `--hypothesis-profile=explore` looks
# for new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("same")

# A job in the background of a shell, or under nohup, is born with signals ignored, and so would be
# every process that a test starts.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, with its database `rdev` migrated: the template of all others."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), {"fsync": "off"}) as server:
        migrate(server.url)
        yield server.url


@pytest.fixture
def run_sql(postgres_url: str) -> Callable[..., list[list[object]]]:
    """Run SQL on a database of the test server, as somebody else than rdev would."""

    def run(sql: str, url: str = postgres_url) -> list[list[object]]:
        connection = Connection(Target.parse(url), application_name="test")
        try:
            rows: list[list[object]] = connection.script(sql)
            return rows
        finally:
            connection.close()

    return run


@pytest.fixture
def database_url(postgres_url: str, run_sql: Callable[..., list[list[object]]]) -> Iterator[str]:
    """A fresh, migrated database; dropped after the test, whoever is still connected."""
    name = f"test_{next(_numbers)}"
    server = postgres_url.replace("/rdev?", "/postgres?")
    run_sql(f"CREATE DATABASE {name} TEMPLATE rdev", server)
    yield postgres_url.replace("/rdev?", f"/{name}?")
    run_sql(f"DROP DATABASE {name} WITH (FORCE)", server)
