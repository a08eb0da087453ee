"""common/services/ingest.py: from bytes to batches of events, with many readers and one writer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.domain.agent import AgentLines
from common.domain.events import MAX_EVENT_BYTES, OUTPUT, NewEvent
from common.services import ingest as module
from common.services.ingest import Cutter, Ingest


@pytest.fixture(autouse=True)
def no_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches need no time here."""
    monkeypatch.setattr(module, "FLUSH_S", 0.0)


def both() -> Ingest:
    return Ingest({"stdout": Cutter("stdout", 0), "stderr": Cutter("stderr", 0)})


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def everything(ingest: Ingest) -> list[NewEvent]:
    events: list[NewEvent] = []
    while (batch := ingest.batch()) is not None:
        assert batch, "an empty batch is a transaction for nothing"
        events += batch
    return events


def of(events: list[NewEvent], stream: str) -> bytes:
    """A stream's bytes, after checking that they are numbered without a gap."""
    data = b""
    for event in events:
        if event.stream == stream:
            assert event.offset == len(data)
            assert len(event.data) <= MAX_EVENT_BYTES
            data += event.data
    return data


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_a_cutter_keeps_bytes_and_offsets(raw: bytes, cuts: list[int]) -> None:
    """Whatever the chunks, events are the bytes in order from the stored offset on."""
    cutter, borders = Cutter("merged", 10), [0, *sorted(c % (len(raw) + 1) for c in cuts), len(raw)]
    events = [
        e for a, b in itertools.pairwise(borders) for e in cutter.feed(raw[a:b])
    ] + cutter.end()
    offset = 10
    for event in events:
        assert (event.type, event.stream, event.offset) == (OUTPUT, "merged", offset)
        offset += len(event.data)
    assert b"".join(e.data for e in events) == raw


@given(st.text(max_size=60), st.lists(st.integers(0, 240), max_size=8))
def test_a_cutter_never_splits_a_character(text: str, cuts: list[int]) -> None:
    """Text that arrives in any chunks leaves as text."""
    raw, cutter = text.encode(), Cutter("merged", 0)
    borders = [0, *sorted(c % (len(raw) + 1) for c in cuts), len(raw)]
    for a, b in itertools.pairwise(borders):
        for event in cutter.feed(raw[a:b]):
            event.data.decode()
    assert cutter.end() == []


def test_what_is_put_comes_out_and_then_the_end() -> None:
    """All bytes, then None."""
    ingest = both()
    ingest.put("stdout", b"one")
    ingest.put("stderr", b"two")
    ingest.put("stdout", b"three")
    ingest.close("stdout")
    ingest.close("stderr")
    events = everything(ingest)
    assert [(e.stream, e.data) for e in events] == [
        ("stdout", b"one"),
        ("stderr", b"two"),
        ("stdout", b"three"),
    ]
    assert ingest.batch() is None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=12), st.lists(st.binary(max_size=300), max_size=12)
)
def test_two_readers_and_a_writer_lose_nothing(out: list[bytes], err: list[bytes]) -> None:
    """However the threads interleave, each stream arrives whole and in order."""
    ingest = both()

    def read(stream: str, chunks: list[bytes]) -> None:
        for chunk in chunks:
            ingest.put(stream, chunk)
        ingest.close(stream)

    readers = [in_thread(lambda: read("stdout", out)), in_thread(lambda: read("stderr", err))]
    events = everything(ingest)
    for reader in readers:
        reader.join()
    assert of(events, "stdout") == b"".join(out)
    assert of(events, "stderr") == b"".join(err)


def test_a_full_buffer_makes_readers_wait_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The buffer never holds more than its limit and one chunk; what waits comes later."""
    monkeypatch.setattr(module, "BUFFER_BYTES", 1000)
    ingest = Ingest({"merged": Cutter("merged", 0)})
    raw = bytes(range(256)) * 40

    def read() -> None:
        for at in range(0, len(raw), 100):
            ingest.put("merged", raw[at : at + 100])
            assert ingest._bytes <= 1100
        ingest.close("merged")

    reader = in_thread(read)
    events = everything(ingest)
    reader.join()
    assert of(events, "merged") == raw


def test_half_a_line_is_no_batch() -> None:
    """Bytes that wait for the rest of their line wake no writer for nothing."""
    ingest = Ingest({"stdout": AgentLines(0)})
    ingest.put("stdout", b'{"type":')
    got: list[list[NewEvent] | None] = []
    writer = in_thread(lambda: got.append(ingest.batch()))
    ingest.put("stdout", b'"x"}\n')
    writer.join()
    assert got[0] is not None
    assert [e.data for e in got[0]] == [b'{"type":"x"}\n']


def test_an_unfinished_character_comes_when_the_stream_ends() -> None:
    """Held bytes are never lost."""
    ingest = Ingest({"merged": Cutter("merged", 0)})
    ingest.put("merged", b"a\xe2\x82")
    ingest.close("merged")
    assert of(everything(ingest), "merged") == b"a\xe2\x82"


def test_one_stream_ends_before_the_other() -> None:
    """The batch goes on until all have ended."""
    ingest = both()
    ingest.put("stdout", b"a")
    ingest.close("stdout")
    assert ingest.batch() is not None
    ingest.put("stderr", b"b")
    assert ingest.batch() is not None
    ingest.close("stderr")
    assert ingest.batch() is None


@pytest.mark.parametrize("put", [b"", b"data"])
def test_abort_wakes_the_writer(put: bytes) -> None:
    """A stopping follower writes nothing more, whatever is there."""
    ingest = both()
    if put:
        ingest.put("stdout", put)
        assert ingest.batch() is not None
    got: list[object] = []
    writer = in_thread(lambda: got.append(ingest.batch()))
    ingest.abort()
    writer.join()
    assert got == [None]
    assert ingest.aborted
    assert ingest.batch() is None


def test_abort_wakes_a_waiting_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader at a full buffer does not wait for a writer that is gone."""
    monkeypatch.setattr(module, "BUFFER_BYTES", 1)
    ingest = both()
    ingest.put("stdout", b"xx")
    reader = in_thread(lambda: ingest.put("stdout", b"yy"))
    ingest.abort()
    reader.join()


def test_small_pieces_gather_after_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bytes leave at once; what comes right after leaves together."""
    monkeypatch.setattr(module, "FLUSH_S", 3600.0)
    ingest = Ingest({"merged": Cutter("merged", 0)})
    ingest._last_batch = -4000.0
    ingest.put("merged", b"first")
    assert ingest.batch() is not None
    got: list[list[NewEvent] | None] = []
    writer = in_thread(lambda: got.append(ingest.batch()))
    for _ in range(3):
        ingest.put("merged", b"x")
    ingest.close("merged")
    writer.join()
    assert got[0] is not None
    assert b"".join(e.data for e in got[0]) == b"xxx"


def test_much_data_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is large enough leaves before its time."""
    monkeypatch.setattr(module, "FLUSH_S", 3600.0)
    ingest = Ingest({"merged": Cutter("merged", 0)})
    ingest._last_batch = module.time.monotonic()
    ingest.put("merged", b"x" * module.BATCH_BYTES)
    batch = ingest.batch()
    assert batch is not None
    assert sum(len(e.data) for e in batch) == module.BATCH_BYTES
