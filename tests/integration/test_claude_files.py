"""What config.sh promises when somebody swaps folders, or kills it, under every shell there is."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.adapters.workspace_local.transport import LocalTransport
from common.domain.claude_config import ABSENT, MOST_ENTRIES, Definition, File, Kind
from common.domain.workspace import Place, TransportLost
from common.ports.claude_files import Refused
from common.services.claude_files import WorkspaceClaudeFiles

BUSYBOX = os.environ.get("RDEV_TEST_BUSYBOX") or shutil.which("busybox")
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)] + (
    ["busybox"] if BUSYBOX else []
)
TOOLS = (
    "base64", "cat", "chmod", "dd", "find", "head", "mkdir", "mv", "rm", "rmdir", "sha256sum",
    "sed", "sleep", "sort", "stat", "wc",
)  # fmt: skip
COMMAND = Definition(Kind.COMMANDS, "ops:deploy", b"---\ndescription: x\n---\nOne.\n")
AGENT = Definition(Kind.AGENTS, "reviewer", b"One.\n")
SKILL = Definition(
    Kind.SKILLS, "reading", b"One.\n", {"a/run.sh": File(b"1", executable=True), "b": File(b"\0")}
)
NEXT = {
    Kind.COMMANDS: Definition(Kind.COMMANDS, "ops:deploy", b"Two.\n"),
    Kind.AGENTS: Definition(Kind.AGENTS, "reviewer", b"Two.\n"),
    Kind.SKILLS: Definition(Kind.SKILLS, "reading", b"Two.\n", {"b/c/d.txt": File(b"2")}),
}
ALL = (COMMAND, SKILL, AGENT)
EACH = pytest.mark.parametrize("definition", ALL, ids=lambda d: str(d.kind))
# Where a file in a folder and a folder of files are all there is to tell apart.
BOTH = pytest.mark.parametrize("definition", ALL[:2], ids=lambda d: str(d.kind))


class Bench:
    """A workspace whose shell and tools a test chooses."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.work, self.tools, self.outside = folder / "w", folder / "tools", folder / "outside"
        for made in (self.work, self.tools, self.outside):
            made.mkdir()
        self.runs = folder / "runs"
        self.shell(shell)
        environment = os.environ | {"PATH": f"{self.tools}:{os.environ['PATH']}"}
        self.files = WorkspaceClaudeFiles(LocalTransport(self.runs, environment))
        self.place = Place("demo", str(self.work))
        # Deliver the script now: what tests put in front of tools is meant for the script.
        self.files.read(self.place)

    def shell(self, name: str) -> None:
        if name == "busybox":
            for tool in ("sh", *TOOLS):
                (self.tools / tool).symlink_to(str(BUSYBOX))
        elif name == "bash":
            self.tool("sh", f'exec {shutil.which("bash")} --posix "$@"')
        else:
            (self.tools / "sh").symlink_to(str(shutil.which(name)))

    def tool(self, name: str, script: str) -> None:
        """From now on this tool is that script; `$real` in it is the real one."""
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\nreal={shutil.which(name)}\n{script}\n")
        path.chmod(0o755)

    def put(self, definition: Definition, expected: str = ABSENT) -> str:
        return self.files.put(self.place, definition, expected)

    def stored(self, definition: Definition) -> Definition | None:
        item = self.files.read(self.place, definition.kind, definition.name).item
        return item.definition if item else None

    @property
    def claude(self) -> Path:
        return self.work / ".claude"

    def left(self) -> list[str]:
        """Names of ours that nobody took away."""
        return [str(p) for p in self.work.rglob(".rdev-*")]

    def escaped(self) -> list[str]:
        return [str(p) for p in self.outside.rglob("*")]


@pytest.fixture(params=SHELLS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return Bench(tmp_path, request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Bench:
    """With this machine's sh: for what does not hang on the shell."""
    return Bench(tmp_path, "dash")


@EACH
def test_every_shell_writes_changes_and_removes(bench: Bench, definition: Definition) -> None:
    """And what was there twice is there once: nothing of ours stays behind."""
    changed = NEXT[definition.kind]
    assert bench.put(definition) == ABSENT
    assert bench.stored(definition) == definition
    assert bench.put(changed, definition.fingerprint) == definition.fingerprint
    assert bench.stored(definition) == changed
    assert bench.put(definition, definition.fingerprint) == changed.fingerprint
    there = changed.fingerprint
    assert bench.files.remove(bench.place, changed.kind, changed.name, there) == there
    assert bench.stored(definition) is None
    assert bench.left() == []


# -- links -----------------------------------------------------------------------------------------

PLANTED = {
    "claude": (".claude", COMMAND),
    "kind": (".claude/skills", SKILL),
    "parent": (".claude/commands/ops", COMMAND),
    "file": (".claude/commands/ops/deploy.md", COMMAND),
    "folder": (".claude/skills/reading", SKILL),
}


@pytest.mark.row(43, 44)
@pytest.mark.parametrize("where", PLANTED)
def test_a_planted_link_is_not_followed(bench: Bench, where: str) -> None:
    """Neither to write, nor to remove, nor to read what is behind it."""
    place, definition = PLANTED[where]
    secret = "---\nname: secret\ndescription: secret\n---\nsecret"
    for name in ("SKILL.md", "reviewer.md", "deploy.md"):
        (bench.outside / name).write_text(secret)
    for kind in Kind:  # so that a link at any level leads to something that would do
        (bench.outside / kind).symlink_to(bench.outside)
    before = bench.escaped()
    planted = bench.work / place
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(bench.outside / "reviewer.md" if planted.suffix else bench.outside)
    for act in (
        lambda: bench.put(definition),
        lambda: bench.files.remove(bench.place, definition.kind, definition.name, ABSENT),
        lambda: bench.files.read(bench.place, definition.kind, definition.name),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.code == "linked"
    assert "secret" not in repr(bench.files.read(bench.place))
    assert bench.escaped() == before
    assert (bench.outside / "deploy.md").read_text() == secret


# When a tool is called, the folder that is being worked in is somewhere else already and a link has
# its name; or the name that is about to be written is a link.
SWAPS = {
    "folder": 'mv "$kind" "$kind.was" && ln -s "$outside" "$kind"',
    "claude": 'mv ../.claude ../claude.was && ln -s "$outside" ../.claude',
    "leaf": 'rm -rf "$leaf"; ln -s "$outside" "$leaf"',
}


@pytest.mark.row(44)
@pytest.mark.parametrize(
    ("tool", "changes", "swap"),
    [("mv", False, "folder"), ("mv", True, "claude"), ("mv", True, "leaf"),
     ("sha256sum", True, "folder")],
    ids=["create", "update", "leaf", "look"],
)  # fmt: skip
@BOTH
def test_what_is_swapped_in_between_leads_nowhere(
    bench: Bench, definition: Definition, changes: bool, tool: str, swap: str
) -> None:
    """Whatever came of the change, nothing of it is outside, and the answer is no success."""
    if changes:
        bench.put(definition)
    (bench.outside / "old").write_text("old")
    claude = bench.claude
    leaf = claude / definition.kind / definition.path
    bench.tool(
        tool,
        f"PATH={os.environ['PATH']}\n"
        f"if mkdir '{bench.runs}/struck' 2>/dev/null; then\n"
        f"  (cd '{claude}' && kind={definition.kind} leaf='{leaf}' outside='{bench.outside}'\n"
        f'   {SWAPS[swap]})\nfi\nexec $real "$@"',
    )
    wanted = NEXT[definition.kind] if changes else definition
    expected = definition.fingerprint if changes else ABSENT
    try:
        answer = bench.put(wanted, expected)
    except (Refused, TransportLost) as error:
        answer = str(error)
    assert (bench.runs / "struck").is_dir(), "the swap was never tried"
    assert bench.escaped() == [str(bench.outside / "old")]
    if swap != "leaf":
        assert answer != expected


@BOTH
def test_whoever_sees_something_else_changes_nothing(plain: Bench, definition: Definition) -> None:
    """Of six that saw the same, one changes it."""
    plain.put(definition)
    versions = [
        Definition(definition.kind, definition.name, b"version %d" % n, definition.files)
        for n in range(6)
    ]
    with ThreadPoolExecutor(6) as pool:
        there = list(pool.map(lambda v: plain.put(v, definition.fingerprint), versions))
    won = [v for v, found in zip(versions, there, strict=True) if found == definition.fingerprint]
    assert len(won) == 1
    assert plain.stored(definition) == won[0]


def test_a_reader_sees_a_whole_skill(plain: Bench) -> None:
    """The old one or the new one, while both take turns."""
    other = NEXT[Kind.SKILLS]
    plain.put(SKILL)
    done = threading.Event()
    seen = []

    def read() -> None:
        while not done.is_set():
            seen.append(plain.stored(SKILL))

    reader = threading.Thread(target=read)
    reader.start()
    now, then = SKILL, other
    for _ in range(5):
        assert plain.put(then, now.fingerprint) == now.fingerprint
        now, then = then, now
    done.set()
    reader.join()
    assert seen
    assert all(found in (SKILL, other) for found in seen)


# -- death -----------------------------------------------------------------------------------------

# Every step of a change that can be seen is a rename. All processes of the call die at the Nth.
STRIKES = [(number, when) for number in range(1, 5) for when in ("before", "after")]


def strike(bench: Bench, number: int, when: str) -> None:
    """Let the call die at its Nth rename."""
    bench.tool(
        "mv",
        f"echo x >>'{bench.runs}/renames'\n"
        f"if [ $(wc -l <'{bench.runs}/renames') -eq {number} ]; then\n"
        f'  [ {when} = before ] || $real "$@"\n'
        '  kill -9 0\nfi\nexec $real "$@"',
    )


@pytest.mark.parametrize(
    ("definition", "number", "when"),
    [(COMMAND, *STRIKES[0]), (COMMAND, *STRIKES[1]), *((SKILL, *strike) for strike in STRIKES)],
    ids=lambda value: str(getattr(value, "kind", value)),
)
def test_a_killed_change_leaves_the_old_or_the_new(
    plain: Bench, definition: Definition, number: int, when: str
) -> None:
    """Whole, for the very next look, and what the dead one left is taken away by then."""
    plain.put(definition)
    changed = NEXT[definition.kind]
    strike(plain, number, when)
    with pytest.raises(TransportLost):
        plain.put(changed, definition.fingerprint)
    found = plain.stored(definition)
    assert found in (definition, changed)
    assert found is not None
    plain.tool("mv", 'exec $real "$@"')
    again = Definition(definition.kind, definition.name, b"Three.\n")
    assert plain.put(again, found.fingerprint) == found.fingerprint
    assert plain.stored(definition) == again
    assert plain.left() == []


@pytest.mark.parametrize(("number", "when"), STRIKES[:4])
def test_a_killed_removal_leaves_all_or_nothing(plain: Bench, number: int, when: str) -> None:
    """A skill is there whole, or gone."""
    plain.put(SKILL)
    strike(plain, number, when)
    with pytest.raises(TransportLost):
        plain.files.remove(plain.place, SKILL.kind, SKILL.name, SKILL.fingerprint)
    assert plain.stored(SKILL) in (SKILL, None)
    assert plain.left() == []


def test_claude_never_sees_a_skill_in_the_making(plain: Bench) -> None:
    """Whatever folder has a SKILL.md is a skill to claude: ours have none before their time."""
    plain.put(SKILL)
    seen = plain.runs / "seen"
    plain.tool("mv", f"cd '{plain.claude}/skills' && ls -d */SKILL.md .*/SKILL.md "
               f">>'{seen}' 2>/dev/null; cd - >/dev/null; exec $real \"$@\"")  # fmt: skip
    plain.put(NEXT[Kind.SKILLS], SKILL.fingerprint)
    assert set(seen.read_text().split()) == {"reading/SKILL.md"}


# -- what a workspace may be like ------------------------------------------------------------------


def test_a_change_waits_its_turn_and_not_for_ever(plain: Bench) -> None:
    """Somebody who never ends is told of, as `busy`."""
    plain.put(COMMAND)
    plain.tool("sleep", "exit 0")  # a hundred looks without the pauses between them
    with (plain.runs / "demo" / ".config.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused) as refused:
            plain.stored(COMMAND)
    assert refused.value.code == "busy"
    assert plain.stored(COMMAND) == COMMAND


@EACH
def test_what_cannot_be_written_changes_nothing(plain: Bench, definition: Definition) -> None:
    """A full disk in the middle of the content: the old one stays, nothing else does."""
    plain.put(definition)
    for tool in ("cat", "dd"):
        plain.tool(tool, "echo part; exit 1")
    with pytest.raises(Refused) as refused:
        plain.put(NEXT[definition.kind], definition.fingerprint)
    assert refused.value.code == "failed"
    assert plain.stored(definition) == definition
    assert plain.left() == []


def test_what_is_no_plain_skill_is_shown_and_left_alone(plain: Bench) -> None:
    """Links and line breaks in names inside it, and one that is too large, are told of."""
    plain.put(SKILL)
    folder = plain.claude / "skills" / "reading"
    (folder / "to").symlink_to("/etc/passwd")
    (folder / "two\nlines").touch()
    item = plain.files.read(plain.place, Kind.SKILLS, "reading").item
    assert item is not None
    assert item.definition == SKILL
    assert item.odd == ("a name that rdev cannot write", "to")
    (folder / "two\nlines").unlink()
    (folder / "to").unlink()
    (folder / "bytes\udcff").touch()
    item = plain.files.read(plain.place, Kind.SKILLS, "reading").item
    assert item is not None
    assert (item.definition, item.odd) == (SKILL, ("bytes\\xff",))
    (folder / "bytes\udcff").rename(folder / "has space.txt")
    (folder / "SKILL.md").chmod(0o755)
    item = plain.files.read(plain.place, Kind.SKILLS, "reading").item
    assert item is not None
    assert (item.odd, item.definition.files["has space.txt"]) == ((), File(b""))
    changed = Definition(Kind.SKILLS, "reading", b"Two.\n", item.definition.files)
    there = item.definition.fingerprint
    assert plain.put(changed, there) == there
    assert plain.stored(SKILL) == changed
    (folder / "big").write_bytes(bytes(600_000))
    large = plain.files.read(plain.place, Kind.SKILLS, "reading").item
    assert large is not None and large.large
    (plain.claude / "skills" / "empty").mkdir()
    bare = plain.files.read(plain.place, Kind.SKILLS, "empty").item
    assert bare is not None and bare.odd == ("no SKILL.md",)


def test_a_crowd_is_cut_and_said_so(plain: Bench) -> None:
    """What nobody would write by hand costs no more than its bound; odd names do no harm."""
    agents = plain.claude / "agents"
    agents.mkdir(parents=True)
    for number in range(MOST_ENTRIES + 1):
        (agents / f"a{number}.md").touch()
    commands = plain.claude / "commands"
    commands.mkdir()
    (commands / "two\nlines.md").touch()
    (commands / "b\udcff.md").write_text("---\ndescription: x\n---\n")
    (commands / " spaces .md").write_text("---\ndescription: y\n---\n")
    (commands / "long.md").write_text("---\n" + "a: 1\n" * 20_000)
    (commands / "one-line.md").write_text("x" * 200_000)
    tree = plain.files.read(plain.place).tree
    assert len(tree.found[Kind.AGENTS]) == MOST_ENTRIES
    assert tree.truncated == {Kind.AGENTS}
    found = {f.path: f for f in tree.found[Kind.COMMANDS]}
    assert set(found) == {"b\udcff.md", " spaces .md", "long.md", "one-line.md"}
    assert found["b\udcff.md"].front == "---\ndescription: x\n---\n"
    assert len(found["long.md"].front or "") <= 16 * 1024
    assert found["one-line.md"].front == ""


def test_frontmatter_has_a_bound_for_all_together(plain: Bench) -> None:
    """What it costs to read one answer does not grow with what somebody put there."""
    agents = plain.claude / "agents"
    agents.mkdir(parents=True)
    for number in range(40):
        (agents / f"a{number}.md").write_text("---\n" + "a: 1\n" * 450 + "x" * 10_000 + "\n---\n")
    tree = plain.files.read(plain.place).tree
    fronts = [found.front for found in tree.found[Kind.AGENTS]]
    assert sum(len(front or "") for front in fronts) <= 256 * 1024
    assert None in fronts


def test_a_stale_change_makes_no_folders(plain: Bench) -> None:
    """What is to be replaced and is not there leaves no trace."""
    assert plain.put(COMMAND, COMMAND.fingerprint) == ABSENT
    assert not plain.claude.exists()


def test_a_workspace_that_is_not_there(plain: Bench) -> None:
    """Is told of, and not made."""
    shutil.rmtree(plain.work)
    for act in (lambda: plain.put(COMMAND), lambda: plain.stored(COMMAND)):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.code == "missing"
    assert not plain.work.exists()
