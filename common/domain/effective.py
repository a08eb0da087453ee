"""What claude will load of what is there, and why not of the rest. Pure.

Measured with claude 2.1.330 and not what one would guess: a broken command is still offered, a
skill goes by its folder's name, an agent by the name in its frontmatter. The end-to-end test of the
function holds this against the real claude. Only the workspace's own `.claude`: plugins and the
user's own folder load more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from common.domain.claude_config import OURS, SKILL, Found, Kind, Tree, name_of
from common.domain.frontmatter import Frontmatter, parse

LINK: Final = "a symbolic link: claude may follow it, rdev does not"
GUESSED: Final = "its YAML is broken; claude guesses what was meant"
UNSEEN: Final = "there is more than rdev looks at"


@dataclass(frozen=True)
class Effect:
    """One thing that is there. `name` is rdev's, from the path; `shown` is claude's.

    `loaded`: claude offers it as what it is; None when rdev cannot tell. `reason` says why not, or
    what restricts it.
    """

    kind: Kind
    name: str
    path: str
    size: int
    loaded: bool | None
    reason: str | None
    shown: str | None
    front: Frontmatter


def effects(tree: Tree) -> list[Effect]:
    """Everything that is there, by kind and path."""
    skills = list(_skills(tree.found.get(Kind.SKILLS, ())))
    if Kind.SKILLS in tree.truncated:  # a folder's SKILL.md may be what was left out
        skills = [s if s.shown else replace(s, loaded=None, reason=UNSEEN) for s in skills]
    taken = frozenset(s.name for s in skills if s.shown is not None)
    commands = list(_commands(tree.found.get(Kind.COMMANDS, ()), taken))
    agents = _without_doubles(list(_agents(tree.found.get(Kind.AGENTS, ()))))
    return [*commands, *skills, *agents]


def _effect(
    kind: Kind,
    found: Found,
    loaded: bool | None,
    reason: str | None,
    *,
    path: str = "",
    shown: str | None = None,
    front: Frontmatter | None = None,
) -> Effect:
    path = path or found.path
    name = printable(name_of(kind, path))
    where = printable(f".claude/{kind}/{path}")
    return Effect(kind, name, where, found.size, loaded, reason, shown, front or Frontmatter())


def printable(text: str) -> str:
    """A name as JSON can carry it: bytes that are no UTF-8 are written out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _files(found: tuple[Found, ...]) -> Iterator[Found]:
    """What could be meant as a definition: files and links, without what is ours."""
    for entry in found:
        if entry.type in ("file", "link") and not entry.path.rpartition("/")[2].startswith(OURS):
            yield entry


def _commands(found: tuple[Found, ...], skills: frozenset[str]) -> Iterator[Effect]:
    kind = Kind.COMMANDS
    claimed = {e.path.rpartition("/")[0] for e in found if e.path.rpartition("/")[2] == SKILL}
    for entry in _files(found):
        folder, _, leaf = entry.path.rpartition("/")
        name = name_of(kind, entry.path)
        front = _front(entry)
        if not leaf.endswith(".md"):
            yield _effect(kind, entry, False, "its name does not end in .md")
        elif leaf == SKILL and folder:
            reason = "claude takes a folder with a SKILL.md for one command of the folder's name"
            yield _effect(kind, entry, True, reason, shown=folder.replace("/", ":"), front=front)
        elif folder in claimed:
            reason = "claude takes its folder for one command, because a SKILL.md is there"
            yield _effect(kind, entry, False, reason, front=front)
        elif entry.type == "link":
            yield _effect(kind, entry, None, LINK)
        elif name in skills:
            reason = f"the skill {name!r} has the same name and wins"
            yield _effect(kind, entry, False, reason, front=front)
        else:
            yield _effect(kind, entry, True, _restricted(front), shown=name, front=front)


def _restricted(front: Frontmatter) -> str | None:
    if front.fields.get("user-invocable") is False:
        return "user-invocable is false: for the model alone, not offered as /name"
    if front.fields.get("disable-model-invocation") is True:
        return "disable-model-invocation is true: only for whoever types /name"
    return GUESSED if front.guessed else None


def _skills(found: tuple[Found, ...]) -> Iterator[Effect]:
    kind = Kind.SKILLS
    inside: dict[str, dict[str, Found]] = {}
    for entry in found:
        folder, _, leaf = entry.path.partition("/")
        if leaf:
            inside.setdefault(folder, {})[leaf] = entry
    for entry in found:
        if "/" in entry.path or entry.path.startswith(OURS):
            continue
        if entry.type == "link":
            yield _effect(kind, entry, None, LINK)
        elif entry.type != "folder":
            reason = "a skill is a folder with a SKILL.md; claude passes over single files here"
            yield _effect(kind, entry, False, reason)
        else:
            yield _skill(entry, inside.get(entry.path, {}))


def _skill(folder: Found, inside: Mapping[str, Found]) -> Effect:
    kind = Kind.SKILLS
    main = inside.get(SKILL)
    if main is None:
        similar = [leaf for leaf in inside if leaf.casefold() == SKILL.casefold()]
        wrong = f"; {similar[0]} is not the same" if similar else ""
        return _effect(kind, folder, False, f"it has no SKILL.md{wrong}")
    if main.type != "file":
        return _effect(kind, folder, None, f"its SKILL.md is {LINK}")
    if main.front is None:
        return _effect(kind, folder, None, UNSEEN)
    front = _front(main)
    sized = replace(folder, size=main.size)
    if not (_said(front.fields.get("description")) or _said(front.fields.get("when_to_use"))):
        reason = "no description: it can be called as /name, but claude does not see it as a skill"
        return _effect(kind, sized, False, reason, shown=folder.path, front=front)
    return _effect(kind, sized, True, _restricted(front), shown=folder.path, front=front)


def _said(value: Any) -> bool:
    """Whether claude takes it for a description of a skill: a number will do, a list will not."""
    return isinstance(value, str | int | float) and bool(str(value).strip())


def _agents(found: tuple[Found, ...]) -> Iterator[Effect]:
    kind = Kind.AGENTS
    for entry in _files(found):
        front = _front(entry)
        name, about = front.fields.get("name"), front.fields.get("description")
        if not entry.path.endswith(".md"):
            yield _effect(kind, entry, False, "its name does not end in .md")
        elif entry.type == "link":
            yield _effect(kind, entry, None, LINK)
        elif entry.front is None:
            yield _effect(kind, entry, None, UNSEEN)
        elif not front.present:
            yield _effect(kind, entry, False, "it has no frontmatter with name and description")
        elif front.complaints and not front.fields:
            reason = "its frontmatter cannot be read, so it has no name and description"
            yield _effect(kind, entry, False, reason, front=front)
        elif not isinstance(name, str) or not name:
            yield _effect(kind, entry, False, "no name in its frontmatter", front=front)
        elif not isinstance(about, str) or not about:
            yield _effect(kind, entry, False, "no description in its frontmatter", front=front)
        else:
            guessed = GUESSED if front.guessed else None
            yield _effect(kind, entry, True, guessed, shown=name, front=front)


def _without_doubles(agents: list[Effect]) -> list[Effect]:
    """Of several agents of one name claude takes the last by path."""
    last = {a.shown: a for a in agents if a.loaded}
    return [
        a
        if not a.loaded or last[a.shown] is a
        else replace(
            a, loaded=False, reason=f"{last[a.shown].path} has the same name and wins", shown=None
        )
        for a in agents
    ]


def _front(entry: Found) -> Frontmatter:
    return parse(printable(entry.front or ""))
