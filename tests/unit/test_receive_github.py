"""common/services/receive_github.py: deliveries known by their signature."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.domain import identifiers
from common.domain.errors import InvalidRequest, Unauthorized
from common.domain.triggers import Trigger
from common.entrypoints.models.commands import new_command
from common.services.receive import Received
from common.services.receive_github import ReceiveGithub, signature_of
from tests.unit.desk import ORIGIN, SCRIPT, Desk

PUSH: dict[str, Any] = {
    "ref": "refs/heads/main",
    "repository": {"html_url": "https://github.com/acme/site", "url": "x"},
    "head_commit": {"id": "abc"},
    "a": "x",
}
PULL: dict[str, Any] = {
    "action": "opened",
    "number": 7,
    "repository": PUSH["repository"],
    "a": "x",
}


class Hook:
    def __init__(self) -> None:
        self.desk = Desk()
        self.github = ReceiveGithub(self.desk.triggers, self.desk.sealer, self.desk.receive)
        self.trigger, self.secret = self.make()

    def make(self, **fields: Any) -> tuple[Trigger, str]:
        wanted = self.desk.trigger(filter={"prefix": {"type": "com.github."}}, **fields)
        rotated, secret = self.desk.manage.rotate(
            identifiers.show("trg", wanted.id), 60, self.desk.owner, ORIGIN, None
        )
        assert secret is not None
        return rotated.trigger, secret

    def send(
        self,
        payload: Any = None,
        *,
        secret: str | None = None,
        to: str | None = None,
        raw: bytes | None = None,
        **headers: str,
    ) -> Received | None:
        body = raw if raw is not None else json.dumps(PUSH if payload is None else payload).encode()
        plain = {
            "x-github-event": "push",
            "x-github-delivery": "1-2-3",
            "x-hub-signature-256": signature_of((secret or self.secret).encode(), body),
        }
        given = plain | {name.replace("_", "-"): value for name, value in headers.items()}
        to = to or identifiers.show("trg", self.trigger.id)
        return self.github(to, given, body, json.loads, new_command, ORIGIN)


@pytest.fixture
def hook() -> Hook:
    return Hook()


def test_the_signature_is_githubs() -> None:
    """The example of GitHub's documentation ("Validating webhook deliveries")."""
    told = signature_of(b"It's a Secret to Everybody", b"Hello, World!")
    assert told == "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize(
    ("kind", "payload", "attributes"),
    [
        ("push", PUSH, {"type": "com.github.push", "subject": "refs/heads/main"}),
        ("pull_request", PULL, {"type": "com.github.pull_request.opened", "subject": "7"}),
        ("ping2", {"a": "x"}, None),
        ("star", {"action": "created", "a": 1},
         {"type": "com.github.star.created", "source": "https://github.com"}),
        ("star", {"action": "A B", "number": True, "repository": 7, "a": 1},
         {"type": "com.github.star", "source": "https://github.com"}),
    ],
)  # fmt: skip
def test_a_delivery_becomes_an_event(
    hook: Hook, kind: str, payload: dict[str, Any], attributes: dict[str, str] | None
) -> None:
    """Its id is the delivery's, its source the repository's page."""
    if attributes is None:
        with pytest.raises(InvalidRequest):
            hook.send(payload, x_github_event=kind)
        return
    received = hook.send(payload, x_github_event=kind)
    assert received is not None
    assert received.outcome == "submitted"
    source = {"source": "https://github.com/acme/site"}
    expected = {"id": "1-2-3", "specversion": "1.0", "datacontenttype": "application/json"}
    assert received.event.attributes == expected | source | attributes
    assert received.event.data == payload


def test_a_ping_is_answered_and_starts_nothing(hook: Hook) -> None:
    """GitHub sends one when the hook is made."""
    assert hook.send({"zen": "x"}, x_github_event="ping") is None
    assert hook.desk.made == []


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "wrong"},
        {"x_hub_signature_256": ""},
        {"x_hub_signature_256": "sha256="},
        {"x_hub_signature_256": "sha1=757107ea0eb2509fc211221cce984b8a37570b6d"},
        {"x_hub_signature_256": "sha256=" + "0" * 64},
        {"x_hub_signature_256": "sha256=é"},
        {"to": "trg_" + "0" * 32},
        {"to": "nonsense"},
        {"x_github_event": "ping", "secret": "wrong"},
    ],
    ids=repr,
)
def test_a_forged_delivery_changes_nothing(hook: Hook, change: dict[str, Any]) -> None:
    """A wrong signature and no such trigger read the same."""
    with pytest.raises(Unauthorized) as caught:
        hook.send(**change)
    assert caught.value.detail.startswith("X-Hub-Signature-256 does not fit")
    assert (hook.desk.made, hook.desk.dead) == ([], [])


def test_a_changed_body_does_not_fit_its_signature(hook: Hook) -> None:
    """Not by a single byte."""
    signed = signature_of(hook.secret.encode(), b'{"a":"x"}')
    with pytest.raises(Unauthorized):
        hook.send(raw=b'{"a":"y"}', x_hub_signature_256=signed)


def test_the_old_secret_counts_until_its_grace_is_over(hook: Hook) -> None:
    """Then only the new one."""
    name = identifiers.show("trg", hook.trigger.id)
    _, new = hook.desk.manage.rotate(name, 60, hook.desk.owner, ORIGIN, None)
    assert hook.send(PUSH | {"n": 1}).outcome == "submitted"
    assert hook.send(PUSH | {"n": 2}, secret=new).outcome == "submitted"
    from datetime import timedelta

    hook.desk.now += timedelta(seconds=61)
    with pytest.raises(Unauthorized):
        hook.send(PUSH | {"n": 3})


def test_a_redelivery_runs_once_whatever_its_headers_say(hook: Hook) -> None:
    """The headers are not signed: another id or kind over the same body is the same delivery."""
    assert hook.send().outcome == "submitted"
    assert hook.send().outcome == "duplicate"
    assert hook.send(x_github_delivery="other").outcome == "duplicate"
    assert hook.send(x_github_event="release").outcome == "duplicate"
    assert len(hook.desk.made) == 1


def test_it_goes_to_the_trigger_it_names_alone(hook: Hook) -> None:
    """Another one that would fit hears nothing of it."""
    hook.make()
    received = hook.send()
    assert received is not None
    assert [r.match.trigger_id for r in received.results] == [hook.trigger.id]


def test_what_the_trigger_is_not_for_is_no_dead_letter(hook: Hook) -> None:
    """A hook sends all pushes; the filter says which are meant."""
    trigger, secret = hook.make()
    name = identifiers.show("trg", trigger.id)
    only_main = {"filter": {"exact": {"subject": "refs/heads/main"}}}
    star = frozenset({"*"})
    hook.desk.manage.update(name, star, only_main, {}, hook.desk.owner, ORIGIN)
    received = hook.send(PUSH | {"ref": "refs/heads/x"}, to=name, secret=secret)
    assert received is not None
    assert (received.outcome, hook.desk.dead) == ("no_trigger", [])


@pytest.mark.parametrize("change", [{"enabled": False}, {"accept": ["http"]}])
def test_a_trigger_that_is_off_takes_nothing(hook: Hook, change: dict[str, Any]) -> None:
    """Whoever signed rightly is told so."""
    name = identifiers.show("trg", hook.trigger.id)
    hook.desk.manage.update(name, frozenset({"*"}), change, {}, hook.desk.owner, ORIGIN)
    received = hook.send()
    assert received is not None
    assert received.outcome == "trigger_off"


def test_a_refusal_can_be_replayed(hook: Hook) -> None:
    """The letter knows the trigger it was sent to."""
    hook.send({**PUSH, "a": None})
    [letter] = hook.desk.dead
    assert (letter.channel, letter.trigger_id, letter.reason) == (
        "github", hook.trigger.id, "refused",
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers", [{"x_github_event": ""}, {"x_github_delivery": ""}, {"x_github_delivery": "a\nb"}]
)
def test_a_signed_delivery_without_its_headers_is_a_bad_request(
    hook: Hook, headers: dict[str, Any]
) -> None:
    """After the signature, so that nobody else learns it."""
    with pytest.raises(InvalidRequest):
        hook.send(**headers)


def test_a_payload_is_an_object(hook: Hook) -> None:
    """Anything else is a bad request."""
    with pytest.raises(InvalidRequest):
        hook.send([1])


def test_the_command_has_the_values_of_the_payload(hook: Hook) -> None:
    """As of any other event."""
    command = SCRIPT | {"script": "echo {{ data.head_commit.id }} {{ subject }}"}
    name = identifiers.show("trg", hook.trigger.id)
    changes = {"command": command}
    hook.desk.manage.update(name, frozenset({"*"}), changes, {}, hook.desk.owner, ORIGIN)
    hook.send()
    assert hook.desk.made[0].spec["script"] == "echo 'abc' 'refs/heads/main'"
