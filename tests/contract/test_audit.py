"""What every AuditLog does: remember who did what, find it again, and seal it."""

from __future__ import annotations

from uuid import UUID

from common.domain.audit import AuditFilter, Link, NewEntry
from common.domain.identifiers import KEY, show
from tests.contract.conftest import CANCELLED, ORIGIN, World, now


def actions(world: World, **wanted: object) -> list[str]:
    return [e.action for e in world.audit.list(AuditFilter(**wanted))]  # type: ignore[arg-type]


def refusal(**fields: object) -> NewEntry:
    plain = {"key_id": None, "action": "request.refused", "target": "GET /x", "project": None}
    more = {"detail": {"status": 403}, "request_id": "req_9", "client_ip": None, "peer_ip": "::1"}
    return NewEntry(now(), **plain | more | fields)  # type: ignore[arg-type]


def test_every_change_leaves_an_entry_with_who_and_from_where(world: World) -> None:
    """Newest first: what was done, to what, by which key, from which two addresses."""
    world.project()
    _, caller = world.key()
    command = world.submit(caller).command
    world.commands.reprioritise(command.id, 1, ORIGIN, caller)
    world.commands.cancel(command.id, "graceful", "user", CANCELLED, ORIGIN, caller)
    world.keys.update(caller.key_id, {"name": "other"}, caller, ORIGIN)
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    assert actions(world) == [
        "key.revoked",
        "key.updated",
        "command.cancel_requested",
        "command.reprioritised",
        "command.created",
        "key.created",
    ]
    newest = world.audit.list(AuditFilter(limit=1))[0]
    assert (newest.key_id, newest.target) == (caller.key_id, show(KEY, caller.key_id))
    assert (newest.request_id, newest.client_ip, newest.peer_ip) == (
        ORIGIN.request_id,
        ORIGIN.client_ip,
        ORIGIN.peer_ip,
    )


def test_what_changes_nothing_leaves_nothing(world: World) -> None:
    """A second revocation and a change of an unknown key are not entries."""
    _, caller = world.key()
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    before = len(actions(world))
    world.keys.revoke(caller.key_id, CANCELLED, caller, ORIGIN)
    world.keys.update(UUID(int=1), {"name": "x"}, caller, ORIGIN)
    assert len(actions(world)) == before


def test_entries_are_found_by_every_filter_and_by_page(world: World) -> None:
    """Filters narrow together; `before` goes on where a page ended."""
    world.project("one")
    world.project("two")
    _, caller = world.key()
    for name in ("one", "one", "two"):
        world.submit(caller, name)
    entries = world.audit.list(AuditFilter())
    assert actions(world, projects=frozenset({"one"})) == ["command.created"] * 2
    assert actions(world, projects=frozenset()) == []
    assert actions(world, action="key.created", key_id=caller.key_id) == ["key.created"]
    assert actions(world, target=entries[0].target) == ["command.created"]
    assert actions(world, since=now()) == actions(world, until=entries[-1].at) == []
    first = world.audit.list(AuditFilter(limit=2))
    rest = world.audit.list(AuditFilter(before=first[-1].id))
    assert [*first, *rest] == entries


def test_refusals_are_entries_too(world: World) -> None:
    """As given, whatever bytes strangers sent."""
    world.audit.record([refusal(), refusal(target="GET /\ud800", project="demo")])
    entries = world.audit.list(AuditFilter(action="request.refused"))
    assert [e.project for e in entries] == ["demo", None]
    assert entries[1].detail == {"status": 403}


def test_a_chain_is_sealed_in_pieces_and_verified_in_pieces(world: World) -> None:
    """Every entry is sealed once; the end of the chain is the same however it is walked."""
    assert world.audit.seal(10) == (0, Link(0, b""))
    world.audit.record([refusal() for _ in range(5)])
    assert [world.audit.seal(2)[0] for _ in range(4)] == [2, 2, 1, 0]
    _, head = world.audit.seal(2)
    assert head.seq == 5
    whole = world.audit.verify(None, 10)
    assert (whole.count, whole.link, whole.broken) == (5, head, None)
    part = world.audit.verify(None, 3)
    assert (part.count, part.link.seq) == (3, 3)
    assert world.audit.verify(part.link, 10).link == head
