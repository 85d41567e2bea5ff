"""Whatever bytes come in go out again, and only what is a state is recorded."""

from __future__ import annotations

import os
import threading
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore import Pipeline
from projections import connect
from projections.record import Recorder
from tests.fuzz.damage import damaged
from tests.fuzz.doors import CAPTURED
from tests.messages import envelope, stream_state

STATES = [
    envelope(stream_state("orders", {"cursor": cursor})).encode() + end
    for cursor in range(3)
    for end in (b"\n", b"\r\n")
]

_sources = (f"source-{number}" for number in count())


anything = (
    st.binary(max_size=50)
    | damaged([*CAPTURED, *STATES])
    | st.sampled_from([b"\n", b"\r\n", b"{}\n", b"\x00\n"])
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with connect(tmp_path_factory.mktemp("bytes") / "state.db") as store:
        yield store


def pass_through(recorder: Recorder, pieces: list[bytes]) -> bytes:
    """Pump the pieces, each written by itself, from one pipe to another."""
    into, source = os.pipe()
    sink, out_of = os.pipe()
    came_out: list[bytes] = []

    def feed():
        for piece in pieces:
            os.write(source, piece)
        os.close(source)

    def drain():
        while piece := os.read(sink, 1 << 16):
            came_out.append(piece)

    others = [threading.Thread(target=feed), threading.Thread(target=drain)]
    for thread in others:
        thread.start()
    try:
        recorder.pump(into, out_of)
    finally:
        os.close(into)
        os.close(out_of)
        for thread in others:
            thread.join()
        os.close(sink)
    return b"".join(came_out)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(anything, max_size=20))
def test_any_bytes_come_out_as_they_went_in(store, pieces):
    recorder = Recorder(store, Pipeline(next(_sources)))
    assert pass_through(recorder, pieces) == b"".join(pieces)
    lines = b"".join(pieces).split(b"\n")
    assert recorder.passed.lines == len(lines) - (not lines[-1])
    stored = list(store.history(recorder.pipeline))
    assert recorder.passed.states == len(stored)
    rest = iter(lines)
    for event in stored:
        assert any(event.body in line for line in rest), "each body is cut from a line of its own"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(STATES) | st.binary(max_size=30).map(lambda b: b + b"\n")))
def test_no_state_is_missed_whatever_stands_around_it(store, lines):
    recorder = Recorder(store, Pipeline(next(_sources)))
    pass_through(recorder, lines)
    states = [line.strip() for line in lines if line in STATES]
    bodies = [event.body for event in store.history(recorder.pipeline)]
    assert [envelope(body.decode()).encode() for body in bodies] == states


@st.composite
def written_states(draw) -> bytes:
    """The line of a state, its letters, spaces and order as the protocol leaves them open."""
    escaped = [f"\\u{ord(letter):04x}" if draw(st.booleans()) else letter for letter in "typeSTATE"]
    space = st.text(" \t\r", max_size=2)
    spaces = [draw(space) for _ in range(4)]
    colon = f"{spaces[0]}:{spaces[1]}"
    told = f'"{"".join(escaped[:4])}"{colon}"{"".join(escaped[4:])}"'
    state = f'"state"{colon}{STATE}'
    members = f",{spaces[2]}".join(draw(st.permutations([told, state])))
    return f"{{{spaces[3]}{members}}}{draw(st.sampled_from(['', chr(13)]))}\n".encode()


STATE = stream_state("orders", {"cursor": 1})
RECORDS = [
    b'{"type":"RECORD","record":{"stream":"s","data":{"STATE":"STATE","type":"ST"}}}\n',
    b'{"type":"RECORD","record":{"stream":"s","data":{"name":"Zo\\u00eb"}}}\n',
]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(written_states() | st.sampled_from(RECORDS), min_size=1))
def test_no_state_is_missed_among_records_however_it_is_written(store, lines):
    recorder = Recorder(store, Pipeline(next(_sources)), emitted=True)
    assert pass_through(recorder, [b"".join([*RECORDS, *lines])]) == b"".join([*RECORDS, *lines])
    assert recorder.passed.states == sum(line not in RECORDS for line in lines)
    assert not recorder.passed.invalid
    assert {event.body for event in store.history(recorder.pipeline)} <= {STATE.encode()}
