"""Use case: show, check and change what claude reads in a workspace's `.claude`.

The files are outside of PostgreSQL, so no transaction holds them and their audit entries together.
A change is announced first (`claude_config.begun`), then made, then its end is recorded: `created`,
`updated`, `deleted`, `not_done`, or `unknown` when the answer was lost. An announcement without an
end is a process that was killed in between: then the change may have been made, and never was one
made that nobody announced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from common.domain.audit import NewEntry
from common.domain.claude_config import (
    ABSENT,
    SKILL,
    Definition,
    Kind,
    Tree,
    check_name,
    collision,
)
from common.domain.config_validation import ERROR, WARNING, Issue, check_front, validate
from common.domain.effective import Effect, effects
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
from common.domain.workspace import Place, TransportLost, WorkspaceBroken, WorkspaceError
from common.ports.audit import AuditLog
from common.ports.claude_files import ClaudeFiles, Item, Reading, Refused
from common.ports.commands import Origin
from common.services import telemetry
from common.services.read_projects import ReadProjects

BUSY_S: Final = 2  # after which to ask again
MOST_ERRORS: Final = 50
_CREATE, _UPDATE, _DELETE = "create", "update", "delete"
_DONE: Final = {_CREATE: "created", _UPDATE: "updated", _DELETE: "deleted"}

log = telemetry.logger("rdev.claude_config")


@dataclass(frozen=True)
class View:
    """A definition, what is to say about it, and what claude makes of it.

    `etag` is None for what rdev shows and does not change, because of what it holds.
    """

    definition: Definition
    effect: Effect
    issues: list[Issue]
    etag: str | None


@dataclass(frozen=True)
class Listed:
    """One line of a list; its issues come from its name and frontmatter alone."""

    effect: Effect
    issues: list[Issue]


@dataclass(frozen=True)
class _Change:
    """One change on its way through the audit trail; `wanted` is None for a removal."""

    verb: str
    place: Place
    kind: Kind
    name: str
    before: str
    caller: Caller
    origin: Origin
    wanted: Definition | None = None


class ManageClaudeConfig:
    def __init__(self, projects: ReadProjects, files: ClaudeFiles, audit: AuditLog) -> None:
        self._projects = projects
        self._files = files
        self._audit = audit

    def many(self, project: str, kind: Kind, caller: Caller) -> tuple[list[Listed], bool]:
        """Everything of a kind by path, and whether there is more than is looked at.

        Raises NotFound, Conflict (its folder is a link) and Unavailable.
        """
        tree = self._read(self._place(project, caller)).tree
        if kind in tree.blocked:
            raise Conflict(f".claude/{kind}: {tree.blocked[kind]}")
        found = [_listed(e) for e in effects(tree) if e.kind is kind]
        return found, kind in tree.truncated

    def effective(self, project: str, caller: Caller) -> tuple[list[Effect], Tree]:
        """What claude will load of the workspace's own, and why not of the rest."""
        tree = self._read(self._place(project, caller)).tree
        return effects(tree), tree

    def one(self, project: str, kind: Kind, name: str, caller: Caller) -> View:
        """Raises InvalidField (the name), NotFound, Conflict and Unavailable."""
        place = self._place(project, caller)
        _check_name(kind, name)
        reading = self._read(place, kind, name)
        item = _present(reading, place, kind, name)
        if item.large:
            raise Conflict(f"{kind}/{name} is larger than rdev carries; read it in the workspace")
        return _view(reading.tree, item.definition, item.odd)

    def validate(self, project: str, definition: Definition, caller: Caller) -> list[Issue]:
        """What there is to say about a definition, without asking the workspace."""
        self._projects.one(project, caller)
        return validate(definition)

    def create(
        self, project: str, wanted: Definition, caller: Caller, origin: Origin, *, lenient: bool
    ) -> View:
        """Put a new one there; one that is there with the same content is the same creation.

        Raises InvalidField, NotFound, Conflict (it or a look-alike is there), Unavailable.
        """
        place = self._place(project, caller)
        _check(wanted, lenient=lenient)
        reading = self._read(place, wanted.kind, wanted.name)
        if reading.item is not None:
            if reading.item.definition != wanted or reading.item.odd:
                raise Conflict(f"{wanted.kind}/{wanted.name} is there; PUT changes it")
            return _view(reading.tree, wanted)
        twin = collision(wanted.path, [f.path for f in reading.tree.found[wanted.kind]])
        if twin is not None:
            raise Conflict(
                f"{wanted.kind}/{wanted.name}: {twin!a} is there, and some file systems "
                "cannot tell the two apart"
            )
        there = self._put(_CREATE, place, wanted, ABSENT, caller, origin)
        if there not in (ABSENT, wanted.fingerprint):
            raise Conflict(f"{wanted.kind}/{wanted.name} is there by now; PUT changes it")
        return _view(reading.tree.holding(wanted), wanted)

    def update(
        self,
        project: str,
        wanted: Definition,
        if_match: frozenset[str] | None,
        caller: Caller,
        origin: Origin,
        *,
        keep_files: bool,
        lenient: bool,
    ) -> View:
        """Replace one that is as `if_match` says; `keep_files`: a skill's other files stay.

        What is already as wanted is left as it is, whatever `if_match` says: a repetition.
        Raises InvalidField, NotFound, PreconditionRequired, PreconditionFailed, Conflict,
        Unavailable.
        """
        place = self._place(project, caller)
        _check(wanted, lenient=lenient)
        if if_match is None:
            raise PreconditionRequired("send If-Match with the ETag of what you change")
        reading = self._read(place, wanted.kind, wanted.name)
        item = _changeable(_present(reading, place, wanted.kind, wanted.name))
        if keep_files:
            wanted = Definition(wanted.kind, wanted.name, wanted.content, item.definition.files)
            _check(wanted, lenient=lenient, kept=True)
        if item.definition == wanted:
            return _view(reading.tree, wanted)
        before = item.definition.fingerprint
        _require_match(if_match, before)
        there = self._put(_UPDATE, place, wanted, before, caller, origin)
        if there not in (before, wanted.fingerprint):
            raise PreconditionFailed(_CHANGED)
        return _view(reading.tree.holding(wanted), wanted)

    def delete(
        self,
        project: str,
        kind: Kind,
        name: str,
        if_match: frozenset[str] | None,
        caller: Caller,
        origin: Origin,
    ) -> None:
        """Remove one that is as `if_match` says.

        Raises InvalidField (the name), NotFound, PreconditionRequired, PreconditionFailed,
        Conflict, Unavailable.
        """
        place = self._place(project, caller)
        _check_name(kind, name)
        if if_match is None:
            raise PreconditionRequired("send If-Match with the ETag of what you delete")
        item = _changeable(_present(self._read(place, kind, name), place, kind, name))
        before = item.definition.fingerprint
        _require_match(if_match, before)
        change = _Change(_DELETE, place, kind, name, before, caller, origin)
        there = self._carry_out(
            change,
            lambda: self._files.remove(place, kind, name, before),
            lambda: self._files.read(place, kind, name).item is None,
        )
        if there not in (before, ABSENT):
            raise PreconditionFailed(_CHANGED)

    def _put(
        self,
        verb: str,
        place: Place,
        wanted: Definition,
        before: str,
        caller: Caller,
        origin: Origin,
    ) -> str:
        """What was there: `before` when it was done."""
        kind, name = wanted.kind, wanted.name
        change = _Change(verb, place, kind, name, before, caller, origin, wanted)

        def settled() -> bool:
            item = self._files.read(place, kind, name).item
            return item is not None and item.definition == wanted

        return self._carry_out(change, lambda: self._files.put(place, wanted, before), settled)

    # -- the workspace, and the record of what was done there --------------------------------------

    def _place(self, project: str, caller: Caller) -> Place:
        found = self._projects.one(project, caller)
        return Place(
            project=found.name,
            path=found.workspace,
            namespace=found.namespace or "",
            pod=found.pod or "",
            pod_uid=found.pod_uid or "",
            container=found.container or "",
        )

    def _read(self, place: Place, kind: Kind | None = None, name: str = "") -> Reading:
        try:
            return self._files.read(place, kind, name)
        except WorkspaceError as error:
            raise _ours(error) from error

    def _carry_out(
        self, change: _Change, act: Callable[[], str], settled: Callable[[], bool]
    ) -> str:
        """Announce, act, record how it ended; answers the fingerprint that was there.

        When the answer is lost, a look at the workspace may still tell that it was done.
        """
        self._audit.record([_entry(change, "begun")])
        try:
            there = act()
        except (TransportLost, WorkspaceBroken) as lost:
            if not _tells(settled):
                self._record_end(change, "unknown")
                raise Unavailable(
                    f"the workspace's answer was lost ({lost}): it may have been changed or not; "
                    "the same request again is safe",
                    code="workspace_unreachable",
                    retry_after=BUSY_S,
                ) from lost
            there = change.before
        except WorkspaceError as error:
            moved = isinstance(error, Refused) and error.code == "moved"
            self._record_end(change, "unknown" if moved else "not_done")
            raise _ours(error) from error
        self._record_end(change, _DONE[change.verb] if there == change.before else "not_done")
        return there

    def _record_end(self, change: _Change, end: str) -> None:
        """What happened has happened: that it cannot be recorded is for the log, not the caller."""
        try:
            self._audit.record([_entry(change, end)])
        except RdevError as error:
            log.error("end of a change not recorded", end=end, exc_info=error)


_CHANGED: Final = "it has changed since; read it again"


def _entry(change: _Change, end: str) -> NewEntry:
    """Never what a definition holds: its fingerprint and size."""
    detail: dict[str, Any] = {
        "verb": change.verb,
        "before": None if change.before == ABSENT else change.before,
    }
    if change.wanted is not None:
        detail |= {
            "sha256": change.wanted.fingerprint,
            "size": change.wanted.size,
            "files": 1 + len(change.wanted.files),
        }
    return NewEntry(
        datetime.now(UTC),
        change.caller.key_id,
        f"claude_config.{end}",
        f"{change.place.project}/{change.kind}/{change.name}",
        change.place.project,
        detail,
        change.origin.request_id,
        change.origin.client_ip,
        change.origin.peer_ip,
    )


def _tells(settled: Callable[[], bool]) -> bool:
    try:
        return settled()
    except WorkspaceError:
        return False


def _ours(error: WorkspaceError) -> RdevError:
    """What a caller hears: 409 for what stands in the way there, 503 for what may pass."""
    if isinstance(error, Refused) and error.code not in ("missing", "busy"):
        return Conflict(f"the workspace would not: {error.detail}")
    return Unavailable(
        f"the workspace cannot be reached: {error}",
        code="workspace_unreachable",
        retry_after=BUSY_S,
    )


def _check_name(kind: Kind, name: str) -> None:
    errors = check_name(kind, name)
    if errors:
        raise InvalidField(errors)


def _check(wanted: Definition, *, lenient: bool, kept: bool = False) -> None:
    """Lenient lets frontmatter pass, never a name or a size, nor a path unless it is there already.

    Raises InvalidField, and Conflict for paths that collide.
    """
    errors = [
        issue
        for issue in validate(wanted)
        if issue.level == ERROR
        and not (lenient and issue.line)
        and not (kept and issue.code == "invalid_path")
    ]
    if errors:
        raise InvalidField([issue.as_error() for issue in errors[:MOST_ERRORS]])
    paths = [SKILL, *wanted.files]
    for path in () if kept else wanted.files:
        twin = collision(path, paths)
        if twin is not None:
            raise Conflict(f"files: some file systems cannot tell {path!r} and {twin!r} apart")


def _present(reading: Reading, place: Place, kind: Kind, name: str) -> Item:
    if reading.item is None:
        raise NotFound(f"there is no {kind}/{name} in {place.project}")
    return reading.item


def _changeable(item: Item) -> Item:
    where = f"{item.definition.kind}/{item.definition.name}"
    if item.large:
        raise Conflict(f"{where} is larger than rdev carries; change it in the workspace")
    if item.odd:
        raise Conflict(f"{where} holds {item.odd[0]}; rdev would lose that")
    return item


def _require_match(if_match: frozenset[str], fingerprint: str) -> None:
    if "*" not in if_match and fingerprint not in if_match:
        raise PreconditionFailed(_CHANGED)


def _view(tree: Tree, definition: Definition, odd: tuple[str, ...] = ()) -> View:
    # What was cut from the tree is judged as if it were in it.
    effect = _effect(tree, definition) or _effect(tree.holding(definition), definition)
    assert effect is not None
    issues = validate(definition)
    issues += [Issue("files", "odd", f"files: it holds {what}", level=WARNING) for what in odd]
    return View(definition, effect, issues, None if odd else definition.fingerprint)


def _effect(tree: Tree, definition: Definition) -> Effect | None:
    path = f".claude/{definition.kind}/{definition.path}"
    return next((effect for effect in effects(tree) if effect.path == path), None)


def _listed(effect: Effect) -> Listed:
    issues = [Issue(e.field, e.code, e.message) for e in check_name(effect.kind, effect.name)]
    if effect.loaded is not None:
        issues += check_front(effect.kind, effect.name, effect.front)
    return Listed(effect, issues)
