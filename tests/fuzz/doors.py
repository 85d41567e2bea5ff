"""The doors at which bytes come in, and what must hold behind each, whatever they are."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from eventstore import (
    HistoryDiffers,
    Invalid,
    InvalidHistory,
    InvalidMoment,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StreamDescriptor,
    UnknownVersion,
)
from eventstore.erasure import erase
from projections import connect, latest_catalog, parse_moment, register_catalog, state_as_of
from projections.exchange import export_histories, import_histories
from projections.record import Recorder
from projections.state_forms import FORMS, read_state, write_state
from projections.states import latest_state
from tests.exact_or_refused import CASES
from tests.messages import (
    catalog,
    configured_stream,
    envelope,
    global_state,
    inner_state,
    legacy_state,
    saved,
    stream_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventstore import EventStore

SHOP = Pipeline("source-shop")

_DATA = Path(__file__).parents[1] / "command_line" / "data"

CAPTURED = [
    line
    for name in ("faker.jsonl", "declarative.jsonl")
    for line in (_DATA / name).read_bytes().splitlines(keepends=True)
]
"""What two connectors put out."""

_STATES = [
    stream_state("users", {"cursor": "2026-11-20", "n": 1.0, "a": None}, "audit"),
    global_state({"lsn": 12345678901234567890}, inner_state("users", {}), inner_state("a", None)),
    legacy_state({"users": {"cursor": "3"}}),
    '{"type":"GLOBAL","global_":{"shared_state":{},"stream_states":[]},"global":null}',
    *(case.text for case in CASES.values() if len(case.text) < 2000),
]

_MOMENTS = ["2026-11-20T09:00:00Z", "2026-11-20 09:00:00.123456789+05:30", "2026-11-20", "now"]
_MOMENTS += ["15m", "999999999w", "@41", "@-1", "@999999999999999999"]

_INDENTED = orjson.OPT_INDENT_2

_PER_STORE = 5_000
"""Events in one store in memory, before another takes its place."""


class _Stores:
    """A store in memory, another one now and then."""

    def __init__(self) -> None:
        self._store: EventStore | None = None
        self._numbers = count()

    def fresh(self) -> EventStore:
        if self._store:
            self._store.close()
        self._store = connect("sqlite://")
        self._store.append(SHOP, saved("users", {"cursor": 1}), saved("users", {"cursor": 2}))
        return self._store

    def some(self) -> EventStore:
        if next(self._numbers) % _PER_STORE == 0 or self._store is None:
            return self.fresh()
        return self._store


_stores, _empty_stores = _Stores(), _Stores()
_pipelines = (Pipeline(f"source-{number}") for number in count())


def at_append(given: bytes) -> None:
    """A state is stored byte for byte, without its envelope, or refused."""
    store, pipeline = _stores.some(), next(_pipelines)
    for event in (StateSaved, StateEmitted):
        try:
            [stored] = store.append(pipeline, event(given))
        except Invalid as refusal:
            _says_why(refusal)
            assert store.head(pipeline).version == 0
            return
        assert store.event(pipeline, stored.version) == stored
        assert stored.body in given or b"global_" in given
        assert stored.event
    view = latest_state(store, pipeline)
    assert view.bodies == [stored.body]
    for form in FORMS:
        write_state(view, form)


def at_set(given: bytes) -> None:
    """A state in any form is read to messages that can be stored, or refused."""
    try:
        messages = read_state(given)
    except Invalid as refusal:
        _says_why(refusal)
        return
    store, pipeline = _stores.some(), next(_pipelines)
    if messages:
        stored = store.append(pipeline, *map(StateSaved, messages))
        assert [each.body for each in stored] == messages


def at_register(given: bytes) -> None:
    """A catalog is registered, and is the same when it is read and registered again."""
    store, pipeline = _stores.some(), next(_pipelines)
    try:
        first = register_catalog(store, pipeline, given)
    except Invalid as refusal:
        _says_why(refusal)
        assert store.head(pipeline).version == 0
        return
    again = register_catalog(store, pipeline, latest_catalog(store, pipeline).catalog)
    assert [each.kind for each in again] == ["CatalogRegistered"]
    assert again[-1].body == first[-1].body


def at_record(given: bytes) -> None:
    """Every byte passes, and each state that is recorded stood in a line."""
    recorder = Recorder(_stores.some(), next(_pipelines))
    into, source = os.pipe()
    sink, out_of = os.pipe()
    try:
        os.write(source, given)  # less than a pipe holds
        os.close(source)
        recorder.pump(into, out_of)
        assert not given or os.read(sink, len(given) + 1) == given
    finally:
        for file in (into, sink, out_of):
            os.close(file)
    lines = iter(given.split(b"\n"))
    for stored in recorder.store.history(recorder.pipeline):
        assert any(stored.body in line or b"global_" in line for line in lines)


def at_import(given: bytes) -> None:
    """A history is as it was exported, or nothing of it is here.

    The last line is made to agree with the others, as a forger would.
    """
    for export in (given, _sealed(given)):
        store = _empty_stores.some()
        before = store.heads()
        try:
            done = import_histories(store, export.splitlines(keepends=True))
        except (InvalidHistory, HistoryDiffers) as refusal:
            _says_why(refusal)
            assert store.heads() == before
        else:
            there = b"".join(export_histories(store, {**done.written, **done.unchanged}))
            assert [*map(orjson.loads, there.splitlines())] == [
                *map(orjson.loads, export.splitlines())
            ]
            _empty_stores.fresh()


def at_moment(given: bytes) -> None:
    """A text names a moment, of which a state can be told, or it is refused."""
    try:
        moment = parse_moment(given.decode(errors="replace"))
    except InvalidMoment as refusal:
        _says_why(refusal)
        return
    assert not isinstance(moment, datetime) or moment.tzinfo is not None
    with suppress(UnknownVersion):
        assert state_as_of(_stores.some(), SHOP, moment).version <= 2


def _says_why(refusal: Exception) -> None:
    assert len(str(refusal)) > len("invalid")


def _sealed(export: bytes) -> bytes:
    *before, last = export.splitlines(keepends=True) or [b""]
    try:
        end = orjson.loads(last)
    except orjson.JSONDecodeError:
        return export
    if not isinstance(end, dict):
        return export
    digest = sha256(b"".join(before)).hexdigest()
    return b"".join(before) + orjson.dumps({**end, "sha256": digest}) + b"\n"


def _exports() -> Iterator[bytes]:
    with connect("sqlite://") as store:
        lake = Pipeline("source-shop", "destination-lake", connection="eu")
        store.append(lake, saved("users", {"cursor": 1}), saved("users", {"cursor": 1}))
        register_catalog(store, lake, catalog(configured_stream("users", "")))
        store.append(lake, StateCleared(StreamDescriptor("users")), actor="é", reason="%")
        yield b"".join(export_histories(store))
        erase(store, lake, version=1, reason="asked to")
        yield b"".join(export_histories(store))


def _lines() -> Iterator[bytes]:
    for cursor in range(3):
        state = envelope(stream_state("orders", {"cursor": cursor})).encode()
        yield state + b"\n"
        yield state + b"\r\n"
    yield from CAPTURED


def _catalogs() -> Iterator[bytes]:
    yield orjson.dumps(catalog())
    users = configured_stream("users", "", columns=["id", "name"], sync_id=1, generation_id=2)
    yield orjson.dumps(catalog(users, configured_stream("orders", primary_key=[["id"]])))


def _forms() -> Iterator[bytes]:
    yield from (text.encode() for text in _STATES)
    with connect("sqlite://") as store:
        for state in _STATES[:3]:
            store.append(SHOP, StateSaved(state))
            for form in FORMS:
                yield write_state(latest_state(store, SHOP), form).encode()


def _states() -> Iterator[bytes]:
    for text in _STATES:
        yield text.encode()
        yield envelope(text).encode()
    for text in _STATES[:4]:
        yield orjson.dumps({"type": "STATE", "state": orjson.loads(text)}, option=_INDENTED)


DOORS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "append": (at_append, [*_states()]),
    "set": (at_set, [*_forms()]),
    "register": (at_register, [*_catalogs()]),
    "record": (at_record, [*_lines()]),
    "import": (at_import, [*_exports()]),
    "moment": (at_moment, [text.encode() for text in _MOMENTS]),
}
"""What is tried at each door, and inputs to begin with."""
