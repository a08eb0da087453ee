"""What may follow `git`: verbs and options by name, and nothing that is not named here.

A list of what is forbidden is never complete (GitPython's and simple-git's grow with every
release), so this is a list of what is allowed: programs run by git (`--upload-pack`, `--exec`,
`-c alias.x=!`), files it writes (`--output`), and abbreviations of both (`--upl`, `-qu…`) are not
on it.

One rule holds whatever git makes of the rest: an argument that begins with `-` is an allowed
option, in whatever place it stands. So when git takes for an option what we took for a value, it is
one that was allowed anyway. A path that begins with `-` is written `./-x`.

This is policy and a record of intent, not a sandbox: the configuration of a repository in the
workspace names programs too (docs/concepts/security-model.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final


class NotAllowed(ValueError):
    """git would be asked for something that is not on the list; the message says what."""


@dataclass(frozen=True)
class _Verb:
    """`flags` take nothing, `valued` a value (`--x=v`, `--x v`, `-xv`), `optional` only `--x=v`."""

    flags: frozenset[str]
    valued: frozenset[str]
    optional: frozenset[str]
    actions: frozenset[str] = field(default_factory=frozenset)
    needs: frozenset[str] = field(default_factory=frozenset)


def _verb(options: str, *, actions: str = "", needs: str = "") -> _Verb:
    """`--a -b` take nothing, `--a= -b=` a value, `--a[=]` may have one.

    `actions`: what must come right behind the verb, when anything does. `needs`: one of these.
    """
    flags, valued, optional = set(), set(), set()
    for word in options.split():
        if word.endswith("[=]"):
            optional.add(word.removesuffix("[=]"))
        elif word.endswith("="):
            valued.add(word.removesuffix("="))
        else:
            flags.add(word)
    return _Verb(
        frozenset(flags),
        frozenset(valued),
        frozenset(optional),
        frozenset(actions.split()),
        frozenset(needs.split()),
    )


_QUIET: Final = " -q --quiet -v --verbose"
_FORMAT: Final = (
    " -p -u --patch -s --no-patch -U= --unified= --raw --stat[=] --numstat --shortstat --dirstat[=]"
    " --summary --name-only --name-status --color[=] --no-color --word-diff[=] --no-renames"
    " -M --find-renames[=] -C --find-copies[=] -R -w -b --ignore-all-space --ignore-space-change"
    " --ignore-blank-lines --ignore-space-at-eol -W --function-context --binary --full-index"
    " --abbrev[=] -z --minimal --patience --histogram --diff-algorithm= --diff-filter= -S= -G="
    " --pickaxe-all --pickaxe-regex --check --exit-code --no-prefix --relative[=] --no-ext-diff"
    " --no-textconv --inter-hunk-context= --compact-summary --submodule[=]"
)
_HISTORY: Final = (
    " -n= --max-count= --skip= --since= --after= --until= --before= --author= --committer= --grep="
    " --all-match --invert-grep -i --regexp-ignore-case -E --extended-regexp -F --fixed-strings"
    " --merges --no-merges --first-parent --all --branches[=] --tags[=] --remotes[=] --reverse"
    " --topo-order --date-order --author-date-order --graph --oneline --decorate[=] --no-decorate"
    " --pretty[=] --format[=] --abbrev-commit --no-abbrev-commit --date= --follow --left-right"
    " --cherry-pick --cherry-mark --ancestry-path --full-history --simplify-by-decoration --source"
    " --boundary --not --no-walk[=] -L= --parents --children"
)
_TRANSPORT: Final = " --progress --no-progress -4 -6 --ipv4 --ipv6"
_FETCH: Final = (
    " --all -a --append --depth= --deepen= --shallow-since= --unshallow --update-shallow -f --force"
    " -k --keep -p --prune -P --prune-tags -t --tags -n --no-tags --dry-run --atomic -j= --jobs="
    " --no-recurse-submodules --set-upstream --prefetch"
)
_PICK: Final = (
    " --abort --continue --skip --quit -n --no-commit -m= --mainline= -x -s --signoff --no-edit"
    " --allow-empty --allow-empty-message --keep-redundant-commits"
)
_MERGE: Final = (
    " --ff --no-ff --ff-only --squash --no-squash --commit --no-commit --no-edit --stat --no-stat"
    " --signoff --no-verify --allow-unrelated-histories --autostash --no-autostash"
)

# The verbs are few and the options those that people use: one that is missed can be added by name.
_VERBS: Final[dict[str, _Verb]] = {
    "add": _verb("-A --all -u --update -f --force -n --dry-run -N --intent-to-add -v --verbose"
                 " --renormalize --ignore-errors --refresh --chmod="),
    "archive": _verb("--format= --prefix= -v --verbose -l --list -0 -1 -9"),
    "bisect": _verb("", actions="start good bad old new skip reset log terms"),
    "blame": _verb("-L= -l -t -s -e -f -n -w -p --porcelain --line-porcelain --root --show-email"
                   " --show-name --show-number -M -C --since= --abbrev= --date="),
    "branch": _verb("-a --all -r --remotes -l --list -v -vv --verbose -q --quiet -d --delete -D -m"
                    " --move -M -c --copy -C -f --force --show-current -u= --set-upstream-to= -t"
                    " --track[=] --no-track --unset-upstream --merged --no-merged --contains"
                    " --no-contains --sort= --points-at= --format= --column[=] --no-column"
                    " --color[=] --no-color -i --ignore-case"),
    "cat-file": _verb("-t -s -e -p --batch-all-objects --batch-check[=] --batch[=]"),
    "check-ignore": _verb("-q --quiet -v --verbose -n --non-matching"),
    "checkout": _verb("-q --quiet -f --force -b= -B= -t --track[=] --no-track --detach -d --orphan="
                      " --ours --theirs -m --merge --progress --no-progress --guess --no-guess"),
    "cherry": _verb("-v --verbose --abbrev[=]"),
    "cherry-pick": _verb(_PICK),
    "clean": _verb("-d -f --force -n --dry-run -q --quiet -x -X -e= --exclude="),
    "clone": _verb("--depth= -b= --branch= --single-branch --no-single-branch --no-tags -n"
                   " --no-checkout --bare --mirror --origin= --filter= --sparse"
                   " --shallow-since= -j= --jobs=" + _QUIET + _TRANSPORT),
    "commit": _verb("-a --all -m= --message= --amend --no-edit --allow-empty --allow-empty-message"
                    " -s --signoff --author= --date= --reset-author -n --no-verify --fixup="
                    " --squash= -C= --reuse-message= -u --dry-run --short --porcelain --branch"
                    " --status --no-status -i --include -o --only --cleanup= --trailer="
                    " --no-gpg-sign -z --null" + _QUIET),
    "config": _verb("-l --list --get --get-all --get-regexp --name-only --show-origin --show-scope"
                    " --type= --bool --int -z --null --local --global --system",
                    needs="-l --list --get --get-all --get-regexp"),
    "count-objects": _verb("-v --verbose -H --human-readable"),
    "describe": _verb("--all --tags --contains --abbrev[=] --candidates= --exact-match --long"
                      " --match= --exclude= --always --first-parent --dirty[=] --broken[=]"),
    "diff": _verb("--cached --staged --merge-base" + _FORMAT),
    "diff-tree": _verb("-r -t --root -m -c --cc --stdin --no-commit-id" + _FORMAT),
    "fetch": _verb(_FETCH + _QUIET + _TRANSPORT),
    "for-each-ref": _verb("--count= --sort= --format= --points-at= --merged[=] --no-merged[=]"
                          " --contains[=] --no-contains[=] --ignore-case --color[=]"),
    "fsck": _verb("--full --no-full --strict --lost-found --unreachable --dangling --no-dangling"
                  " --connectivity-only --progress --no-progress -v --verbose"),
    "gc": _verb("--auto --prune[=] --no-prune -q --quiet --force --aggressive"),
    "grep": _verb("-n --line-number -i --ignore-case -l --files-with-matches -L"
                  " --files-without-match -c --count -w --word-regexp -v --invert-match -h -H -E"
                  " --extended-regexp -F --fixed-strings -G --basic-regexp -e= --and --or --not -A="
                  " --after-context= -B= --before-context= -C= --context= -q --quiet --cached"
                  " --untracked --heading --break -o --only-matching --column --color[=] --no-color"
                  " --max-depth= -I --full-name --all-match --show-function"),
    "init": _verb("-q --quiet --bare -b= --initial-branch= --object-format="),
    "log": _verb(_HISTORY + _FORMAT),
    "ls-files": _verb("-c --cached -d --deleted -m --modified -o --others -i --ignored -s --stage"
                      " -u --unmerged -k --killed -t -v -z -x= --exclude= --exclude-standard"
                      " --error-unmatch --full-name --abbrev[=] --eol --directory"),
    "ls-remote": _verb("-h --heads -t --tags --refs -q --quiet --exit-code --get-url --sort="
                       " --symref"),
    "ls-tree": _verb("-d -r -t -l --long -z --name-only --name-status --full-name --full-tree"
                     " --abbrev[=] --format="),
    "merge": _verb("-m= --message= -X= --strategy-option= --abort --continue --quit" + _MERGE
                   + _QUIET),
    "merge-base": _verb("-a --all --octopus --independent --is-ancestor --fork-point"),
    "mv": _verb("-f --force -k -n --dry-run -v --verbose"),
    "name-rev": _verb("--tags --refs= --exclude= --all --name-only --no-undefined --always"),
    "pull": _verb("-r --rebase[=] --no-rebase" + _FETCH.replace(" -n ", " ") + _MERGE + _QUIET
                  + _TRANSPORT),
    "push": _verb("--all --mirror --tags --follow-tags --atomic -n --dry-run -f --force"
                  " --force-with-lease[=] --force-if-includes --delete -d --prune -u --set-upstream"
                  " --no-verify --porcelain --thin --no-thin --no-recurse-submodules"
                  + _QUIET + _TRANSPORT),
    "rebase": _verb("--onto= --abort --continue --skip --quit --root --autostash --no-autostash"
                    " --autosquash --no-autosquash --no-verify --keep-empty --empty= --fork-point"
                    " --no-fork-point --rebase-merges[=] --update-refs --signoff --stat -n"
                    " --no-stat -f --force-rebase --no-ff -m --merge --apply" + _QUIET),
    "reflog": _verb(_HISTORY, actions="show exists"),
    "remote": _verb("-v --verbose -t= -m= -f --tags --no-tags -a --auto -d --delete --push --all"
                    " -n --dry-run -p --prune --add",
                    actions="-v --verbose add remove rm rename set-url get-url show prune"
                    " set-branches set-head"),
    "reset": _verb("-q --quiet --soft --mixed --hard --merge --keep -N --intent-to-add"
                   " --no-refresh"),
    "restore": _verb("-s= --source= -W --worktree -S --staged -q --quiet --progress --no-progress"
                     " --ours --theirs -m --merge --ignore-unmerged --overlay --no-overlay"),
    "rev-list": _verb("--count --objects --disk-usage[=] --header --timestamp" + _HISTORY),
    "rev-parse": _verb("--verify -q --quiet --short[=] --abbrev-ref[=] --symbolic"
                       " --symbolic-full-name --all --branches[=] --tags[=] --remotes[=]"
                       " --show-toplevel --show-prefix --show-cdup --git-dir --absolute-git-dir"
                       " --git-common-dir --is-inside-work-tree --is-inside-git-dir"
                       " --is-bare-repository --is-shallow-repository --show-object-format[=]"),
    "revert": _verb(_PICK),
    "rm": _verb("-f --force -n --dry-run -r --cached --ignore-unmatch -q --quiet"),
    "shortlog": _verb("-n --numbered -s --summary -e --email -c --committer --group= --since="
                      " --after= --until= --before= --all --no-merges --merges --author="),
    "show": _verb(_HISTORY + _FORMAT),
    "show-ref": _verb("--heads --tags -d --dereference -s --hash[=] --verify --abbrev[=] -q"
                      " --quiet --head"),
    "stash": _verb("-p -u --include-untracked -a --all -k --keep-index --no-keep-index -m="
                   " --message= --index -q --quiet -S --staged --stat",
                   actions="push pop apply list show drop clear branch"),
    "status": _verb("-uno -unormal -uall"
                    " -s --short -b --branch --show-stash --porcelain[=] --long -v --verbose -u"
                    " --untracked-files[=] --ignored[=] -z --ahead-behind --no-ahead-behind"
                    " --renames --no-renames --find-renames[=] --column[=] --no-column"),
    "submodule": _verb("-q --quiet --cached --recursive", actions="status"),
    "switch": _verb("-c= --create= -C= --force-create= -d --detach --guess --no-guess -f --force"
                    " --discard-changes -m --merge -q --quiet -t --track[=] --no-track --orphan="),
    "symbolic-ref": _verb("-q --quiet --short"),
    "tag": _verb("-a --annotate -m= --message= -d --delete -l --list -n -f --force --sort="
                 " --contains --no-contains --merged --no-merged --points-at= --format= --column[=]"
                 " --color[=] -i --ignore-case --no-sign"),
    "version": _verb("--build-options"),
    "worktree": _verb("--porcelain -v --verbose -z", actions="list"),
}  # fmt: skip
VERBS: Final = tuple(_VERBS)
_NUMBERED: Final = frozenset({"log", "show", "rev-list", "reflog", "tag"})  # `log -5`, `tag -n5`
_NUMBER: Final = re.compile(r"-n?[0-9]{1,9}")
_SEPARATORS: Final = frozenset({"--", "--end-of-options"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_HTTPS: Final = re.compile(rf"https://{_HOST}(?:/[^\s\\]*)?")
_HELPER: Final = re.compile(r"[A-Za-z0-9+.-]*::")
_SSH: Final = re.compile(rf"ssh://(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?{_HOST}/[^\s\\]*")


def check(args: Sequence[str]) -> None:
    """Raise NotAllowed unless `git` followed by `args` asks for something on the list."""
    if any("\0" in argument for argument in args):
        raise NotAllowed("an argument holds NUL")
    if not args or args[0] not in _VERBS:
        what = args[0][:60] if args else ""
        hint = "; options before the verb are not possible" if what.startswith("-") else ""
        raise NotAllowed(f"git {what!r} is not allowed{hint}")
    name, verb = args[0], _VERBS[args[0]]
    rest = args[1:]
    if verb.actions and rest and rest[0] not in verb.actions:
        raise NotAllowed(f"git {name} {rest[0][:60]!r} is not allowed")
    seen = set()
    for argument in rest:
        if not _is_option(argument):
            _check_plain(name, argument)
        elif argument not in _SEPARATORS:
            seen |= set(_options(name, verb, argument))
    if verb.needs and not seen & verb.needs:
        raise NotAllowed(f"git {name} is allowed with one of {', '.join(sorted(verb.needs))}")


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and argument != "-"


def _options(name: str, verb: _Verb, argument: str) -> Iterator[str]:
    """The options that one argument holds: a long one, or a bundle of short ones."""
    if argument.startswith("--"):
        option, equals, _ = argument.partition("=")
        known = verb.valued | verb.optional | (frozenset() if equals else verb.flags)
        if option not in known:
            raise NotAllowed(f"git {name} {option[:60]!r} is not allowed")
        yield option
        return
    if argument in verb.flags or (name in _NUMBERED and _NUMBER.fullmatch(argument)):
        yield argument
        return
    for letter in argument[1:]:
        if f"-{letter}" in verb.valued:
            yield f"-{letter}"
            return
        if f"-{letter}" not in verb.flags:
            raise NotAllowed(
                f"git {name} {argument[:60]!r}: '-{letter}' is not allowed"
                " (a value that begins with '-' is written --option=value, a path ./-x)"
            )
        yield f"-{letter}"


def _check_plain(name: str, argument: str) -> None:
    """A revision or a path inside the workspace, or a remote or a plain https or ssh address."""
    shown = repr(argument[:60])
    if _CONTROL.search(argument) and name not in _MESSAGES:
        raise NotAllowed(f"git {name} {shown}: control characters are not allowed")
    if name in _MESSAGES and not _looks_like_path(argument):
        return
    if argument.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", argument):
        raise NotAllowed(f"git {name} {shown} lies outside the workspace")
    if name in _REMOTE:
        _check_address(name, argument, shown)


# A separate value of -m, --grep and the like is a text; it may say anything that is no path.
_MESSAGES: Final = frozenset(
    {"commit", "merge", "tag", "stash", "log", "grep", "shortlog", "rev-list"}
)
_REMOTE: Final = frozenset({"clone", "fetch", "ls-remote", "pull", "push", "remote", "archive"})


def _looks_like_path(argument: str) -> bool:
    return " " not in argument and "\n" not in argument


def _check_address(name: str, argument: str, shown: str) -> None:
    """Transports other than https and ssh run programs or read files (`ext::`, `fd::`, `file:`)."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)", argument)
    if _HELPER.match(argument) or argument.lower().startswith("file:"):
        raise NotAllowed(f"git {name} {shown}: this kind of address is not allowed")
    if scheme and not (_HTTPS.fullmatch(argument) or _SSH.fullmatch(argument)):
        raise NotAllowed(
            f"git {name} {shown}: an address is https://host/path or ssh://user@host/path, "
            "without a password"
        )
    host, colon, _ = argument.partition(":")
    if colon and not scheme and host.rpartition("@")[2].startswith("-"):
        raise NotAllowed(f"git {name} {shown}: a host cannot begin with '-'")
