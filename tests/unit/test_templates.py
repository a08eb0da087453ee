"""common/domain/templates.py: places for values, and what an event makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.templates import MAX_PLACES, Place, Unfit, flaws, lookup_in, parse, rendered

SHELL: dict[str, Any] = {"project": "demo", "kind": "shell"}
GIT: dict[str, Any] = {"project": "demo", "kind": "git"}
CLAUDE: dict[str, Any] = {"project": "demo", "kind": "claude"}
ATTRIBUTES = {"id": "7", "source": "/ci", "type": "t", "subject": "main"}
DATA: Any = {
    "text": "it's",
    "number": 7,
    "float": 1.5,
    "yes": True,
    "none": None,
    "list": ["a", {"b": "c"}],
    "object": {"key-x": {"y_z": "deep"}},
    "0": "zero",
}


def made(command: dict[str, Any], data: Any = DATA) -> dict[str, Any]:
    assert flaws(command) == []
    return rendered(command, lookup_in(ATTRIBUTES, data))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("plain { } }} { {", ["plain { } }} { {"]),
        ("a {{ data.x }} b", ["a ", Place("data.x"), " b"]),
        ("{{data.x}}{{ id }}", ["", Place("data.x"), "", Place("id"), ""]),
        ("{{{{.Names}}", ["{{.Names}}"]),
        ("{{{{{{ id }}", ["{{", Place("id"), ""]),
        ("{{ data.a-b.0.c_d }}", ["", Place("data.a-b.0.c_d"), ""]),
    ],
)
def test_a_text_is_parts_and_places(text: str, parts: list[str | Place]) -> None:
    """`{{{{` is a plain `{{`."""
    assert parse(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "{{", "{{ }}", "{{}}", "{{ data }}", "{{ data. }}", "{{ data..x }}", "{{ data.x | upper }}",
        "{{ data.x() }}", "{{ data['x'] }}", "{{ data.x", "{{ Data.x }}", "{{ subject.x }}",
        "{{ 7*7 }}", "{{ data.x }", "{%x%}{{#if}}", "{{\ndata.x }}", "{{ data.é }}",
        "{{ data" + ".x" * 16 + " }}", "{{ data." + "x" * 300 + " }}",
    ],
)  # fmt: skip
def test_nothing_but_a_path_is_a_place(text: str) -> None:
    """No code, no filter, no condition."""
    with pytest.raises(ValueError, match="begins a place"):
        parse(text)


@given(st.text())
def test_text_without_braces_is_itself(text: str) -> None:
    """Nothing is changed but places."""
    plain = text.replace("{", "")
    assert parse(plain) == [plain]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.text", "it's"),
        ("data.number", "7"),
        ("data.float", "1.5"),
        ("data.yes", "true"),
        ("data.list.0", "a"),
        ("data.list.1.b", "c"),
        ("data.object.key-x.y_z", "deep"),
        ("data.0", "zero"),
        ("subject", "main"),
    ],
)
def test_a_value_is_what_the_path_says(path: str, value: str) -> None:
    """Texts as they are, numbers and booleans as JSON writes them."""
    assert lookup_in(ATTRIBUTES, DATA)(Place(path)) == value


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("data.missing", "value_missing"),
        ("data.text.x", "value_missing"),
        ("data.list.2", "value_missing"),
        ("data.list.x", "value_missing"),
        ("data.list.-1", "value_missing"),
        ("data.list." + "9" * 60, "value_missing"),
        ("time", "value_missing"),
        ("data.none", "value_not_text"),
        ("data.list", "value_not_text"),
        ("data.object", "value_not_text"),
    ],
)
def test_a_value_that_is_not_there_is_no_empty_text(path: str, code: str) -> None:
    """It is refused, whatever would have become of the rest."""
    with pytest.raises(Unfit) as caught:
        lookup_in(ATTRIBUTES, DATA)(Place(path))
    assert caught.value.code == code


@pytest.mark.parametrize("data", [None, "text", 7, []])
def test_data_that_is_no_object_has_no_values(data: Any) -> None:
    """Nothing breaks on it."""
    with pytest.raises(Unfit):
        lookup_in({}, data)(Place("data.x"))


# -- what a value becomes --------------------------------------------------------------------------


def test_each_place_makes_of_a_value_what_is_safe_there() -> None:
    """A quoted word in a script; one argument, or a part of one; plain text in the rest."""
    script = made(SHELL | {"script": "make T={{ data.text }} {{{{x}}", "env": {"A": "{{ id }}"}})
    assert script["script"] == "make T='it'\\''s' {{x}}"
    assert script["env"] == {"A": "7"}
    argv = made(SHELL | {"argv": ["make", "T={{ data.text }}", "{{ data.number }}"]})
    assert argv["argv"] == ["make", "T=it's", "7"]
    labels = made(GIT | {"args": ["show", "{{ subject }}"], "labels": {"a": "{{ data.text }}"}})
    assert (labels["args"], labels["labels"]) == (["show", "main"], {"a": "it's"})
    prompt = made(CLAUDE | {"prompt": "Fix {{ data.text }}", "options": {"max_turns": 3}})
    assert (prompt["prompt"], prompt["options"]) == ("Fix it's", {"max_turns": 3})


def test_a_value_is_no_template() -> None:
    """Places in a value are text."""
    again = made(SHELL | {"argv": ["echo", "{{ data.x }}"]}, {"x": "{{ data.x }}"})
    assert again["argv"] == ["echo", "{{ data.x }}"]


@pytest.mark.parametrize("value", ["-x", "--upload-pack=x", "-"])
def test_a_value_is_no_option_of_git(value: str) -> None:
    """Where it begins an argument; behind words of the author's it may begin as it likes."""
    with pytest.raises(Unfit) as caught:
        made(GIT | {"args": ["fetch", "{{ data.x }}"]}, {"x": value})
    assert caught.value.code == "value_is_option"
    kept = made(GIT | {"args": ["log", "--grep={{ data.x }}"]}, {"x": value})
    assert kept["args"][1] == f"--grep={value}"


@given(st.text())
def test_whatever_the_value_an_argument_stays_one(value: str) -> None:
    """And is the value, to the character."""
    args = made(SHELL | {"argv": ["echo", "{{ data.x }}", "end"]}, {"x": value})["argv"]
    assert args == ["echo", value, "end"]


# -- where places can be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (SHELL | {"script": "echo '{{ data.x }}'"}, "command.script"),
        (SHELL | {"script": "{{ data.x"}, "command.script"),
        (SHELL | {"argv": ["{{ data.x }}"]}, "command.argv[0]"),
        (SHELL | {"argv": ["sh", "-c", "echo {{ data.x }}"]}, "command.argv[2]"),
        (SHELL | {"argv": ["/bin/bash", "-ec", "echo {{ data.x }}"]}, "command.argv[2]"),
        (GIT | {"args": ["{{ data.x }}"]}, "command.args[0]"),
        (CLAUDE | {"prompt": "{{ data.x }}"}, "command.prompt"),
        (CLAUDE | {"prompt": "  {{ data.x }} please"}, "command.prompt"),
        (CLAUDE | {"prompt": "/{{ data.x }}"}, "command.prompt"),
        (CLAUDE | {"prompt": "a", "session": {"id": "{{ data.x }}"}}, "command.session.id"),
        (CLAUDE | {"prompt": "a", "options": {"model": "{{ id }}"}}, "command.options.model"),
        (SHELL | {"script": "a", "project": "{{ data.x }}"}, "command.project"),
        (SHELL | {"script": "a", "cwd": "{{ data.x }}"}, "command.cwd"),
        (SHELL | {"script": "a", "env": {"{{ data.x }}": "b"}}, "command.env (a name)"),
        (SHELL | {"argv": ["a", "{{ id }}" * (MAX_PLACES + 1)]}, "command"),
        ({"kind": "{{ id }}"}, "command.kind"),
        (SHELL | {"argv": {"x": "{{ id }}"}}, "command.argv.x"),
        (SHELL | {"argv": [["a", "{{ id }}"]]}, "command.argv[0][1]"),
    ],
)
def test_a_place_is_refused_where_a_value_would_do_more(
    command: dict[str, Any], field: str
) -> None:
    """With the field it stands in."""
    assert field in [flaw.field for flaw in flaws(command)]


def test_a_slash_command_of_the_author_may_take_a_value() -> None:
    """What is called is fixed, its words are not."""
    assert made(CLAUDE | {"prompt": "/review {{ id }}"})["prompt"] == "/review 7"
