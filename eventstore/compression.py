"""Bodies as they are kept: plain, or compressed where the package for it is installed."""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventstore.errors import AlteredBody, StoreUnavailable
from eventstore.events import BODY_LIMIT

if TYPE_CHECKING:
    from types import ModuleType

PLAIN = 0
ZSTD = 1
"""A frame of Zstandard with its size in its header and `_FREQUENT` as its dictionary."""

_SMALLEST = 128
"""Bytes of a body that is worth compressing."""

# A body of 300 bytes repeats little in itself, but much of what all states and catalogs have. What
# is no part of any history needs no erasing. Bodies are read with this very text: another one,
# with more in it, has to get another number beside `ZSTD`. The nearer to its end, the cheaper.
_FREQUENT = (
    rb'{"streams":[{"name":"","namespace":null,"generation_id":0,"minimum_generation_id":0,'
    rb'"sync_id":1,"registered_at":17},{"name":'
    rb'{"stream":{"name":"","json_schema":{"$schema":"http://json-schema.org/draft-07/schema#",'
    rb'"type":"object","additionalProperties":true,"properties":{"id":{"type":"integer"},'
    rb'"amount":{"type":["null","number"]},"active":{"type":["null","boolean"]},'
    rb'"tags":{"type":["null","array"],"items":{"type":["null","string"]}},"date":{"type":'
    rb'["null","string"],"format":"date"},"created_at":{"type":["null","string"],"format":'
    rb'"date-time","airbyte_type":"timestamp_with_timezone"},"description":""}},'
    rb'"supported_sync_modes":["full_refresh","incremental"],"source_defined_cursor":true,'
    rb'"default_cursor_field":["updated_at"],"source_defined_primary_key":[["id"]],'
    rb'"namespace":"public","is_resumable":true,"is_file_based":false},"sync_mode":'
    rb'"incremental","cursor_field":["updated_at"],"destination_sync_mode":"append_dedup",'
    rb'"primary_key":[["id"]]}'
    rb'{"type":"GLOBAL","global":{"shared_state":{"state":{"{\"schema\":null,\"payload\":[\"'
    rb'\",{\"server\":\"\"}]}":"{\"transaction_id\":null,\"lsn_proc\":,\"lsn_commit\":,'
    rb"\"messageType\":\"UPDATE\",\"lsn\":,\"txId\":,\"ts_usec\":,\"snapshot\":true,"
    rb'\"file\":\"mysql-bin.000001\",\"pos\":,\"gtids\":\"\"}"}},"stream_states":['
    rb'"use_global_cursor":false,"lookback_window":0,"state":{},"states":[{"partition":{"id":1,'
    rb'"parent_slice":{}},"cursor":{"date":"2026-01-01"}}],"parent_state":{},'
    rb'"__ab_no_cursor_state_message":true,"__ab_full_refresh_sync_complete":true,'
    rb'"lsn":,"xmin_xid_value":,"xmin_raw_value":,"num_wraparound":0,"state_type":"ctid",'
    rb'"incremental_state":{"ctid":"(0,0)","pk_name":"id","pk_val":"","history":{'
    rb'"_ab_source_file_last_modified":"2026-01-01T00:00:00.000000Z",'
    rb'{"type":"LEGACY","data":{"page_token":"","next_page":"","offset":0,"start_date":"2026-01-01'
    rb'","modified":"lastModified","createdAt":"updatedAt":"created":"updated":"timestamp":"date":'
    rb'"cursor":{"id":1,"created_at":"2026-01-01T00:00:00+00:00"},'
    rb'{"type":"STREAM","stream":{"stream_descriptor":{"name":"users","namespace":"public"},'
    rb'"stream_state":{"version":2,"state_type":"cursor_based","stream_name":"orders",'
    rb'"stream_namespace":"public","cursor_field":["updated_at"],"cursor":"2026-11-20T09:00:00.000'
    rb'000","cursor_record_count":1}},"sourceStats":{"recordCount":1.0},"destinationStats":{'
    rb'"recordCount":1.0,"rejectedRecordCount":0.0}}'
    rb'{"type":"STREAM","stream":{"stream_descriptor":{"name":"","namespace":"public"},'
    rb'"stream_state":{"updated_at":"2026-01-01T00:00:00Z"}},"sourceStats":{"recordCount":1.0}}'
)


def packed(body: bytes) -> tuple[int, bytes]:
    """The codec and the data by which a body is kept."""
    if _SMALLEST <= len(body) <= BODY_LIMIT and _zstandard():
        data = _contexts().compressor.compress(body)
        if len(data) < len(body):
            return ZSTD, data
    return PLAIN, body


def unpacked(codec: int, data: Any, version: int) -> bytes:
    """The body of a version, from how it is kept.

    Raises AlteredBody where it was not kept so, and StoreUnavailable without the package.
    """
    if codec == PLAIN:
        return bytes(data)
    if codec != ZSTD:
        raise AlteredBody(f"the body of @{version} is kept by codec {codec!r}, which is unknown")
    zstandard = _zstandard()
    if zstandard is None:
        raise StoreUnavailable(
            f"the body of @{version} is compressed: pip install 'airbyte-eventstore[zstd]'"
        )
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= BODY_LIMIT:  # before the memory is taken
            raise AlteredBody(f"the body of @{version} is compressed, to {size} bytes")
        body: bytes = _contexts().decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise AlteredBody(f"the body of @{version} cannot be decompressed: {error}") from error
    return body


@cache
def _zstandard() -> ModuleType | None:
    try:
        return import_module("zstandard")
    except ImportError:
        return None


class _OfThread(threading.local):
    """What compresses for one thread: none may be used by two at a time."""

    def __init__(self) -> None:
        zstandard: Any = _zstandard()
        frequent = zstandard.ZstdCompressionDict(
            _FREQUENT, dict_type=zstandard.DICT_TYPE_RAWCONTENT
        )
        frequent.precompute_compress(level=3)
        self.compressor = zstandard.ZstdCompressor(dict_data=frequent)
        self.decompressor = zstandard.ZstdDecompressor(dict_data=frequent)


@cache
def _contexts() -> _OfThread:
    return _OfThread()
