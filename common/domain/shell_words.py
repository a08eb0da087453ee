r"""Where in a shell script a value from outside can stand as one quoted word, and where it cannot.

A value is always written in single quotes, which every shell reads the same way: nothing inside
them means anything, and the word ends where they end. That holds where the shell reads code. It
does not hold inside other quotes, in comments and here-documents, after `$` or `\`, nor as a
program's name. So this walks through a script as a shell would, refuses a place where it does not
hold, and refuses as well what stands behind anything whose end it cannot tell for certain
(back-quotes, nested `$(…)`, `<<`): it never guesses. What is refused can always be written as
`name={{ data.path }}` in the first lines and `"$name"` wherever it is needed.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "\0"  # stands for a value; no script can hold NUL

_NAME: Final = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])")
_BRACED: Final = re.compile(r"\$\{[^'\"\\`${}()\0]*\}")
# Without `case`, whose patterns have a bracket that closes nothing.
_SUBSTITUTED: Final = re.compile(r"\$\((?![^()]*\bcase\b)[^'\"\\`#{}()<\0]*\)")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_REDIRECTION: Final = re.compile(r"[0-9]*[<>]+[|&]?")
_KEYWORDS: Final = frozenset({"if", "then", "elif", "else", "do", "while", "until", "!"})
# They read their words as code, as names to set, or as another program to run.
_READ_AS_CODE: Final = frozenset(
    {"eval", "let", "declare", "typeset", "local", "readonly", "export", "unset", "trap", "alias"}
    | {"read", "mapfile", "readarray", "getopts", "source", ".", "exec", "command", "builtin"}
    | {
        "env",
        "nohup",
        "sudo",
        "doas",
        "su",
        "xargs",
        "time",
        "coproc",
        "ssh",
        "watch",
        "sh",
        "bash",
        "dash",
        "zsh",
        "ksh",
        "busybox",
    }
)
_SEPARATORS: Final = frozenset("\n;&|()")
_MEANINGFUL: Final = frozenset("\\'\"$" + MARK)
_BEFORE_COMMENT: Final = frozenset(" \t<>")

IN_QUOTES: Final = "stands inside quotes: take them away, it gets its own"
IN_COMMENT: Final = "stands in a comment"
AFTER: Final = "comes right behind `$` or `\\`, which change what its quotes mean"
AS_PROGRAM: Final = "names the program to run"
AS_CODE: Final = "goes to {} that would read it as code"
UNCLEAR: Final = (
    "stands in or behind {}, on whose end shells differ; put values first:"
    ' `name={{{{ data.path }}}}`, then "$name"'
)


def quoted(value: str) -> str:
    """`value` as one word for any POSIX shell, whatever it holds (NUL, which no script can)."""
    return "'" + value.replace("'", "'\\''") + "'"


def complaint(script: str) -> str | None:
    """Why a MARK of `script` cannot be a value's place; None when each of them can."""
    at, last = 0, script.rfind(MARK)
    command = ""  # the simple command so far, with an `x` for all that is quoted or expanded
    while at <= last:
        character = script[at]
        end: int | str = at + 1
        if character == MARK:
            end = _misplaced(command) or at + 1
        elif character == "\\":
            end = AFTER if script[at + 1] == MARK else at + 2
        elif character in "'\"":
            end = _end_of_quotes(script, at)
        elif character == "#" and (not command or command[-1] in _BEFORE_COMMENT):
            end = _end_of_comment(script, at)
        elif character == "$":
            end = _end_of_expansion(script, at)
        elif unclear := _unclear(script, at):
            return UNCLEAR.format(unclear)
        if isinstance(end, str):
            return end
        if character in _SEPARATORS and not (character == "&" and command[-1:] in ("<", ">")):
            command = ""
        elif script[at:end] != "\\\n" and (character != "#" or end == at + 1):
            command += "x" if character in _MEANINGFUL else character
        at = end
    return None


def _misplaced(before: str) -> str | None:
    """`before`: the simple command so far."""
    attached = bool(before) and before[-1] not in " \t"
    words = before.split()
    if "{" in words:
        del words[: len(words) - words[::-1].index("{")]
    while words and (skipped := _before_program(words[0])):
        if len(words) < skipped or (attached and len(words) == skipped):
            # It is the value of an assignment, or where a redirection leads to.
            return None if words[0] not in _KEYWORDS else AS_PROGRAM
        del words[:skipped]
    if not words or (len(words) == 1 and attached):
        return AS_PROGRAM
    program = words[0].rpartition("/")[2]
    if program in _READ_AS_CODE:
        return AS_CODE.format(program)
    if program in ("test", "[", "printf") and "-v" in words:
        return AS_CODE.format(f"{program} -v")
    return None


def _before_program(word: str) -> int:
    """How many words from this one on come before a program's name; 0: it is one."""
    if word in _KEYWORDS or _ASSIGNMENT.match(word):
        return 1
    if redirection := _REDIRECTION.match(word):
        return 2 if redirection[0] == word else 1
    return 0


def _end_of_quotes(script: str, start: int) -> int | str:
    """Just behind the quotes that open at `start`, or what is wrong."""
    if script[start] == "'":
        end = script.find("'", start + 1)
        return IN_QUOTES if end == -1 or MARK in script[start:end] else end + 1
    at = start + 1
    while at < len(script):
        character = script[at]
        if character == '"':
            return at + 1
        if character == MARK:
            return IN_QUOTES
        if character == "`":
            return UNCLEAR.format("back-quotes")
        if character == "\\":
            at += 2
        elif character == "$":
            behind = _end_of_expansion(script, at)
            if isinstance(behind, str):
                return behind
            at = behind
        else:
            at += 1
    return IN_QUOTES


def _end_of_comment(script: str, at: int) -> int | str:
    end = script.find("\n", at)
    return IN_COMMENT if end == -1 or MARK in script[at:end] else end


def _end_of_expansion(script: str, at: int) -> int | str:
    for simple in (_NAME, _BRACED, _SUBSTITUTED):
        if match := simple.match(script, at):
            return match.end()
    following = script[at + 1 : at + 2]
    if following == MARK:
        return AFTER
    if following == "(":
        return UNCLEAR.format("`$(…)` with quotes, brackets or comments in it")
    if following == "{":
        return UNCLEAR.format("`${…}` with quotes or brackets in it")
    if following == "[":
        return UNCLEAR.format("`$[…]`")
    if following in ("'", '"'):
        return UNCLEAR.format(f"`${following}…{following}`")
    return at + 1


def _unclear(script: str, at: int) -> str | None:
    if script[at] == "`":
        return "back-quotes"
    two = script[at : at + 2]
    return f"`{two}`" if two in ("<<", "((", "<(", ">(", "=(", "[[") else None
