"""What every ClaudeFiles does, whatever is behind it: one suite, run over each implementation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.adapters.kubernetes.access import Access
from common.adapters.kubernetes.api import Api
from common.adapters.kubernetes.pods import Pods
from common.adapters.kubernetes.transport import KubernetesTransport
from common.adapters.memory.claude_files import MemoryClaudeFiles
from common.adapters.memory.dependencies import MemoryDependencies
from common.adapters.workspace_local.transport import LocalTransport
from common.domain.breaker import Thresholds
from common.domain.claude_config import ABSENT, Definition, File, Found, Kind
from common.domain.discovery import Life
from common.domain.workspace import Place, TransportLost
from common.ports.claude_files import ClaudeFiles, Refused
from common.ports.dependencies import KUBERNETES
from common.services.breaker import SharedBreakers
from common.services.claude_files import WorkspaceClaudeFiles
from tests.fake_kubernetes.running import NAMESPACE, FakeKubernetes

FRONT = "---\ndescription: Does something\n---\n"
COMMAND = Definition(Kind.COMMANDS, "ops:deploy", f"{FRONT}Deploy $1.\n".encode())
SKILL = Definition(
    Kind.SKILLS,
    "reading",
    FRONT.encode(),
    {
        "scripts/run.sh": File(b"#!/bin/sh\necho \xff\0\n", executable=True),
        "notes/a/b.txt": File(b"no newline"),
        "empty": File(b""),
        "all.bin": File(bytes(range(256)) * 64),
    },
)
AGENT = Definition(Kind.AGENTS, "reviewer", b"---\nname: reviewer\n---\nRead.\n")
# A file in a folder and a folder of files; an agent is one more file.
EACH = pytest.mark.parametrize("definition", [COMMAND, SKILL], ids=lambda d: str(d.kind))


@dataclass
class Bench:
    """Files under test; `folder` is the workspace, where there is one."""

    files: ClaudeFiles
    place: Place
    folder: Path | None = None

    def link(self, kind: Kind, name: str) -> None:
        """A link to somewhere else, where a definition would be."""
        path = name if kind is Kind.SKILLS else f"{name}.md"
        if isinstance(self.files, MemoryClaudeFiles):
            self.files.plant(self.place, kind, Found(path, "link"))
            return
        assert self.folder is not None
        below = self.folder / ".claude" / kind
        below.mkdir(parents=True, exist_ok=True)
        (below / path).symlink_to("/etc")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubernetes]:
    with FakeKubernetes(tmp_path_factory.mktemp("fake")) as running:
        yield running


@pytest.fixture(params=["memory", "directory", "pod"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    work = tmp_path / "work"
    work.mkdir()
    if request.param == "memory":
        yield Bench(MemoryClaudeFiles(), Place("demo", "/work"))
    elif request.param == "directory":
        files = WorkspaceClaudeFiles(LocalTransport(tmp_path / "runs"))
        yield Bench(files, Place("demo", str(work)), work)
    else:
        fake: FakeKubernetes = request.getfixturevalue("fake")
        fake.reset()
        fake.pod("demo", project="demo")
        access = Access(kubeconfig=str(fake.kubeconfig))
        breakers = SharedBreakers(MemoryDependencies(), Thresholds())
        pods = Pods(Api(access, breakers.of(KUBERNETES)))
        transport = KubernetesTransport(access, pods, breakers, str(tmp_path / "runs"))
        uid = fake.get_pod("demo")["metadata"]["uid"]
        life = Life(uid, 0, "demo", "claudebox", labelled=True)
        place = Place("demo", str(work), NAMESPACE, "demo", str(life))
        yield Bench(WorkspaceClaudeFiles(transport), place, work)
        access.close()


def stored(bench: Bench, definition: Definition) -> Definition | None:
    item = bench.files.read(bench.place, definition.kind, definition.name).item
    return item.definition if item else None


def paths(bench: Bench, kind: Kind) -> list[str]:
    return [f.path for f in bench.files.read(bench.place).tree.found[kind]]


@EACH
def test_what_was_put_is_what_is_read(bench: Bench, definition: Definition) -> None:
    """Byte for byte, with every file of a skill and which of them can be executed."""
    assert stored(bench, definition) is None
    assert bench.files.put(bench.place, definition, ABSENT) == ABSENT
    assert stored(bench, definition) == definition


@EACH
def test_a_change_wants_what_was_seen(bench: Bench, definition: Definition) -> None:
    """Another fingerprint, or none, changes nothing and says what is there."""
    bench.files.put(bench.place, definition, ABSENT)
    there = definition.fingerprint
    changed = Definition(definition.kind, definition.name, b"changed")
    for wrong in (ABSENT, changed.fingerprint):
        assert bench.files.put(bench.place, changed, wrong) == there
        assert bench.files.remove(bench.place, definition.kind, definition.name, wrong) == there
    assert stored(bench, definition) == definition
    assert bench.files.put(bench.place, changed, there) == there
    assert stored(bench, definition) == changed


@EACH
def test_what_is_removed_is_gone(bench: Bench, definition: Definition) -> None:
    """And is absent for whoever removes it again; nothing of it stays behind."""
    bench.files.put(bench.place, definition, ABSENT)
    there, kind, name = definition.fingerprint, definition.kind, definition.name
    assert bench.files.remove(bench.place, kind, name, there) == there
    assert bench.files.remove(bench.place, kind, name, there) == ABSENT
    assert stored(bench, definition) is None
    assert not [path for path in paths(bench, kind) if path == definition.path]


def test_everything_is_found_with_its_beginning(bench: Bench) -> None:
    """Each kind apart, by path; frontmatter is there and bodies are not."""
    for definition in (COMMAND, SKILL, AGENT):
        bench.files.put(bench.place, definition, ABSENT)
    tree = bench.files.read(bench.place).tree
    commands = {f.path: f for f in tree.found[Kind.COMMANDS]}
    assert (commands["ops"].type, commands["ops/deploy.md"].type) == ("folder", "file")
    assert commands["ops/deploy.md"].front == FRONT
    assert commands["ops/deploy.md"].size == len(COMMAND.content)
    skills = {f.path: f.type for f in tree.found[Kind.SKILLS]}
    assert skills == {"reading": "folder", "reading/SKILL.md": "file"}
    [agent] = tree.found[Kind.AGENTS]
    assert agent.front == "---\nname: reviewer\n---\n"
    assert (tree.truncated, tree.blocked) == (frozenset(), {})


@EACH
def test_a_link_is_neither_read_nor_written(bench: Bench, definition: Definition) -> None:
    """It is found as what it is; asking for what is behind it is refused."""
    plain = Definition(definition.kind, "linked", definition.content, definition.files)
    bench.link(plain.kind, "linked")
    assert {f.path: f.type for f in bench.files.read(bench.place).tree.found[plain.kind]} == {
        plain.path: "link"
    }
    for act in (
        lambda: bench.files.read(bench.place, plain.kind, plain.name),
        lambda: bench.files.put(bench.place, plain, ABSENT),
        lambda: bench.files.remove(bench.place, plain.kind, plain.name, plain.fingerprint),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.code == "linked"


@pytest.mark.parametrize("bench", ["pod"], indirect=True)
@pytest.mark.parametrize("fault", ["exec_early_success", "exec_no_status", "exec_drop_every"])
def test_a_wire_that_lies_is_a_lost_answer(bench: Bench, fake: FakeKubernetes, fault: str) -> None:
    """Never "done", never half of what is there; what was done shows once the wire is whole."""
    changed = Definition(Kind.COMMANDS, COMMAND.name, b"Two.\n")
    bench.files.put(bench.place, COMMAND, ABSENT)
    fake.fail(frame_bytes=8, **{fault: 1})
    with pytest.raises(TransportLost):
        bench.files.put(bench.place, changed, COMMAND.fingerprint)
    with pytest.raises(TransportLost):
        bench.files.read(bench.place)
    fake.fail()
    assert stored(bench, COMMAND) in (COMMAND, changed)
