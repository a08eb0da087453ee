"""common/domain/shell_words.py: where a value can stand, judged by real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.domain.shell_words import MARK, complaint, quoted

SHELLS = [
    shell
    for shell in (["sh"], ["bash"], ["bash", "--posix"], ["busybox", "sh"])
    if shutil.which(shell[0])
]
# It says how many words it was given, and the words.
SHOW = 'show() { printf \'%s\\0\' "$#" "$@"; }\n'


def said(script: str, shell: list[str]) -> list[bytes]:
    done = subprocess.run(
        [*shell, "-c", SHOW + script], capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 0, (script, done.stderr)
    return done.stdout.split(b"\0")[:-1]


# Whatever stands around a place, and the one word that comes out of it.
GOOD = [
    ("show {}", "{}"),
    ("show a-{}.txt", "a-{}.txt"),
    ("show {0}{0}", "{0}{0}"),
    ('v={}; show "$v"', "{}"),
    ("v={0}'b'\"c\"; show \"$v\"", "{0}bc"),
    ("A=1 show {}", "{}"),
    ("# it's \"said\n:; show {}", "{}"),
    ("x=\"it's $HOME $(date) ${{HOME}}\"; show {}", "{}"),
    ("x=$(echo a b); show {}", "{}"),
    ("x='$(`\"'\\''${{'; show {}", "{}"),
    ("x=\\'\\\"; show {}", "{}"),
    ("if true; then show {}; fi", "{}"),
    ("if [ {0} = {0} ]; then show {0}; fi", "{0}"),
    ("case {0} in {0}) show {0};; esac", "{0}"),
    ('for v in {}; do show "$v"; done', "{}"),
    ('f() {{ show "$1"; }}; f {}', "{}"),
    ("(show {})", "{}"),
    ("true && show {} || false", "{}"),
    ("show \\\n {}", "{}"),
    ("show {} # {{}}", "{}"),
    ("show {} <<E\nit's\nE", "{}"),
    ("show {} $(echo)", "{}"),
    ("show 2>&1 {}", "{}"),
    (">&1 show {}", "{}"),

    ("show a$(:)#b {0} >/dev/null; show {0}", "{0}"),
    ("true \\\n# it's\nshow {}", "{}"),
]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(("template", "word"), GOOD)
def test_a_value_is_one_word_in_a_shell(template: str, word: str, shell: list[str]) -> None:
    """Whatever code stands around it, and however bad the value is."""
    assert complaint(template.format(MARK)) is None
    value = "-a 'b' \"c\" $(id) `id` $HOME \\ \\' * ?\n# ;&|<>(){}[]!~\t\r\x1b é \u2028"
    assert said(template.format(quoted(value)), shell) == [b"1", word.format(value).encode()]


VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | (
    st.text("'\"\\$`(){};&|<>#!* \n", max_size=20)
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(GOOD[:9]), VALUES), min_size=25, max_size=25))
def test_whatever_the_value_it_is_one_word(cases: list[tuple[tuple[str, str], str]]) -> None:
    """Batches of values by real shells: exactly one word each time, and exactly the value."""
    scripts = [template.format(quoted(value)) for (template, _), value in cases]
    expected = [part for (_, w), v in cases for part in (b"1", w.format(v).encode())]
    for shell in SHELLS:
        batch = 'for s; do eval "$s"; done'
        words = ["-c", SHOW + batch, "sh", *scripts]
        done = subprocess.run([*shell, *words], capture_output=True, timeout=20, check=False)
        assert done.stdout.split(b"\0")[:-1] == expected, (shell, scripts, done.stderr)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("echo '{}'", "inside quotes"),
        ('echo "{}"', "inside quotes"),
        ('echo "a\\"{}"', "inside quotes"),
        ('echo "it\'s" "{}"', "inside quotes"),
        ("echo \"a' {}", "inside quotes"),
        ("# {}", "comment"),
        ("true # {}\n", "comment"),
        ("true;# {}\n", "comment"),
        ("cat <<E\n{}\nE", "`<<`"),
        ("cat <<'E'\n{}\nE", "`<<`"),
        ("cat <<-E\n{}\nE", "`<<`"),
        ("cat <<<{}", "`<<`"),
        ("cat <<E\nE\necho {}", "`<<`"),
        ("echo $(echo {})", "`$(…)`"),
        ('echo "$(echo {})"', "`$(…)`"),
        ("echo $(echo $(date)) {}", "`$(…)`"),
        ("echo $(case a in a) echo;; esac) {}", "`$(…)`"),
        ('echo "$(case a in a) echo " x {} ";; esac)"', "`$(…)`"),
        ("echo $((1 + {}))", "`$(…)`"),
        ("echo `echo {}`", "back-quotes"),
        ("echo `date` {}", "back-quotes"),
        ('echo "`date`" {}', "back-quotes"),
        ("echo ${{x:-{}}}", "`${…}`"),
        ("echo ${{x:-'a'}} {}", "`${…}`"),
        ("echo $'a' {}", "`$'…'`"),
        ('echo $"a" {}', '`$"…"`'),
        ("echo $[{}]", "`$[…]`"),
        ("(( {} ))", "`((`"),
        ("cat <(echo {})", "`<(`"),
        ("x=(a >&1 {})", "`=(`"),
        ("echo ${}", "behind `$`"),
        ("echo \\{}", "behind `$`"),
        ("{}", "names the program"),
        ("{} --version", "names the program"),
        ("./{}", "names the program"),
        ("true; {}", "names the program"),
        ("true && {}", "names the program"),
        ("true | {}", "names the program"),
        ("A=1 {}", "names the program"),
        ("A='b c' {}", "names the program"),
        ("if {}; then :; fi", "names the program"),
        ("! {}", "names the program"),
        ("a[{}]=1", "names the program"),
        ("eval {}", "eval"),
        ("eval echo {}", "eval"),
        ("/usr/bin/env {}", "env"),
        ("sudo -u root {}", "sudo"),
        ("sh -c {}", "sh"),
        ("bash {}", "bash"),
        (". {}", "."),
        ("exec {}", "exec"),
        ("export {}", "export"),
        ("trap {} EXIT", "trap"),
        ("xargs {}", "xargs"),
        ("printf -v {} x", "printf -v"),
        ("test -v {}", "test -v"),
        ("[[ a -eq {} ]]", "[["),
        ("[[ a = b && c -eq {} ]]", "[["),
        ('[[ a = "]]" && c -eq {} ]]', "[["),
        ("[[ a = b", None),
        ("echo $(date)#'\necho {}'", "inside quotes"),
        ("echo $(date)# it's\necho {} 'b", "inside quotes"),
        ("echo a \\\n# {}\n", "comment"),
        ("ev\\\nal {}", "eval"),
        ("> f {}", "names the program"),
        (">f {}", "names the program"),
        ("2>f A=b <g {}", "names the program"),
        ("eval >&2 {}", "eval"),
        ("function f {{ {}; }}", "names the program"),
        ("time -p {}", "time"),
    ],
)
def test_other_places_are_refused(template: str, why: str | None) -> None:
    """Instead of guessing what a shell would make of them."""
    told = complaint(template.format(MARK))
    assert (told is None) if why is None else (told is not None and why in told), told


ATOMS = [
    "'", '"', "\\", "$", "(", ")", "{", "}", "`", "#", ";", "\n", " ", "<", ">", "&", "|", "a", "=",
    "echo ", "$(", "${", "$((", "<<", "[[", "]]", "[ ", ":", "if ", "then ", "fi", "case ", " in ",
    "esac", "for ", "do ", "done", "!", "x=", '"$a"', "'q'", "#c\n", "&&", "$'", "((",
    "$(:)", "${a}", "#'", "\\\n", ">f ",
]  # fmt: skip
EVIL = [
    "$(touch PWNED)", "`touch PWNED`", "\ntouch PWNED\n", "'\ntouch PWNED\n'", ";touch PWNED;",
    "a[$(touch PWNED)]", '"\ntouch PWNED\n"', "'; touch PWNED; '", "\\'\ntouch PWNED\n#",
    ")\ntouch PWNED\n(", "}\ntouch PWNED\n{",
]  # fmt: skip


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(
    st.lists(st.sampled_from([*ATOMS, MARK]), max_size=10),
    st.sampled_from(["echo ", "x=", ": ", 'echo "a" ']),
    st.sampled_from(EVIL),
)
def test_no_script_that_is_accepted_runs_a_value(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], before: str, value: str
) -> None:
    """Code thrown together at random: what is accepted never runs what the value says."""
    script = before + MARK + "".join(parts)
    if complaint(script) is not None:
        script = before + MARK
    folder = _folder(tmp_path_factory)
    for shell in SHELLS[:2]:
        subprocess.run(
            [*shell, "-c", script.replace(MARK, quoted(value))], cwd=folder, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=20, check=False,
        )  # fmt: skip
        assert not (folder / "PWNED").exists(), (script, value, shell)


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("shell")
