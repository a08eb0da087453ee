"""common/services/manage_claude_config.py: announced, done, recorded, whatever breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from common.adapters.memory.audit import MemoryAuditLog
from common.adapters.memory.claude_files import MemoryClaudeFiles
from common.adapters.memory.state import MemoryState
from common.domain.audit import AuditFilter, NewEntry
from common.domain.claude_config import Definition, File, Found, Kind, Tree
from common.domain.command import Reason
from common.domain.errors import (
    Conflict,
    InvalidField,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    RdevError,
    Unavailable,
)
from common.domain.keys import Caller
from common.domain.workspace import (
    Place,
    TransportLost,
    WorkspaceBroken,
    WorkspaceGone,
    WorkspaceUnreachable,
)
from common.ports.claude_files import Refused
from common.ports.commands import Origin
from common.services.manage_claude_config import ManageClaudeConfig, View
from common.services.read_projects import ReadProjects
from tests.unit import fakes

CALLER = Caller(fakes.KEY, "ci", frozenset(), None)
ORIGIN = Origin("req_1", "192.0.2.1", "192.0.2.2")
COMMAND = Definition(Kind.COMMANDS, "ops:deploy", b"Deploy.\n")
CHANGED = Definition(Kind.COMMANDS, "ops:deploy", b"Deploy now.\n")
SKILL = Definition(
    Kind.SKILLS, "x", b"---\nname: x\ndescription: Does it\n---\nDo.\n", {"a": File(b"1")}
)


class Bench:
    """The service over memory, and what its audit trail says."""

    def __init__(self) -> None:
        self.files = MemoryClaudeFiles()
        self.audit = MemoryAuditLog(MemoryState())
        projects = fakes.FakeProjects("demo", "other")
        self.service = ManageClaudeConfig(ReadProjects(projects), self.files, self.audit)
        project = projects.get("demo")
        assert project is not None
        self.place = Place("demo", project.workspace)

    def create(self, definition: Definition, *, lenient: bool = False) -> View:
        return self.service.create("demo", definition, CALLER, ORIGIN, lenient=lenient)

    def update(self, definition: Definition, *tags: str, **more: Any) -> View:
        plain = {"keep_files": False, "lenient": False}
        match = frozenset(tags)
        return self.service.update("demo", definition, match, CALLER, ORIGIN, **plain | more)

    def delete(self, definition: Definition, *tags: str) -> None:
        self.service.delete(
            "demo", definition.kind, definition.name, frozenset(tags), CALLER, ORIGIN
        )

    def one(self, definition: Definition) -> View:
        return self.service.one("demo", definition.kind, definition.name, CALLER)

    @property
    def trail(self) -> list[str]:
        """Actions, oldest first."""
        found = self.audit.list(AuditFilter())
        return [entry.action.removeprefix("claude_config.") for entry in reversed(found)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_change_is_announced_and_its_end_recorded(bench: Bench) -> None:
    """With fingerprints and sizes, who and from where, and never what it holds."""
    made = bench.create(SKILL)
    assert (made.etag, made.effect.loaded) == (SKILL.fingerprint, True)
    other = Definition(SKILL.kind, SKILL.name, SKILL.content + b"More.\n", SKILL.files)
    bench.update(other, SKILL.fingerprint)
    bench.delete(other, other.fingerprint)
    assert bench.trail == ["begun", "created", "begun", "updated", "begun", "deleted"]
    deleted, _, updated, *_ = bench.audit.list(AuditFilter())
    assert updated.target == "demo/skills/x"
    assert (updated.project, updated.key_id, updated.client_ip) == ("demo", fakes.KEY, "192.0.2.1")
    assert updated.detail == {
        "verb": "update", "before": SKILL.fingerprint, "sha256": other.fingerprint,
        "size": other.size, "files": 2,
    }  # fmt: skip
    assert deleted.detail == {"verb": "delete", "before": other.fingerprint}


def test_without_an_announcement_nothing_is_done(bench: Bench) -> None:
    """A database that is down: 503, and the workspace is as it was."""

    def down(_entries: object) -> None:
        raise Unavailable("the database does not answer")

    bench.audit.record = down
    with pytest.raises(Unavailable):
        bench.create(COMMAND)
    assert bench.files.read(bench.place, COMMAND.kind, COMMAND.name).item is None


def test_what_was_done_is_done(bench: Bench) -> None:
    """A database that goes down in between costs the trail its end, not the caller the truth."""
    record: Callable[[list[NewEntry]], None] = bench.audit.record

    def goes_down(entries: list[NewEntry]) -> None:
        if bench.trail:
            raise Unavailable("the database does not answer")
        record(entries)

    bench.audit.record = goes_down
    assert bench.create(COMMAND).etag == COMMAND.fingerprint
    assert bench.trail == ["begun"]


def test_the_same_again_is_the_same(bench: Bench) -> None:
    """A creation or a change that is repeated answers as before and does nothing."""
    bench.create(COMMAND)
    assert bench.create(COMMAND).etag == COMMAND.fingerprint
    bench.update(CHANGED, COMMAND.fingerprint)
    assert bench.update(CHANGED, COMMAND.fingerprint).etag == CHANGED.fingerprint
    assert bench.trail == ["begun", "created", "begun", "updated"]
    with pytest.raises(Conflict):
        bench.create(COMMAND)


def test_a_change_wants_the_right_version(bench: Bench) -> None:
    """412 with the wrong one, 428 with none, any with `*`; 404 where nothing is."""
    bench.create(COMMAND)
    for act in (bench.update, bench.delete):
        with pytest.raises(PreconditionFailed):
            act(CHANGED, CHANGED.fingerprint)
    with pytest.raises(PreconditionRequired):
        bench.service.delete("demo", Kind.COMMANDS, "ops:deploy", None, CALLER, ORIGIN)
    with pytest.raises(PreconditionRequired):
        bench.service.update("demo", CHANGED, None, CALLER, ORIGIN, keep_files=False, lenient=False)
    assert bench.update(CHANGED, "*").etag == CHANGED.fingerprint
    bench.delete(CHANGED, "*")
    for act in (bench.update, bench.delete):
        with pytest.raises(NotFound):
            act(CHANGED, "*")


def test_a_skills_other_files_stay_or_go(bench: Bench) -> None:
    """As the caller says; without a word they stay."""
    bench.create(SKILL)
    content = SKILL.content + b"More.\n"
    bare = Definition(SKILL.kind, SKILL.name, content)
    kept = bench.update(bare, "*", keep_files=True)
    assert kept.definition.files == SKILL.files
    assert bench.one(SKILL).definition.files == SKILL.files
    assert bench.update(bare, "*").definition.files == {}


def test_a_file_that_is_there_may_stay_whatever_its_name(bench: Bench) -> None:
    """rdev would not write it anew, and does not take it away."""
    there = Definition(SKILL.kind, SKILL.name, SKILL.content, {".hidden file": File(b"1")})
    bench.files.put(bench.place, there, "absent")
    bare = Definition(SKILL.kind, SKILL.name, SKILL.content + b"More.\n")
    assert bench.update(bare, "*", keep_files=True).definition.files == there.files
    with pytest.raises(InvalidField):
        bench.update(there, "*")


def test_strict_refuses_with_lines_and_lenient_writes(bench: Bench) -> None:
    """But no leniency with names, sizes and paths."""
    wrong = Definition(Kind.AGENTS, "abc", b"---\nname: abc\nmaxTurns: 0\n---\nx")
    with pytest.raises(InvalidField) as refused:
        bench.create(wrong)
    assert [(e.field, e.line) for e in refused.value.errors] == [
        ("description", 1),
        ("maxTurns", 3),
    ]
    made = bench.create(wrong, lenient=True)
    assert {i.field for i in made.issues} == {"description", "maxTurns"}
    assert made.effect.loaded is False
    with pytest.raises(InvalidField):
        bench.create(Definition(Kind.AGENTS, "A B", b"x"), lenient=True)
    assert bench.trail == ["begun", "created"]


LOST: list[Exception] = [TransportLost("cut"), WorkspaceBroken("exit code 137")]
AWAY: list[Exception] = [
    WorkspaceUnreachable("no pod"),
    WorkspaceGone(Reason.POD_DELETED, "gone"),
    Refused("busy", "somebody else"),
    Refused("missing", "not there"),
]


@pytest.mark.parametrize("error", [*LOST, *AWAY], ids=repr)
def test_a_workspace_that_cannot_be_read_is_our_trouble(bench: Bench, error: Exception) -> None:
    """503 with a code and when to come back, before anything is announced."""
    bench.create(COMMAND)
    for act in (
        lambda: bench.one(COMMAND),
        lambda: bench.service.many("demo", Kind.AGENTS, CALLER),
        lambda: bench.service.effective("demo", CALLER),
        lambda: bench.update(CHANGED, "*"),
        lambda: bench.delete(COMMAND, "*"),
    ):
        bench.files.fail("read", error)
        with pytest.raises(Unavailable) as told:
            act()
        assert (told.value.code, told.value.retry_after) == ("workspace_unreachable", 2)
    assert bench.trail == ["begun", "created"]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_a_change_that_did_not_begin_says_so(bench: Bench, error: Exception) -> None:
    """503, and the trail says that it was not done."""
    bench.files.fail("put", error)
    with pytest.raises(Unavailable):
        bench.create(COMMAND)
    assert bench.trail == ["begun", "not_done"]


@pytest.mark.parametrize("code", ["linked", "failed", "moved"])
def test_what_is_in_the_way_there_is_a_conflict(bench: Bench, code: str) -> None:
    """409 with the workspace's own words."""
    bench.files.fail("put", Refused(code, "ops is a link"))
    with pytest.raises(Conflict, match="ops is a link"):
        bench.create(COMMAND)
    assert bench.trail == ["begun", "unknown" if code == "moved" else "not_done"]


@pytest.mark.parametrize("lost", LOST, ids=repr)
def test_a_lost_answer_is_looked_up(bench: Bench, lost: Exception) -> None:
    """Done, as the workspace then shows: a success, and recorded as one."""
    bench.files.fail("put", lost, after=True)
    assert bench.create(COMMAND).etag == COMMAND.fingerprint
    bench.files.fail("remove", lost, after=True)
    bench.delete(COMMAND, "*")
    assert bench.trail == ["begun", "created", "begun", "deleted"]


@pytest.mark.parametrize("again", [None, WorkspaceUnreachable("no pod")], ids=["not", "away"])
def test_a_lost_answer_that_nobody_can_look_up_is_unknown(
    bench: Bench, again: Exception | None
) -> None:
    """503 that says so; the trail says `unknown`, and the same request again is safe."""
    reads = bench.files.read

    def then_away(*arguments: Any) -> Any:
        if again is not None and "begun" in bench.trail:
            raise again
        return reads(*arguments)

    bench.files.read = then_away
    bench.files.fail("put", TransportLost("cut"))
    with pytest.raises(Unavailable, match="may have been changed or not"):
        bench.create(COMMAND)
    assert bench.trail == ["begun", "unknown"]
    bench.files.read = reads
    assert bench.create(COMMAND).etag == COMMAND.fingerprint


@pytest.mark.parametrize("act", ["create", "update", "delete"])
def test_who_comes_second_is_told(bench: Bench, act: str) -> None:
    """Somebody else's change between our look and our turn: 409 or 412, and not done."""
    other = Definition(Kind.COMMANDS, "ops:deploy", b"Theirs.\n")
    if act != "create":
        bench.create(COMMAND)
    reads = bench.files.read

    def then_theirs(place: Place, *arguments: Any) -> Any:
        found = reads(place, *arguments)
        there = found.item.definition.fingerprint if found.item else "absent"
        bench.files.put(place, other, there)
        return found

    bench.files.read = then_theirs
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: bench.create(COMMAND),
        "update": lambda: bench.update(CHANGED, "*"),
        "delete": lambda: bench.delete(COMMAND, "*"),
    }
    with pytest.raises(Conflict if act == "create" else PreconditionFailed):
        calls[act]()
    assert bench.trail[-1] == "not_done"
    bench.files.read = reads
    assert bench.one(other).definition == other


def test_what_rdev_would_lose_it_does_not_touch(bench: Bench) -> None:
    """A skill with links in it, or beyond the limits, is shown as far as possible, without ETag."""
    bench.create(SKILL)
    bench.files.spoil(bench.place, Kind.SKILLS, "x", "to")
    seen = bench.one(SKILL)
    assert seen.etag is None
    assert "files: it holds to" in [issue.message for issue in seen.issues]
    acts = [lambda: bench.update(SKILL, "*"), lambda: bench.delete(SKILL, "*")]
    for act in acts:
        with pytest.raises(Conflict, match="would lose"):
            act()
    with pytest.raises(Conflict):
        bench.create(SKILL)
    bench.files.spoil(bench.place, Kind.SKILLS, "x", large=True)
    for act in [*acts, lambda: bench.one(SKILL)]:
        with pytest.raises(Conflict, match="larger"):
            act()


def test_lists_hold_what_is_broken(bench: Bench) -> None:
    """With what is wrong, names that rdev could not write included."""
    bench.files.plant(bench.place, Kind.AGENTS, Found("Bad Name.md", "file", 3, ""))
    bench.files.plant(bench.place, Kind.AGENTS, Found("l.md", "link"))
    found, truncated = bench.service.many("demo", Kind.AGENTS, CALLER)
    listed = {item.effect.name: {issue.code for issue in item.issues} for item in found}
    assert listed == {"Bad Name": {"invalid_name", "missing"}, "l": {"invalid_name"}}
    assert not truncated


def test_one_of_too_many_is_shown(bench: Bench) -> None:
    """Also when it is beyond what a list looks at."""
    bench.create(COMMAND)
    reads = bench.files.read

    def cut(*arguments: Any) -> Any:
        found = reads(*arguments)
        return replace(found, tree=Tree(dict.fromkeys(Kind, ()), frozenset(Kind)))

    bench.files.read = cut
    assert bench.one(COMMAND).effect.loaded is True


def test_a_foreign_project_is_not_there(bench: Bench) -> None:
    """For every verb, the workspace unasked."""
    bench.files.fail("read", AssertionError("asked"))
    stranger = Caller(fakes.KEY, "x", frozenset(), frozenset({"other"}))
    service, match = bench.service, frozenset({"*"})
    calls: list[Callable[[], object]] = [
        lambda: service.many("demo", Kind.AGENTS, stranger),
        lambda: service.effective("demo", stranger),
        lambda: service.one("demo", Kind.AGENTS, "abc", stranger),
        lambda: service.validate("demo", COMMAND, stranger),
        lambda: service.create("demo", COMMAND, stranger, ORIGIN, lenient=False),
        lambda: service.update(
            "demo", COMMAND, match, stranger, ORIGIN, keep_files=True, lenient=False
        ),
        lambda: service.delete("demo", Kind.AGENTS, "abc", match, stranger, ORIGIN),
    ]
    for call in calls:
        with pytest.raises(RdevError) as told:
            call()
        assert isinstance(told.value, NotFound)
