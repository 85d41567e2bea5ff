"""States that are stored exactly, or refused with a reason; the same at every door."""

from __future__ import annotations

from typing import NamedTuple

from tests.messages import global_state, inner_state, legacy_state, stream_state

MIB = 1024 * 1024
BODY_LIMIT = 16 * MIB

_DESCRIPTOR = '"stream_descriptor":{"name":"users"}'


class Case(NamedTuple):
    """A state as text, and what the error says if it is refused."""

    text: str
    refused: str | None = None


def blob(text: str) -> str:
    """A STREAM state with a blob as it stands."""
    return f'{{"type":"STREAM","stream":{{{_DESCRIPTOR},"stream_state":{text}}}}}'


def nested(depth: int) -> str:
    """A state of that many objects, one in the other."""
    around = 3  # the state, its stream, the blob
    return blob('{"a":' * (depth - around) + "{}" + "}" * (depth - around))


def sized(size: int) -> str:
    """A state of that many bytes."""
    empty = blob('{"cursor":""}')
    return blob(f'{{"cursor":"{"x" * (size - len(empty))}"}}')


def named(name: str) -> str:
    """A STREAM state of a stream of that name."""
    return stream_state(name, {"cursor": 1})


CASES = {
    "not JSON": Case("{'type':'STREAM'}", "not strict JSON"),
    "no object": Case('["users"]', "no JSON object"),
    "no state": Case('{"cursor":1}', "neither a `type` nor `data`"),
    "unknown type": Case('{"type":"PARTITION","data":{}}', "type"),
    "STREAM without stream": Case('{"type":"STREAM"}', "needs `stream`"),
    "empty object": Case("{}", "neither a `type` nor `data`"),
    "GLOBAL without stream_states": Case(
        '{"type":"GLOBAL","global":{"shared_state":{}}}', "stream_states"
    ),
    "absent blob": Case('{"type":"STREAM","stream":{' + _DESCRIPTOR + "}}"),
    "null blob": Case(blob("null")),
    "empty blob": Case(blob("{}")),
    "null inside a blob": Case(blob('{"cursor":null,"a":{"b":null}}')),
    "NaN": Case(blob('{"cursor":NaN}'), "not strict JSON|not JSON compliant"),
    "Infinity": Case(blob('{"cursor":Infinity}'), "not strict JSON|not JSON compliant"),
    "1e400": Case(blob('{"cursor":1e400}'), "not strict JSON|not JSON compliant"),
    "an integer of 200 digits": Case(blob('{"cursor":' + "9" * 200 + "}")),
    "a decimal of 22 digits": Case(blob('{"cursor":0.1234567890123456789012}')),
    "duplicate keys": Case(blob('{"cursor":1,"cursor":2}')),
    "a lone surrogate": Case(blob(r'{"cursor":"\ud800"}'), "not strict JSON"),
    "a lone surrogate in the name": Case(named("use\ud800rs"), "not strict JSON"),
    "NUL in the name": Case(named("use\x00rs"), "NUL"),
    "control characters in the name": Case(named("use\x01\x1b[31m\r\nrs\x7f")),
    "a name of 0 characters": Case(named("")),
    "a name of 255 characters": Case(named("é" * 255)),
    "a name of 256 characters": Case(named("é" * 256), "256 characters"),
    "a name of 10,000 characters": Case(named("x" * 10_000), "10000 characters"),
    "nesting of 199": Case(nested(199)),
    "nesting of 200": Case(nested(200)),
    "nesting of 201": Case(nested(201)),
    "nesting of 202": Case(nested(202), "recursion limit"),
    "nesting of 100,000": Case(nested(100_000), "nested|not strict JSON"),
    "16 MiB": Case(sized(BODY_LIMIT)),
    "16 MiB and a byte": Case(sized(BODY_LIMIT + 1), "16777217 bytes, at most 16777216"),
    "GLOBAL": Case(global_state({"lsn": 1}, inner_state("users", None), inner_state("a", {}, ""))),
    "GLOBAL with a long name": Case(
        global_state(None, inner_state("x" * 256, {})), "256 characters"
    ),
    "LEGACY": Case(legacy_state({"users": {"cursor": "3"}})),
    "untyped": Case('{"data":{"users":{"cursor":"3"}}}'),
    "unknown keys": Case('{"type":"LEGACY","data":{},"id":3899,"sourceStats":{"recordCount":2.0}}'),
}
"""What the library, the pipe, the drop-in and a sync are each given."""
