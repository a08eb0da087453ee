"""The embedded PostgreSQL: start, stop, crash, long paths, stale files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pg8000.native
import psutil
import pytest

from infra.local import postgres
from infra.local.postgres import EmbeddedPostgres, PostgresError

PATIENCE_S = 30.0
FAST = {"fsync": "off"}


def query(server: EmbeddedPostgres, sql: str) -> list[list[object]]:
    directory = parse_qs(urlsplit(server.url).query)["host"][0]
    connection = pg8000.native.Connection(
        "postgres", database="rdev", unix_sock=f"{directory}/.s.PGSQL.5432", ssl_context=False
    )
    try:
        rows: list[list[object]] = connection.run(sql)
        return rows
    finally:
        connection.close()


def test_data_outlives_a_stop_and_the_server_does_not(tmp_path: Path) -> None:
    """The first start creates the database, the next finds what was written."""
    with EmbeddedPostgres(tmp_path, FAST) as server:
        query(server, "CREATE TABLE kept AS SELECT 42 AS n")
        process = psutil.Process(server.pid)
    assert psutil.wait_procs([process], timeout=PATIENCE_S)[1] == []
    with EmbeddedPostgres(tmp_path, FAST) as server:
        assert query(server, "SELECT n FROM kept") == [[42]]
        assert query(server, "SHOW max_connections") == [["200"]]
        assert query(server, "SHOW listen_addresses") == [[""]]


def test_a_home_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """Socket paths end at 107 bytes, homes do not."""
    home = tmp_path / ("long" * 30)
    with EmbeddedPostgres(home, FAST) as server:
        assert query(server, "SELECT 1") == [[1]]


def test_a_killed_server_is_started_again_on_its_data(tmp_path: Path) -> None:
    """After SIGKILL the next start waits for what is left of the old one and recovers."""
    with EmbeddedPostgres(tmp_path, FAST) as server:
        query(server, "CREATE TABLE kept AS SELECT 42 AS n")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        server.start()
        assert query(server, "SELECT n FROM kept") == [[42]]


def test_a_pid_file_that_names_somebody_else_is_no_hindrance(tmp_path: Path) -> None:
    """A dead server's pid may belong to another process by now."""
    with EmbeddedPostgres(tmp_path, FAST) as server:
        pass
    lines = [str(os.getppid()), str(tmp_path), "1", "5432", str(tmp_path), "", " 1 1", "ready"]
    (tmp_path / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with server:
        assert query(server, "SELECT 1") == [[1]]


def test_an_interrupted_creation_is_begun_again(tmp_path: Path) -> None:
    """What an interrupted initdb left is not taken for a database."""
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path, FAST) as server:
        assert query(server, "SELECT 1") == [[1]]


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the last line of the server's log, at once."""
    with pytest.raises(PostgresError, match="no_such_setting"):
        EmbeddedPostgres(tmp_path, {"no_such_setting": "1"}).start()


def test_a_wrong_rdev_pg_bin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An override without a server in it is named."""
    monkeypatch.setenv("RDEV_PG_BIN", str(tmp_path))
    with pytest.raises(PostgresError, match="RDEV_PG_BIN"):
        EmbeddedPostgres(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_user_namespaces_runs_it_as_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sandbox forbids unshare, the server runs as nobody in a place of its own."""
    monkeypatch.setattr(postgres, "_may_unshare", lambda: False)
    with EmbeddedPostgres(tmp_path, FAST) as server:
        assert query(server, "SELECT 1") == [[1]]
        assert psutil.Process(server.pid).username() == "nobody"
    shutil.rmtree(server._identity.place.parent)


_PARENT = """
import sys, threading
from pathlib import Path
from infra.local.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), {"fsync": "off"})
server.start()
print(server.pid, flush=True)
threading.Event().wait()
"""


def test_a_sigkill_of_the_parent_ends_the_server(tmp_path: Path) -> None:
    """No database is left when whoever started it is killed."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(PATIENCE_S)
    parent.stdout.close()
    server.wait(PATIENCE_S)
