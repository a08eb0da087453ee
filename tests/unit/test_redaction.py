"""common/domain/redaction.py: row 70 of the attack table, for what rdev itself writes."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.domain import keys
from common.domain.redaction import MARK, SHORTEST, Redactor

# Without the mark's own characters: no secret then lies over a border that redacting has made.
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="[]")
SECRETS = st.text(LETTERS, min_size=SHORTEST, max_size=40).filter(lambda s: s not in MARK)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def in_go(text: str) -> str:
    """Go's encoding/json writes these three as escapes."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    return plain.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


@pytest.mark.row(70)
@given(SECRETS, TEXTS, TEXTS)
def test_a_secret_is_not_in_the_text_any_more(secret: str, before: str, after: str) -> None:
    """Wherever it stands, and as JSON of either kind, in a URL, and as it is."""
    redact = Redactor([secret])
    for form in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        in_go(secret),
        quote(secret, safe=""),
    ):
        clean = redact(before + form + after)
        assert secret not in clean
        assert form not in clean or form in MARK


@pytest.mark.row(70)
@given(SECRETS, st.binary(max_size=9), st.binary(max_size=9))
def test_a_secret_within_base64_is_not_in_it_any_more(
    secret: str, before: bytes, after: bytes
) -> None:
    """Whatever bytes stand before it: what is left of its text decodes to nothing of it."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + after).decode()
        clean = Redactor([secret])(text)
        assert MARK in clean
        longest = max(clean.split(MARK), key=len)
        assert len(longest) <= len(encode(before + after)) + 4


@given(TEXTS, SECRETS)
def test_other_text_is_left_alone(text: str, secret: str) -> None:
    """What holds neither a secret nor the shape of one comes back as it is; twice is like once."""
    redact = Redactor([secret])
    clean = redact(text)
    assert redact(clean) == clean
    assume(not any(form in text for form in (secret, json.dumps(secret)[1:-1], quote(secret))))
    assume(clean == Redactor()(text))
    assert Redactor([])(text) == clean


@given(st.text(LETTERS, max_size=SHORTEST - 1), TEXTS)
def test_what_is_too_short_is_no_secret(short: str, text: str) -> None:
    """Else a password of one letter would black out the log."""
    assert Redactor([short])(text) == Redactor()(text)


SHAPES = {
    "rdev": keys.new_key(),
    "anthropic": "sk-ant-" + "api03-" + "a" * 90,
    "github": "gh" + "p_" + "a" * 36,
    "aws": "AK" + "IA" + "A" * 16,
    "gitlab": "gl" + "pat-" + "a" * 20,
    "webhook": "whsec" + "_" + "a" * 32,
    "jwt": "ey" + "J" + "a" * 20 + ".ey" + "J" + "b" * 20 + "." + "c" * 20,
    "pem": "-----BEGIN " + "PRIVATE KEY-----\\nMIIE" + "a" * 30 + "\\n-----END PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_has_the_shape_of_a_key_is_taken_for_one(name: str) -> None:
    """Also one that no process knows of, in the middle of a line."""
    clean = Redactor()(f'{{"msg":"x {SHAPES[name]} y"}}')
    assert clean == f'{{"msg":"x {MARK} y"}}'


def test_a_password_in_an_address_goes_and_the_address_stays() -> None:
    """So that the log still says which server could not be reached."""
    said = Redactor()("cannot reach postgresql://app:hunter2@db.example:5432/rdev")
    assert said == f"cannot reach postgresql://{MARK}@db.example:5432/rdev"
    assert Redactor()("http://127.0.0.1:8080/a:b@c") == "http://127.0.0.1:8080/a:b@c"
