"""Real processes: the zygote's children, spawned ones, their ends and ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from infra.local import instance as instances
from infra.local.lifeline import Reaper
from tests.integration.local_cluster import (
    MODULE,
    PATIENCE_S,
    Local,
    lay_out,
    running,
    service,
    until_noted,
)


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Local]:
    settings = lay_out(tmp_path, service("hello"), service("other", max_scale=1))
    with running(settings, zygote=True) as local:
        yield local


def ask(local: Local, name: str) -> dict[str, object]:
    answer = httpx.get(f"{local.url}/{name}", timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    result: dict[str, object] = answer.json()
    return result


def test_functions_are_forked_from_one_process_that_imported_before(warm: Local) -> None:
    """preload() ran once, in the parent of both, and each child has its own environment."""
    one, other = ask(warm, "hello"), ask(warm, "other")
    assert one["parent"] == other["parent"] != os.getpid()
    assert one["preloaded"] == other["preloaded"] == [one["parent"]]
    assert (one["service"], other["service"]) == ("hello", "other")
    assert one["session"] == one["pid"] and other["session"] == other["pid"]


def test_a_killed_child_is_noticed_and_replaced(warm: Local) -> None:
    """The zygote tells of the death, and the next request forks again."""
    first = ask(warm, "hello")["pid"]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    assert ask(warm, "hello")["pid"] != first


def test_a_killed_zygote_takes_its_children_and_is_replaced(warm: Local) -> None:
    """The kernel ends the children with it; the next start has a new zygote."""
    before = ask(warm, "hello")
    child, zygote = before["pid"], before["parent"]
    assert isinstance(child, int) and isinstance(zygote, int)
    gone = psutil.Process(child)
    os.kill(zygote, signal.SIGKILL)
    gone.wait(PATIENCE_S)
    after = ask(warm, "hello")
    assert after["parent"] not in {zygote, os.getpid()}


def test_stopping_ends_children_and_zygote(tmp_path: Path) -> None:
    """Nothing is left when the cluster has stopped."""
    with running(lay_out(tmp_path, service("hello")), zygote=True) as local:
        said = ask(local, "hello")
        left = [psutil.Process(int(str(said[key]))) for key in ("pid", "parent")]
    assert psutil.wait_procs(left, timeout=PATIENCE_S)[1] == []


def test_a_zygote_that_cannot_import_leaves_the_reason_to_the_spawned(tmp_path: Path) -> None:
    """When warm starts fail, cold ones are tried, and what they say is the answer."""
    settings = lay_out(tmp_path, service("hello"))
    (tmp_path / f"{MODULE}.py").write_text("raise ImportError('no such luck')\n")
    with running(settings, zygote=True) as local:
        answer = httpx.get(f"{local.url}/hello", timeout=30, trust_env=False)
    assert answer.status_code == 503
    assert "no such luck" in answer.json()["detail"]


def test_a_zygote_with_threads_does_not_fork(tmp_path: Path) -> None:
    """A fork would leave locks of other threads taken forever: such functions are spawned."""
    settings = lay_out(tmp_path, service("hello"))
    module = tmp_path / f"{MODULE}.py"
    threads = "def preload():\n    import threading\n"
    threads += "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    module.write_text(module.read_text().replace("def note(", f"{threads}\ndef note(", 1))
    with running(settings, zygote=True) as local:
        assert ask(local, "hello")["parent"] == os.getpid()


_PARENT = """
import asyncio, sys
from pathlib import Path
from infra.local.forking import ZygoteLauncher
from infra.local.process import SpawnLauncher

async def main(module, root):
    for launcher in (SpawnLauncher(root), ZygoteLauncher(module, root, root / "zygote.log")):
        log = root / f"{type(launcher).__name__}.log"
        child = await launcher.launch(["python", "-m", module], {"PORT": "0"}, log)
        print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


def test_a_sigkill_of_the_parent_leaves_no_orphan(tmp_path: Path) -> None:
    """Spawned and forked functions and the zygote end with the process that started them."""
    (tmp_path / f"{MODULE}.py").write_text(
        "import threading\n\n\ndef main():\n    threading.Event().wait()\n\n\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, MODULE, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    family = psutil.Process(parent.pid).children(recursive=True)
    assert {one.pid for one in family} > set(pids)
    parent.kill()
    parent.wait(PATIENCE_S)
    parent.stdout.close()
    assert psutil.wait_procs(family, timeout=PATIENCE_S)[1] == []


def test_where_the_kernel_does_not_a_shell_ends_what_is_registered() -> None:
    """The end of the reaper's input ends those added and not forgotten, with their signal."""
    kept, forgotten = (
        subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL) for _ in range(2)
    )
    reaper = Reaper()
    reaper.add(kept.pid, signal.SIGKILL)
    reaper.add(forgotten.pid, signal.SIGKILL)
    reaper.forget(forgotten.pid)
    reaper.close()
    assert kept.wait(PATIENCE_S) == -signal.SIGKILL
    assert forgotten.poll() is None
    forgotten.kill()
    forgotten.wait()


def test_two_hundred_cold_starts_lose_no_request(tmp_path: Path) -> None:
    """Functions that go to zero at once and start again, in random order, answer every time."""
    names = [f"f{number}" for number in range(5)]
    settings = lay_out(tmp_path, *(service(name) for name in names))
    with running(settings, zygote=True) as local:
        pids = set()
        for number in range(200):
            name = names[(number * 7 + number // 5) % len(names)]
            pid = ask(local, name)["pid"]
            assert pid not in pids
            pids.add(pid)
            local.do(_to_zero(local, name))


async def _to_zero(local: Local, name: str) -> None:
    """Have a function stop its instances as the sampler does, without waiting for their end."""
    function = local.cluster.functions[name]
    for instance in function.instances:
        function._instances.remove(instance)
        function._run(instance.stop(5.0))


def test_a_stopped_instance_gets_nothing_new(tmp_path: Path) -> None:
    """What accepts connections and never answers fails its probe, and another one is started."""
    with running(lay_out(tmp_path, service("hello", max_scale=1)), zygote=True) as local:
        first = int(str(ask(local, "hello")["pid"]))
        os.kill(first, signal.SIGSTOP)
        held = threading.Thread(target=_ask_in_vain, args=(local,))
        held.start()
        while (answer := _ask_briefly(local)) is None:
            continue
        assert answer["pid"] != first
        os.kill(first, signal.SIGCONT)
        held.join(PATIENCE_S)


def _ask_briefly(local: Local) -> dict[str, object] | None:
    try:
        result: dict[str, object] = httpx.get(
            f"{local.url}/hello", timeout=1, trust_env=False
        ).json()
    except httpx.TimeoutException:
        return None
    return result


def _ask_in_vain(local: Local) -> None:
    """Keep one request with the stopped instance; it is answered when that goes on."""
    ask(local, "hello")


def test_requests_meet_an_instance_that_is_being_stopped(tmp_path: Path) -> None:
    """While functions are scaled in under load, no request is lost."""
    settings = lay_out(tmp_path, service("hello"))
    stop = threading.Event()
    failures: list[str] = []

    def load(local: Local) -> None:
        with httpx.Client(base_url=local.url, timeout=30, trust_env=False) as client:
            while not stop.is_set():
                answer = client.post("/hello", content=b"x")
                if answer.status_code != 200:
                    failures.append(answer.text)

    with running(settings, zygote=True) as local:
        clients = [threading.Thread(target=load, args=(local,)) for _ in range(3)]
        for client in clients:
            client.start()
        for _ in range(10):
            until_noted(local, "hello", "started", len(local.notes("hello", "started")) or 1)
            local.do(_to_zero(local, "hello"))
        stop.set()
        for client in clients:
            client.join(PATIENCE_S)
    assert failures == []


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"UNREADY": "1"}, "503 no schema!"),
        ({"HUNG": "1"}, "its readiness probe is not answered"),
    ],
)
def test_a_process_that_does_not_get_ready_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], reason: str
) -> None:
    """It is given up, and who waited for it gets 503 with what its probe said last."""
    monkeypatch.setattr(instances, "START_TIMEOUT_S", 3.0)
    with running(lay_out(tmp_path, service("stuck", env=env)), zygote=True) as local:
        answer = httpx.get(f"{local.url}/stuck", timeout=30, trust_env=False)
    assert answer.status_code == 503
    assert reason in answer.json()["detail"]
