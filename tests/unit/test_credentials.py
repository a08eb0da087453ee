"""common/domain/credentials.py: what a project's credential may say."""

from __future__ import annotations

import pytest

from common.domain.credentials import BadCredential, parse


def test_lines_of_name_and_value() -> None:
    """A value is everything behind the first `=`, as it stands there."""
    text = "# team a\n\nANTHROPIC_API_KEY=sk-a=b 'c'\r\nANTHROPIC_BASE_URL=https://x\n"
    assert parse(text) == {
        "ANTHROPIC_API_KEY": "sk-a=b 'c'",
        "ANTHROPIC_BASE_URL": "https://x",
    }
    assert parse("CLAUDE_CODE_OAUTH_TOKEN=t") == {"CLAUDE_CODE_OAUTH_TOKEN": "t"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "sk-c4n4ry",
        "PATH=c4n4ry",
        "export ANTHROPIC_API_KEY=c4n4ry",
        "ANTHROPIC_=c4n4ry",
        "LD_PRELOAD=c4n4ry",
        "ANTHROPIC_API_KEY=c4n4ry\nANTHROPIC_API_KEY=c4n4ry",
        "ANTHROPIC_API_KEY=c4n4ry\0",
    ],
)
def test_anything_else_is_refused_and_not_repeated(text: str) -> None:
    """A key in the wrong place must not end in a log."""
    with pytest.raises(BadCredential) as caught:
        parse(text)
    assert "c4n4ry" not in str(caught.value)
