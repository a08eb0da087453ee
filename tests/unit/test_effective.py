"""common/domain/effective.py: what claude loads of what is there, and why not of the rest.

That claude really does so is for tests/end_to_end/test_claude_config.py.
"""

from __future__ import annotations

import pytest

from common.domain.claude_config import Found, Kind, Tree
from common.domain.effective import effects

FRONT = "---\ndescription: Does it\n---\n"
AGENT = "---\nname: {}\ndescription: Does it\n---\n"


def file(path: str, front: str = FRONT) -> Found:
    return Found(path, "file", len(front), front)


def folder(path: str) -> Found:
    return Found(path, "folder")


def judged(**found: list[Found]) -> dict[str, tuple[bool | None, str | None]]:
    tree = Tree({Kind(kind): tuple(items) for kind, items in found.items()})
    return {e.path.removeprefix(".claude/"): (e.loaded, e.reason) for e in effects(tree)}


def shown(**found: list[Found]) -> dict[str, str | None]:
    tree = Tree({Kind(kind): tuple(items) for kind, items in found.items()})
    return {e.path.removeprefix(".claude/"): e.shown for e in effects(tree)}


def test_commands_go_by_their_path() -> None:
    """With or without frontmatter, broken or not, whatever their name."""
    found = [
        file("a.md", ""),
        file("sub/b.md"),
        file("Bad Name.md", "---\nx: [1\n---\n"),
        folder("sub"),
    ]
    assert {loaded for loaded, _ in judged(commands=found).values()} == {True}
    assert shown(commands=found) == {
        "commands/a.md": "a", "commands/sub/b.md": "sub:b", "commands/Bad Name.md": "Bad Name",
    }  # fmt: skip
    assert "guesses" in str(judged(commands=found)["commands/Bad Name.md"][1])


def test_what_is_no_command() -> None:
    """Another ending; whatever shares a folder with a SKILL.md; our own files in the making."""
    found = [file("a.txt"), file("b.MD"), file("d/SKILL.md"), file("d/c.md"), file(".rdev-tmp.x")]
    verdicts = judged(commands=found)
    assert verdicts["commands/a.txt"] == (False, "its name does not end in .md")
    assert verdicts["commands/b.MD"][0] is False
    assert verdicts["commands/d/SKILL.md"][0] is True
    assert verdicts["commands/d/c.md"][0] is False
    assert shown(commands=found)["commands/d/SKILL.md"] == "d"
    assert len(verdicts) == 4


def test_a_skill_wins_over_a_command() -> None:
    """Also one that claude does not see as a skill: it is callable by that name."""
    skills = [folder("a"), file("a/SKILL.md"), folder("b"), file("b/SKILL.md", "")]
    verdicts = judged(commands=[file("a.md"), file("b.md"), file("x/a.md")], skills=skills)
    assert verdicts["commands/a.md"] == (False, "the skill 'a' has the same name and wins")
    assert verdicts["commands/b.md"][0] is False
    assert verdicts["commands/x/a.md"] == (True, None)


@pytest.mark.parametrize(
    ("front", "loaded"),
    [
        (FRONT, True),
        ("---\nwhen_to_use: Often\n---\n", True),
        ("---\ndescription: 5\n---\n", True),
        ("---\ndescription: [1\n---\n", True),
        ("---\ndescription: Does it\nuser-invocable: false\n---\n", True),
        ("---\ndescription: Does it\ndisable-model-invocation: true\n---\n", True),
        ("---\nname: a\n---\n", False),
        ("---\ndescription: ''\n---\n", False),
        ("---\ndescription: [a]\n---\n", False),
        ("", False),
    ],
)
def test_a_skill_needs_a_description(front: str, loaded: bool) -> None:
    """And says what restricts it."""
    verdict = judged(skills=[folder("a"), file("a/SKILL.md", front)])["skills/a"]
    assert verdict[0] is loaded
    assert (verdict[1] is None) is (
        front in (FRONT, "---\nwhen_to_use: Often\n---\n", "---\ndescription: 5\n---\n")
    )


def test_what_is_no_skill() -> None:
    """A single file, a folder without SKILL.md, one that is spelt otherwise, a link to one."""
    found = [
        file("flat.md"), folder("empty"), folder("lower"), file("lower/skill.md"),
        Found("linked", "link"), folder("inner"), Found("inner/SKILL.md", "link"),
    ]  # fmt: skip
    verdicts = judged(skills=found)
    assert verdicts["skills/flat.md"][0] is False
    assert verdicts["skills/empty"] == (False, "it has no SKILL.md")
    assert verdicts["skills/lower"] == (False, "it has no SKILL.md; skill.md is not the same")
    assert (verdicts["skills/linked"][0], verdicts["skills/inner"][0]) == (None, None)


@pytest.mark.parametrize(
    ("front", "why"),
    [
        ("", "it has no frontmatter"),
        ("---\nname: a\n", "it has no frontmatter"),
        ("---\nname: a\n---\n", "no description"),
        ("---\ndescription: a\n---\n", "no name"),
        ("---\nname: 12\ndescription: a\n---\n", "no name"),
        ("---\nname: a\ndescription: 12\n---\n", "no description"),
        ("---\nname: a\ndescription: ''\n---\n", "no description"),
        ('---\nname: a\ndescription: "x\n---\n', "cannot be read"),
    ],
)
def test_an_agent_needs_both(front: str, why: str) -> None:
    """claude drops it without a word; rdev says why."""
    loaded, reason = judged(agents=[file("a.md", front)])["agents/a.md"]
    assert loaded is False
    assert why in str(reason)


def test_agents_go_by_their_frontmatter() -> None:
    """Wherever the file is; of two with one name the last by path."""
    found = [file("a.md", AGENT.format("one two")), file("b/c.md", AGENT.format("x")),
             file("z.md", AGENT.format("x")), Found("l.md", "link"), file("R.txt")]  # fmt: skip
    verdicts = judged(agents=found)
    assert verdicts["agents/a.md"] == (True, None)
    assert verdicts["agents/b/c.md"] == (False, ".claude/agents/z.md has the same name and wins")
    assert verdicts["agents/z.md"] == (True, None)
    assert verdicts["agents/l.md"][0] is None
    assert verdicts["agents/R.txt"][0] is False
    assert shown(agents=found)["agents/a.md"] == "one two"


def test_what_was_not_looked_at_is_not_judged() -> None:
    """Of too many skills, one whose SKILL.md was not seen may have one."""
    found = {Kind.SKILLS: (folder("a"), folder("b"), file("b/SKILL.md"))}
    judged = {e.name: e.loaded for e in effects(Tree(found, frozenset({Kind.SKILLS})))}
    assert judged == {"a": None, "b": True}


def test_a_beginning_that_was_not_sent_is_not_judged() -> None:
    """Nobody knows whether there is a description; a command is loaded all the same."""
    unseen = [Found("a.md", "file", 9)]
    skill = [folder("a"), Found("a/SKILL.md", "file", 9)]
    assert judged(agents=unseen, skills=skill, commands=[Found("b.md", "file", 9)]) == {
        "agents/a.md": (None, "there is more than rdev looks at"),
        "skills/a": (None, "there is more than rdev looks at"),
        "commands/b.md": (True, None),
    }


def test_names_that_are_no_text_are_written_out() -> None:
    """An answer is JSON."""
    assert list(judged(commands=[file("b\udcff.md")])) == ["commands/b\\xff.md"]
