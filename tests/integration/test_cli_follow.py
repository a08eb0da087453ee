"""Following a command over connections that are cut, silent, refused or rotated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rdev.errors import NotAllowed, OutcomeUnknown, ServerFault
from rdev.follow import Followed, Follower
from rdev.http import Api
from rdev.retry import Clock
from rdev.settings import Server
from rdev.sinks import Bytes
from rdev.stream import Patience
from tests.integration.cli_server import (
    COMMAND_ID,
    KEY,
    Reply,
    ScriptedServer,
    Seen,
    after,
    answer,
    block,
    command,
    ended,
    events,
    problem,
    replay,
    serving,
    sse,
)

STREAM = f"/v1/streams/commands/{COMMAND_ID}"
COMMAND = f"/v1/commands/{COMMAND_ID}"


class Listener:
    """A console that remembers."""

    err_is_terminal = True
    out_is_terminal = False

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {"stdout": b"", "stderr": b"", "merged": b""}
        self.said: list[str] = []
        self.warned: list[str] = []

    def remote(self, stream: str, data: bytes) -> None:
        self.bytes[stream] += data

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


class Pauses:
    """A clock on which pauses take no time and are remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._now = 0.0
        self.clock = Clock(lambda: self._now, self._pause, lambda: 0.5)

    def _pause(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._now += seconds


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving() as scripted:
        yield scripted


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


def follow(
    server: ScriptedServer, listener: Listener, pauses: Pauses, idle_s: float = 20.0
) -> Followed:
    known = Server(server.url, "test", KEY, "test")
    with Api(known, clock=pauses.clock) as api:
        console: Any = listener
        follower = Follower(
            api,
            COMMAND_ID,
            console,
            Bytes(console),
            clock=pauses.clock,
            patience=Patience(idle_s=idle_s, bound_s=60),
        )
        return follower.run()


def test_follows_from_the_first_event_to_the_end(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Output is written byte for byte and the end decides."""
    blocks = [
        block(1, "state", state="running"),
        block(2, "output", stream="stdout", offset=0, text="ü\n"),
        block(3, "output", stream="stderr", offset=0, b64="/wA="),
        block(4, "something_new", x=1),
        block(5, "end", **ended("failed", "exit_nonzero", 3)),
    ]
    server.on("GET", STREAM, sse(b": hello\nretry: 100\n\n" + b"".join(blocks)))
    followed = follow(server, listener, pauses)
    assert followed.exit_code == 3
    assert listener.bytes["stdout"] == "ü\n".encode()
    assert listener.bytes["stderr"] == b"\xff\x00"
    assert listener.said == []


def test_loses_nothing_wherever_the_connection_is_cut(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Cut at every single byte of the stream, it resumes behind the last whole event."""
    blocks = events("one\n", "two\n")
    wire = b"".join(blocks)
    for at in range(len(wire)):
        server.on("GET", STREAM, sse(wire[:at], then="cut"), replay(blocks))
        heard = Listener()
        followed = follow(server, heard, pauses)
        assert (followed.exit_code, heard.bytes["stdout"]) == (0, b"one\ntwo\n"), at
        whole = wire[:at].count(b"\n\n")
        assert server.seen[-1].headers.get("last-event-id", "0") == str(whole), at
    del listener


def test_resumes_through_many_cuts(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """One event a connection still makes the whole output, once and in order."""
    lines = [f"{n}\n" for n in range(20)]
    blocks = events(*lines)

    def one(seen: Seen) -> Reply:
        rest = after(blocks, seen)
        return sse(rest[: rest.index(b"\n\n") + 2], then="cut")

    server.on("GET", STREAM, one)
    assert follow(server, listener, pauses).exit_code == 0
    assert listener.bytes["stdout"] == "".join(lines).encode()
    assert "resumed, 0 lost" in listener.said


def test_says_that_it_reconnects_and_that_nothing_was_lost(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """The person at the terminal sees the outage and its harmless end."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(b"".join(blocks[:2]), then="cut"), replay(blocks))
    follow(server, listener, pauses)
    assert listener.said[0].startswith("reconnecting…")
    assert listener.said[1:] == ["resumed, 0 lost"]


def test_drops_repeated_events(server: ScriptedServer, listener: Listener, pauses: Pauses) -> None:
    """A server that sends an event again does not make it appear twice."""
    blocks = events("one\n", "two\n")
    server.on("GET", STREAM, sse(b"".join([*blocks[:3], blocks[2], *blocks[1:]])))
    assert follow(server, listener, pauses).exit_code == 0
    assert listener.bytes["stdout"] == b"one\ntwo\n"


def test_asks_again_for_what_is_missing(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """A hole in the numbering is filled by another connection."""
    blocks = events("one\n", "two\n")
    server.on("GET", STREAM, sse(b"".join([blocks[0], blocks[1], blocks[3]])), replay(blocks))
    assert follow(server, listener, pauses).exit_code == 0
    assert listener.bytes["stdout"] == b"one\ntwo\n"
    assert server.seen[-1].headers["last-event-id"] == "2"


def test_a_hole_that_stays_is_no_success(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Output that nobody can give back is said aloud, and ends with 75 instead of 0."""
    blocks = events("one\n", "two\n")

    def without_the_third(seen: Seen) -> Reply:
        first = int(seen.headers.get("last-event-id") or 0)
        return sse(b"".join(b for i, b in enumerate(blocks) if i >= first and i != 2))

    server.on("GET", STREAM, without_the_third)
    followed = follow(server, listener, pauses)
    assert (followed.exit_code, followed.lost_events) == (75, 1)
    assert "events 3 to 3" in listener.warned[0]


def test_a_gap_is_said_and_is_no_success(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Events that have expired are a declared gap, not an empty success."""
    gap = b'id: 8\nevent: gap\ndata: {"from":1,"to":8}\n\n'
    server.on("GET", STREAM, sse(gap + block(9, "end", **ended())))
    followed = follow(server, listener, pauses)
    assert (followed.exit_code, followed.lost_events) == (75, 8)
    assert "events 1 to 8" in listener.warned[0]


def test_a_gap_hides_no_failure(server: ScriptedServer, listener: Listener, pauses: Pauses) -> None:
    """A failed command keeps its own exit code, gap or not."""
    gap = b'id: 8\nevent: gap\ndata: {"from":1,"to":8}\n\n'
    end = block(9, "end", **ended("failed", "exit_nonzero", 3))
    server.on("GET", STREAM, sse(gap + end))
    assert follow(server, listener, pauses).exit_code == 3


def test_notices_a_connection_that_is_dead(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Silence beyond the heartbeats is an outage like any other."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(b"".join(blocks[:2]), then="silence"), replay(blocks))
    assert follow(server, listener, pauses, idle_s=0.2).exit_code == 0
    assert "silent" in listener.said[0]
    assert server.seen[-1].headers["last-event-id"] == "2"


def test_a_rotation_is_no_outage(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """The server closes old streams on purpose; nobody needs to read about it."""
    blocks = events("one\n")
    farewell = b"retry: 50\n\n: this stream is old; reconnect\n\n"
    server.on("GET", STREAM, sse(b"".join(blocks[:2]) + farewell), replay(blocks))
    assert follow(server, listener, pauses).exit_code == 0
    assert listener.said == []
    assert pauses.taken[0] >= 0.05


def test_a_rotation_of_a_quiet_stream_is_no_outage(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Heartbeats alone show that the stream lived."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(b": heartbeat\n\n: heartbeat\n\n: old\n\n"), replay(blocks))
    assert follow(server, listener, pauses).exit_code == 0
    assert listener.said == []


def test_waits_out_refusals_that_look_like_streams(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """200, retry, a comment and a close is a refusal: wait as asked, then come back."""
    blocks = events("one\n")
    refusal = sse(b"retry: 2000\n\n: not_ready: the database is down\n\n")
    server.on("GET", STREAM, refusal, refusal, replay(blocks))
    assert follow(server, listener, pauses).exit_code == 0
    assert "the database is down" in listener.said[0]
    assert all(pause >= 2 for pause in pauses.taken[:2])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_waits_out_overload(
    server: ScriptedServer, listener: Listener, pauses: Pauses, status: int
) -> None:
    """A proxy's or the server's 5xx and 429 are waited out, as long as Retry-After says."""
    blocks = events("one\n")
    busy = problem(status, "not_ready", **{"retry-after": "3"})
    server.on("GET", STREAM, busy, replay(blocks))
    assert follow(server, listener, pauses).exit_code == 0
    assert pauses.taken[0] >= 3


def test_gives_up_at_the_bound_and_says_what_to_do(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """An outage that does not end leaves the outcome unknown, never a success."""
    server.on("GET", STREAM, sse(b"", then="cut"))
    with pytest.raises(OutcomeUnknown) as caught:
        follow(server, listener, pauses)
    assert f"rdev logs -f {COMMAND_ID}" in str(caught.value.hint)
    assert 30 < sum(pauses.taken) <= 60


def test_204_asks_the_command_itself(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """When the end was cut off, the resource says how it ended."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(b"".join(blocks[:-1]), then="cut"), Reply(204))
    server.on("GET", COMMAND, answer(ended("failed", "exit_nonzero", 9)))
    assert follow(server, listener, pauses).exit_code == 9


def test_204_for_a_running_command_is_unknown(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """A stream that is over although the command is not decides nothing."""
    server.on("GET", STREAM, Reply(204))
    server.on("GET", COMMAND, answer(command("running")))
    with pytest.raises(OutcomeUnknown):
        follow(server, listener, pauses)


def test_a_revoked_key_ends_it(server: ScriptedServer, listener: Listener, pauses: Pauses) -> None:
    """401 in the middle is final: no attempt will mend it."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(blocks[0], then="cut"), problem(401, "unauthorized"))
    with pytest.raises(NotAllowed):
        follow(server, listener, pauses)
    assert len(server.of("GET", STREAM)) == 2


def test_a_command_that_vanished_is_unknown(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """404 for what was just followed is no mistake of the person."""
    blocks = events("one\n")
    server.on("GET", STREAM, sse(blocks[0], then="cut"), problem(404, "not_found"))
    with pytest.raises(OutcomeUnknown):
        follow(server, listener, pauses)


@pytest.mark.parametrize(
    "wire",
    [
        b"id: x\nevent: state\ndata: {}\n\n",
        b"event: state\ndata: {}\n\n",
        b"id: 1\nevent: state\ndata: no json\n\n",
        b"id: 1\nevent: state\ndata: []\n\n",
        block(1, "output", stream="stdout"),
        block(1, "end", nothing="here"),
    ],
)
def test_another_protocol_is_a_server_fault(
    server: ScriptedServer, listener: Listener, pauses: Pauses, wire: bytes
) -> None:
    """What breaks the contract is said, not guessed around."""
    server.on("GET", STREAM, sse(wire))
    with pytest.raises(ServerFault):
        follow(server, listener, pauses)


def test_a_web_page_is_a_server_fault(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """A proxy's login page is not an empty stream."""
    server.on("GET", STREAM, Reply(200, {"content-type": "text/html"}, b"<html>"))
    with pytest.raises(ServerFault, match="rdev server"):
        follow(server, listener, pauses)


def test_says_what_was_cut_at_the_limit(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Truncated output is incomplete, so it is said even in a pipe."""
    cut = block(1, "truncated", stream="stdout", bytes=1024)
    server.on("GET", STREAM, sse(cut + block(2, "end", **ended())))
    follow(server, listener, pauses)
    assert "output limit" in listener.warned[0]


def test_sends_the_key_in_a_header_only(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """The key is in no URL."""
    server.on("GET", STREAM, sse(b"".join(events())))
    follow(server, listener, pauses)
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.seen[0].query == {}


def test_says_what_the_server_warns_of_and_what_claude_waits_for(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Warnings and open approvals reach the person, without steering the terminal."""
    wire = block(1, "warning", message="the disk is\x1b[2J nearly full")
    shown = {"command": "rm\x1b[2J -r /", "n": 1}
    wire += block(2, "approval", state="pending", tool_name="Bash", input=shown)
    wire += block(3, "approval", state="allowed", tool_name="Bash") + block(4, "end", **ended())
    server.on("GET", STREAM, sse(wire))
    follow(server, listener, pauses)
    assert listener.said == ["warning: the disk is[2J nearly full"]
    answer_with = f"answer with `rdev approvals allow {COMMAND_ID}`, or `deny`"
    assert listener.warned == [f"claude asks to use Bash: rm[2J -r / 1; {answer_with}"]


def test_an_event_without_end_is_a_server_fault(
    server: ScriptedServer,
    listener: Listener,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line that never ends fills no memory."""
    monkeypatch.setattr("rdev.sse.Parser.__init__.__kwdefaults__", {"max_event_bytes": 1000})
    server.on("GET", STREAM, sse(b"data: " + b"x" * 10_000))
    with pytest.raises(ServerFault, match="longer than 1000 bytes"):
        follow(server, listener, pauses)


def test_an_end_that_is_none_asks_the_command(
    server: ScriptedServer, listener: Listener, pauses: Pauses
) -> None:
    """Only a terminal state is an outcome; anything else is looked up."""
    server.on("GET", STREAM, sse(block(1, "end", **command("running"))))
    server.on("GET", COMMAND, answer(ended("failed", "exit_nonzero", 5)))
    assert follow(server, listener, pauses).exit_code == 5
