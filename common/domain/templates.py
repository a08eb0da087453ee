"""Commands with places for values from an event: `{{ data.head_commit.id }}`.

A place holds a path and nothing else: no code, no filter, no condition. What a value can become
depends on where its place is:

- in a shell script one word in quotes (shell_words.py says where such a place may be),
- in `argv` and in git's `args` one argument, or a part of one,
- in a prompt, in a label and in a variable of the environment plain text.

A value that is missing, or that is no text, number or boolean, is refused: an empty text in its
place would make `rm -rf "$dir"/` out of an event without `dir`. `{{{{` stands for a literal `{{`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.domain import shell_words
from common.domain.errors import FieldError

MAX_PLACES: Final = 64  # in one command
MAX_STEPS: Final = 16  # of one path
_PLACE: Final = re.compile(r"\{\{\{\{|\{\{(?:[ \t]*([A-Za-z0-9_.-]{1,200})[ \t]*\}\})?")
_STEP: Final = re.compile(r"[A-Za-z0-9_-]+")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9]{1,64}")
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox"})
_ARGUMENT: Final = re.compile(r"command\.argv\[([0-9]+)\]")
_CODE_OPTION: Final = re.compile(r"-[A-Za-z]*c")
SAMPLE: Final = "1"  # stands for every value when a template itself is checked


class Unfit(Exception):
    """No command can be made from this event; `code` says why in one word."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Place:
    """Where a value goes: its path, `data.a.0.b` or an attribute's name."""

    path: str

    @property
    def steps(self) -> Sequence[str]:
        return self.path.split(".")


Text = Sequence[str | Place]
Lookup = Callable[[Place], str]


def parse(text: str) -> Text:
    """The literal parts and places of a text. Raises ValueError with what is wrong."""
    parts: list[str | Place] = []
    literal, at = "", 0
    for match in _PLACE.finditer(text):
        literal += text[at : match.start()]
        at = match.end()
        if match[0] == "{{{{":
            literal += "{{"
        else:
            parts += [literal, _place(match[1])]
            literal = ""
    return [*parts, literal + text[at:]]


def _place(path: str | None) -> Place:
    place = Place(path or "")
    first, *rest = place.steps
    if first == "data":
        good = bool(rest) and len(rest) < MAX_STEPS and all(map(_STEP.fullmatch, rest))
    else:
        good = not rest and _ATTRIBUTE.fullmatch(first) is not None
    if not good:
        raise ValueError(
            "`{{` begins a place such as {{ data.ref }} or {{ subject }}; write {{{{ for a plain {{"
        )
    return place


def lookup_in(attributes: Mapping[str, str], data: Any) -> Lookup:
    """The values of one event. What it answers raises Unfit for one that is not there."""

    def value(place: Place) -> str:
        first, *rest = place.steps
        if first != "data":
            if first not in attributes:
                raise Unfit("value_missing", f"the event has no {first}")
            return attributes[first]
        found = data
        for step in rest:
            found = _below(found, step, place)
        return _as_text(found, place)

    return value


def _below(value: Any, step: str, place: Place) -> Any:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step.isdecimal() and int(step[:9]) < len(value):
        return value[int(step[:9])]
    raise Unfit("value_missing", f"the event has no {place.path}")


def _as_text(value: Any, place: Place) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
    raise Unfit("value_not_text", f"{place.path} is {kind}, not a text, a number or a boolean")


# -- whole commands --------------------------------------------------------------------------------


def flaws(command: Mapping[str, Any]) -> list[FieldError]:
    """What is wrong with the places of a command; its other fields are not looked at."""
    found: list[FieldError] = []
    places = 0
    for field, text in _texts(command):
        try:
            parts = parse(text)
        except ValueError as error:
            found.append(_flaw(field, str(error)))
            continue
        here = sum(isinstance(part, Place) for part in parts)
        places += here
        wrong = _complaint(command, field, parts) if here else None
        if wrong:
            found.append(_flaw(field, wrong))
    if places > MAX_PLACES:
        found.append(_flaw("command", f"has more than {MAX_PLACES} places for values"))
    return found[:20]


def rendered(command: Mapping[str, Any], value: Lookup) -> dict[str, Any]:
    """The command that an event makes. Raises Unfit."""

    def render(field: str, text: str) -> str:
        parts = parse(text)
        if field == "command.script":
            return _joined(parts, lambda place: shell_words.quoted(value(place)))
        made = _joined(parts, value)
        # A literal part that begins with `-` is an option of the trigger's author.
        if _is_git_argument(command, field) and not parts[0] and made.startswith("-"):
            raise Unfit(
                "value_is_option", f"{field}: a value that begins with - would be an option"
            )
        return made

    return dict(_mapped(command, "command", render))


def sample(command: Mapping[str, Any]) -> dict[str, Any]:
    """The command with a harmless text in every place, to check the rest of it."""
    return rendered(command, lambda _place: SAMPLE)


def _joined(parts: Text, value: Lookup) -> str:
    return "".join(part if isinstance(part, str) else value(part) for part in parts)


def _texts(value: Any, path: str = "command") -> Iterator[tuple[str, str]]:
    """Every text of a JSON value with its path, names of objects included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if "{{" in name:
                yield f"{path} (a name)", name
            yield from _texts(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{number}]")


def _mapped(value: Any, path: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        return {name: _mapped(inner, f"{path}.{name}", change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, f"{path}[{n}]", change) for n, inner in enumerate(value)]
    return value


def _is_git_argument(command: Mapping[str, Any], field: str) -> bool:
    return command.get("kind") == "git" and field.startswith("command.args[")


def _complaint(command: Mapping[str, Any], field: str, parts: Text) -> str | None:
    """Why these places cannot be in this field."""
    kind = command.get("kind")
    if field.startswith(("command.env.", "command.labels.")):
        return None
    if kind == "shell" and field == "command.script":
        marked = "".join(part if isinstance(part, str) else shell_words.MARK for part in parts)
        wrong = shell_words.complaint(marked)
        return f"a place {wrong}" if wrong else None
    if kind == "shell" and (match := _ARGUMENT.fullmatch(field)):
        return _complaint_of_argument(command["argv"], int(match[1]))
    if _is_git_argument(command, field):
        return "a place cannot name git's verb" if field == "command.args[0]" else None
    if kind == "claude" and field == "command.prompt":
        return _complaint_of_prompt(parts)
    return "places can be in script, argv, args, prompt, env and labels only"


def _complaint_of_argument(argv: Sequence[Any], number: int) -> str | None:
    if number == 0:
        return f"a place {shell_words.AS_PROGRAM}"
    program = str(argv[0]).rpartition("/")[2]
    if program in _SHELLS and _CODE_OPTION.fullmatch(str(argv[number - 1])):
        return "a place in a shell's code: use `script`, where it becomes one quoted word"
    return None


def _complaint_of_prompt(parts: Text) -> str | None:
    first = str(parts[0]).lstrip()
    if not first or (first.startswith("/") and not any(map(str.isspace, first))):
        return "begins with a place, which could name a slash command: begin with words of yours"
    return None


def _flaw(field: str, message: str) -> FieldError:
    return FieldError(field[:200], "invalid_template", f"{field[:200]}: {message}")
