"""common/domain/git_arguments.py: what may follow `git`, and that nothing else does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain import git_arguments
from common.domain.git_arguments import NotAllowed, check

EVERYDAY = [
    "status",
    "status -sb --porcelain=v2 -uno",
    "log --oneline -5",
    "log -n5 --since=2.weeks HEAD..main -- src/a.py",
    "log --author x -S needle --stat",
    "show HEAD~1:README.md",
    "show @{-1} --format=%H",
    "diff --cached -U5 HEAD -- a b",
    "diff main...topic",
    "blame -L1,5 README.md",
    "add -A",
    "add .",
    "commit -am message",
    "commit -m one -m two --author=A",
    "checkout -b topic origin/main",
    "checkout -",
    "checkout -- a.txt",
    "switch -c topic",
    "restore --staged a.txt",
    "reset --hard HEAD~1",
    "stash",
    "stash push -u -m wip",
    "rebase --onto main topic",
    "cherry-pick -x abc123",
    "merge --no-ff topic",
    "fetch --prune origin",
    "fetch --depth 5 origin main",
    "pull --rebase origin main",
    "push -u origin HEAD:refs/heads/topic",
    "push --force-with-lease=topic:abc origin topic",
    "clone --depth=1 https://github.com/acme/app.git app",
    "clone ssh://git@github.com:22/acme/app.git",
    "clone git@github.com:acme/app.git",
    "remote -v",
    "remote add up https://[2001:db8::1]:8443/x",
    "remote set-url origin https://example.com/a.git",
    "ls-remote --heads origin",
    "branch -vv --sort=-committerdate",
    "branch -D topic",
    "tag -a v1 -m release",
    "tag -n5",
    "rev-parse --abbrev-ref HEAD",
    "config --get user.name",
    "grep -n needle -- src",
    "log --end-of-options main",
    "bisect start",
    "worktree list",
    "submodule status",
    "archive --format=tar HEAD",
]


@pytest.mark.parametrize("line", EVERYDAY)
def test_everyday_git_is_allowed(line: str) -> None:
    """What people do with a repository every day passes."""
    check(line.split())


@pytest.mark.parametrize(
    "args",
    [
        ["commit", "-m", "a message: with /paths and .. in it\n\nand a body"],
        ["commit", "--message=- begins with a dash"],
        ["commit", "-m- begins with a dash"],
        ["log", "--grep=^fix"],
    ],
)
def test_a_message_may_say_anything(args: list[str]) -> None:
    """Text for people is no path and no option."""
    check(args)


NEVER = [
    "config user.name x",
    "config core.sshCommand x",
    "remote update-ref",
    "stash create",
    "worktree add ../x",
    "notes add",
    "help",
    "commit -F /etc/passwd",
    "commit -e",
    "log --onelin",
    "log --ext-diff",
    "log --textconv",
    "log --show-signature",
    "merge -s evil x",
    "checkout -- -x",
    "diff /etc/passwd x",
    "diff ../../etc/passwd x",
    "add ~/x",
    "clone http://example.com/a",
    "clone https://user:secret@example.com/a",
    "clone https://user@example.com/a",
    "clone ssh://user:secret@example.com/a",
    "clone ssh://git@-oProxyCommand=x/a",
    "clone git@-oProxyCommand=x:a",
    "clone git://example.com/a",
    "clone https://example.com/a /tmp/x",
    "fetch --upload-pack x origin",
    "status --porcelain=v1 --output=x",
    "status --short=x",
]


@pytest.mark.parametrize("line", NEVER)
def test_what_is_not_on_the_list_is_refused(line: str) -> None:
    """Verbs, options, values for what takes none, paths outside, and other kinds of address."""
    with pytest.raises(NotAllowed, match="git"):
        check(line.split())


def test_no_verb_and_options_before_it_are_refused() -> None:
    """Whatever stands before the verb configures git itself."""
    for args in ([], [""], ["-c", "a=b", "status"], ["--", "status"], ["sta"]):
        with pytest.raises(NotAllowed):
            check(args)


DANGEROUS = (
    "--upload-pack", "--receive-pack", "--exec", "--output", "--config", "--template",
    "--bundle-uri", "--open-files-in-pager", "--remote", "--extcmd", "--no-index", "--git-dir",
    "--work-tree", "--config-env", "--exec-path", "--server-option", "--ext-diff", "--textconv",
    "--strategy", "--interactive", "--edit", "--file", "--gpg-sign", "--separate-git-dir",
)  # fmt: skip
VERBS = sorted(git_arguments._VERBS)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", DANGEROUS)
def test_no_verb_takes_what_runs_programs_or_writes_files(verb: str, option: str) -> None:
    """Neither whole nor cut short, neither with a value nor alone."""
    known = git_arguments._VERBS[verb]
    own = known.flags | known.valued | known.optional
    for length in range(3, len(option) + 1):
        cut = option[:length]
        if cut in own:  # such as `--edit` cut to nothing else: a full name of its own
            assert cut not in DANGEROUS or (verb, cut) == ("rev-parse", "--git-dir")
            continue
        for argument in (cut, f"{cut}=x"):
            with pytest.raises(NotAllowed):
                check([verb, argument, "x"])


WORDS = st.one_of(
    st.sampled_from(
        [*DANGEROUS, "-u", "-x", "-O", "-c", "-C", "-o", "-e", "--", "-", "--end-of-options"]
    ),
    st.from_regex(r"-[a-zA-Z]{1,4}", fullmatch=True),
    st.from_regex(r"--[a-z-]{1,12}(=[a-z/!]{0,8})?", fullmatch=True),
    st.sampled_from([o for v in git_arguments._VERBS.values() for o in sorted(v.flags | v.valued)]),
    st.text(max_size=12),
)


@given(st.sampled_from(VERBS), st.lists(WORDS, max_size=6))
def test_in_whatever_place_an_option_is_an_allowed_one(verb: str, words: list[str]) -> None:
    """However git counts values, what it may take for an option is on the verb's list."""
    try:
        check([verb, *words])
    except NotAllowed:
        return
    known = git_arguments._VERBS[verb]
    own = known.flags | known.valued | known.optional
    for word in words:
        if not word.startswith("-") or word in ("-", "--", "--end-of-options"):
            assert not word.startswith(("/", "~")) or " " in word or "\n" in word
        elif word.startswith("--"):
            assert word.partition("=")[0] in own
        elif word not in own and not re.fullmatch(r"-n?[0-9]+", word):
            letters = [f"-{letter}" for letter in word[1:]]
            valued = [letter for letter in letters if letter in known.valued]
            until = letters.index(valued[0]) if valued else len(letters)
            assert set(letters[:until]) <= known.flags


@given(st.text(alphabet="abc:/@.-_1[]?#%\\ \t!$`'\"", max_size=30))
def test_an_address_is_https_or_ssh_without_a_secret(tail: str) -> None:
    """Nothing else that has a scheme passes, and no user name with a password."""
    for scheme in ("https", "ssh", "file", "ext", "git", "http"):
        address = f"{scheme}://{tail}"
        try:
            check(["clone", address])
        except NotAllowed:
            continue
        assert scheme in ("https", "ssh")
        authority = tail.partition("/")[0]
        assert not authority.rpartition("@")[2].startswith("-")
        assert ":" not in authority.rpartition("@")[0]
        assert scheme == "ssh" or "@" not in authority
