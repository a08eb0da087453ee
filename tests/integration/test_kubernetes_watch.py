"""Projects found in a cluster: lists, watches that break in every way, leaders."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from common.adapters.kubernetes import api as api_module
from common.adapters.kubernetes import cluster as watching
from common.adapters.kubernetes.api import Query
from common.adapters.kubernetes.cluster import entries
from common.adapters.memory.dependencies import MemoryDiscoveryStore
from common.adapters.memory.projects import MemoryProjectStore
from common.adapters.memory.state import MemoryState
from common.adapters.memory.upkeep import MemoryUpkeep
from common.domain.breaker import State, Thresholds
from common.domain.discovery import Found
from common.domain.errors import Unavailable
from common.domain.project import Phase
from common.ports.dependencies import KUBERNETES
from common.services.watch import Watch
from tests.fake_kubernetes.running import FakeKubernetes
from tests.integration.kubernetes_bench import Bench

PATIENCE_S = 30.0


class Bell:
    def __init__(self) -> None:
        self.rung: list[str] = []
        self.heard = threading.Event()

    def ring(self, project: str) -> None:
        self.rung.append(project)
        self.heard.set()


class Registry:
    """What the watchers of all processes share; `watcher` makes one more process."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        state = MemoryState()
        self.projects = MemoryProjectStore(state)
        self.store = MemoryDiscoveryStore(state)
        self.upkeep = MemoryUpkeep(state)
        self.bell = Bell()
        self.reports = 0
        self._reported = threading.Event()
        self.watchers: list[Watch] = []

    def watcher(self) -> Watch:
        exclusive: Callable[[str], AbstractContextManager[bool]] = self.upkeep.exclusive
        made = Watch(self.bench.cluster, self.store, exclusive, self.bell, self._report)
        self.watchers.append(made)
        return made

    def phases(self) -> dict[str, Phase]:
        return {project.name: project.phase for project in self.projects.list()}

    def until(self, check: Callable[[], object]) -> None:
        """Wait until the registry says so; it is written by other threads."""
        deadline = time.monotonic() + PATIENCE_S
        while not check():
            assert time.monotonic() < deadline, self.phases()
            self._reported.wait(0.02)
            self._reported.clear()

    def _report(self) -> None:
        self.reports += 1
        self._reported.set()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as fake:
        yield fake


@pytest.fixture
def fake(running: FakeKubernetes) -> Iterator[FakeKubernetes]:
    yield running
    running.reset()


@pytest.fixture
def bench(fake: FakeKubernetes, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(fake, tmp_path, Thresholds(failures=3, open_s=0.2, longest_s=0.2, probe_s=0.1))
    yield made
    made.close()


@pytest.fixture
def registry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(watching, "_RETRY_S", (0.05, 0.5))
    made = Registry(bench)
    yield made
    bench.fake.fail()
    for watcher in made.watchers:
        watcher.stop()


# -- one look -------------------------------------------------------------------------------------


def names(found: Found) -> list[str]:
    return [project.name for project in found.projects]


def test_a_look_merges_pods_and_the_config_map(fake: FakeKubernetes, bench: Bench) -> None:
    """Labelled pods, pods that an entry selects, and the settings of both."""
    fake.pod("a-0", project="a")
    fake.pod("web", labels={"app": "web"})
    fake.config({"a.yaml": "description: of a\n", "b.yaml": "pod_selector: app=web\n"})
    a, b = bench.cluster.look({}).projects
    assert (a.name, a.description, a.phase) == ("a", "of a", Phase.READY)
    assert (b.name, b.pod, b.phase) == ("b", "web", Phase.READY)


def test_a_forged_label_elsewhere_is_not_seen(fake: FakeKubernetes, bench: Bench) -> None:
    """Only pods of the one namespace are projects."""
    fake.pod("forged", project="demo", namespace="elsewhere")
    assert bench.cluster.look({}).projects == ()


def test_bad_entries_are_said_and_the_others_live_on() -> None:
    """Broken YAML says the line; a key that is no .yaml says so."""
    good = {"good.yaml": "description: fine", "none.yaml": ""}
    found = entries({"data": {**good, "bad.yaml": "a: 1\nb: [", "odd.txt": "x"}})
    assert found["good"].value == {"description": "fine"}
    assert found["none"].problem is None
    problem = found["bad"].problem
    assert problem is not None
    assert problem.startswith("bad.yaml in rdev-projects cannot be read in line")
    assert "does not end with .yaml" in str(found["odd.txt"].problem)
    assert entries(None) == {}


@pytest.mark.parametrize("text", ["d: 2026-99-99", "[" * 5000, "a: b\n" * 10_000])
def test_yaml_that_python_cannot_hold_is_a_bad_entry(text: str) -> None:
    """An impossible date, a depth without end, more than anybody writes."""
    assert entries({"data": {"x.yaml": text}})["x"].problem is not None


def test_a_list_is_read_page_by_page(fake: FakeKubernetes, bench: Bench) -> None:
    """Seven pods in pages of two are seven projects."""
    for number in range(7):
        fake.pod(f"p{number}-0", project=f"p{number}")
    fake.fail(page=2)
    assert names(bench.cluster.look({})) == [f"p{n}" for n in range(7)]
    assert fake.seen["list"] == 5


def test_pages_that_expire_are_unavailable_and_never_half_a_list(
    fake: FakeKubernetes, bench: Bench
) -> None:
    """410 in the middle of a list starts it over, and three times is enough."""
    for number in range(3):
        fake.pod(f"p{number}-0", project=f"p{number}")
    fake.fail(page=2, pages_expire=True)
    with pytest.raises(Unavailable, match="expire"):
        bench.cluster.look({})


def test_a_change_between_two_pages_is_seen(
    fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is as old as its first page, all of it; the watch tells what came later."""
    for number in range(4):
        fake.pod(f"p{number}-0", project=f"p{number}")
    fake.fail(page=2)
    api = registry.bench.api
    get, begun = api.get, threading.Event()

    def first_page(path: str, query: Query | None = None) -> dict[str, Any]:
        page = get(path, query)
        if not begun.is_set():
            begun.set()
            fake.delete_pod("p3-0")
            fake.pod("a-0", project="a")
        return page

    monkeypatch.setattr(api, "get", first_page)
    assert names(registry.bench.cluster.look({})) == ["p0", "p1", "p2", "p3"]
    fake.pod("p3-0", project="p3")
    fake.delete_pod("a-0")
    begun.clear()
    registry.watcher().start()
    registry.until(lambda: sorted(registry.phases()) == ["a", "p0", "p1", "p2"])


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_list_that_is_refused_changes_nothing(
    fake: FakeKubernetes, registry: Registry, status: int
) -> None:
    """Not seeing projects is not the same as seeing none."""
    fake.pod("a-0", project="a")
    registry.watcher().reconcile()
    fake.fail(status=status)
    with pytest.raises(Unavailable):
        registry.watcher().reconcile()
    assert list(registry.phases()) == ["a"]


def test_a_project_stays_with_its_pod_while_that_is_ready(
    fake: FakeKubernetes, registry: Registry
) -> None:
    """An older pod that is labelled so later does not get it; when its own fails, another does."""
    fake.pod("old-0", created="2020-01-01T00:00:00Z")
    fake.pod("a-0", project="a")
    watcher = registry.watcher()
    watcher.reconcile()
    uid = uid_of(registry, "a")
    fake.relabel("old-0", fake.get_pod("a-0")["metadata"]["labels"])
    watcher.reconcile()
    assert uid_of(registry, "a") == uid
    assert "2 pods match (a-0, old-0): using a-0" in registry.projects.list()[0].issues
    fake.set_status("a-0", "Running", ready=False)
    watcher.reconcile()
    assert registry.projects.list()[0].pod == "old-0"


# -- watching -------------------------------------------------------------------------------------


def change_everything(fake: FakeKubernetes, registry: Registry, rounds: int) -> None:
    """Pods that come, go, are relabelled and made anew; each change must be seen."""
    for number in range(rounds):
        name = f"p{number}"
        fake.pod(f"{name}-0", project=name)
        registry.until(lambda name=name: name in registry.phases())  # type: ignore[misc]
        if number % 3 == 0:
            fake.relabel(f"{name}-0", {})
        else:
            fake.delete_pod(f"{name}-0")
        if number % 3 == 2:
            fake.pod(f"{name}-0", project=name)
            uid = fake.get_pod(f"{name}-0")["metadata"]["uid"]
            registry.until(lambda name=name, uid=uid: uid_of(registry, name) == uid)  # type: ignore[misc]
        else:
            registry.until(lambda name=name: name not in registry.phases())  # type: ignore[misc]


def uid_of(registry: Registry, name: str) -> str | None:
    project = registry.projects.get(name)
    return None if project is None else (project.pod_uid or "").partition("/")[0]


@pytest.mark.parametrize("mode", ["steady", "dropped", "gone", "compacted"])
def test_every_change_is_seen(fake: FakeKubernetes, registry: Registry, mode: str) -> None:
    """Steady, with a watch cut after every event, told 410, and with its history forgotten."""
    registry.watcher().start()
    registry.until(lambda: registry.reports)
    if mode == "dropped":
        fake.fail(watch_drop_every=1)
    if mode == "gone":
        fake.fail(watch_gone=True)
    if mode == "compacted":
        fake.steer(compact=True)
    change_everything(fake, registry, 6)


def test_phases_follow_the_pod(fake: FakeKubernetes, registry: Registry) -> None:
    """Ready, not ready, failed, ready again."""
    fake.pod("a-0", project="a")
    registry.watcher().start()
    registry.until(lambda: registry.phases() == {"a": Phase.READY})
    for phase, ready, shown in (
        ("Running", False, Phase.PENDING),
        ("Failed", False, Phase.UNREACHABLE),
        ("Pending", False, Phase.PENDING),
        ("Running", True, Phase.READY),
    ):
        fake.set_status("a-0", phase, ready=ready)
        registry.until(lambda shown=shown: registry.phases() == {"a": shown})  # type: ignore[misc]


def test_the_config_map_is_watched(fake: FakeKubernetes, registry: Registry) -> None:
    """An entry that changes, changes its project; another ConfigMap does not."""
    fake.pod("a-0", project="a")
    registry.watcher().start()
    registry.until(registry.phases)
    fake.config({"a.yaml": "description: other"}, name="not-ours")
    fake.config({"a.yaml": "description: first"})
    registry.until(lambda: registry.projects.list()[0].description == "first")
    fake.config({"a.yaml": "max_concurrent_commands: many"})
    registry.until(lambda: registry.projects.list()[0].issues != ())


def test_a_silent_stall_ends(
    fake: FakeKubernetes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that says nothing at all is given up, and what was missed is seen."""
    monkeypatch.setattr(watching, "WATCH_S", 30)
    monkeypatch.setattr(watching, "STALLED_S", 2.0)  # bookmarks come each second
    fake.fail(watch_stall=True)
    registry.watcher().start()
    registry.until(lambda: registry.reports)
    fake.pod("a-0", project="a")
    fake.fail()
    registry.until(lambda: registry.phases() == {"a": Phase.READY})


def test_an_answer_that_does_not_come_is_not_waited_for(
    fake: FakeKubernetes, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its status nor the rest of its body; both count against the server."""
    monkeypatch.setattr(api_module, "READ_S", 0.2)
    for stalled in ("status", "body", "status"):
        fake.fail(stall=stalled)
        with pytest.raises(Unavailable):
            bench.cluster.look({})
    assert bench.breakers.of(KUBERNETES).state is State.OPEN


def test_an_api_server_that_is_away_and_comes_back(
    fake: FakeKubernetes, registry: Registry
) -> None:
    """Meanwhile projects stay as they were and it is asked ever less; then what changed is seen."""
    fake.pod("a-0", project="a")
    registry.watcher().start()
    registry.until(registry.phases)
    fake.fail(down=True)
    registry.until(lambda: registry.bench.breakers.of(KUBERNETES).state is not State.CLOSED)
    assert registry.phases() == {"a": Phase.READY}
    fake.steer(delete=["work", "a-0"], faults={})
    registry.until(lambda: registry.phases() == {})


def test_a_project_that_becomes_ready_rings_the_runner(
    fake: FakeKubernetes, registry: Registry
) -> None:
    """Commands that wait for it need not wait for a tick; what was ready at first is the tick's."""
    fake.pod("old-0", project="old")
    registry.watcher().start()
    registry.until(registry.phases)
    fake.pod("new-0", project="new")
    assert registry.bell.heard.wait(PATIENCE_S)
    assert registry.bell.rung == ["new"]


def test_one_leads_and_another_takes_over(fake: FakeKubernetes, registry: Registry) -> None:
    """Two processes, one watch; when the leader stops, the other sees what changed since."""
    first, second = registry.watcher(), registry.watcher()
    first.start()
    registry.until(lambda: first.leading)
    second.start()
    fake.pod("a-0", project="a")
    registry.until(lambda: registry.phases() == {"a": Phase.READY})
    assert not second.leading
    first.stop()
    fake.pod("b-0", project="b")
    registry.until(lambda: second.leading and "b" in registry.phases())


def test_a_doorbell_is_answered_by_who_does_not_lead(
    fake: FakeKubernetes, registry: Registry
) -> None:
    """Should the leader be stuck, whoever gets the event looks for itself."""
    with registry.upkeep.exclusive("watch") as held:
        assert held
        standby = registry.watcher()
        standby.start()
        fake.pod("a-0", project="a")
        standby.ring()
        registry.until(lambda: registry.phases() == {"a": Phase.READY})
        assert not standby.leading


def test_a_look_that_was_overtaken_changes_nothing(
    fake: FakeKubernetes, registry: Registry
) -> None:
    """A reconcile that began before the pod came is written after it was seen."""
    fake.pod("a-0", project="a")
    before = registry.bench.cluster.look({})
    slow = registry.store.begin()
    fake.pod("b-0", project="b")
    registry.watcher().reconcile()
    assert registry.store.sync("kubernetes", slow, before.projects, ()) is None
    assert list(registry.phases()) == ["a", "b"]
