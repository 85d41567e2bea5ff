"""Bodies are compressed where the package for it is installed, and only the disk sees it."""

import io
import random
import sqlite3
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from eventstore import AlteredBody, Pipeline, StateEmitted, StateSaved
from eventstore.compression import PLAIN, ZSTD
from eventstore.events import BODY_LIMIT
from eventstore.integrity import verify
from eventstore.tables import BODY_VERSION, bodies, body_id
from projections import connect, latest_state
from projections.exchange import export_histories, import_histories
from projections.rewind import rewind
from tests.messages import saved, stream_state

zstandard = pytest.importorskip("zstandard")

SHOP = Pipeline("source-shop")
STATE = stream_state("orders", {"updated_at": "2026-11-20T09:00:00Z", "ids": list(range(50))})

NOISE = "".join(
    random.Random(6).choices(string.ascii_letters + string.digits + "+-*/=?!$%&()", k=125)
)

COMPRESSED = bytes.fromhex(
    "28b52ffd600b004d030052891413b0a58503ac3816dd43fad2922da5347c916418c330044e37bd74"
    "d2476f675f5717fd70c30b277cf072f27171c1cf36bb6cb2c7eee6ded616fb68a38b267ae86aea69"
    "69a1cfe63279dcf9d642301016000106005c6550a32403e72920537640a61994c52980"
)
"""The state as the first release has compressed it."""


def of_size(size: int) -> str:
    return stream_state("orders", {"id": "1" * (size - len(stream_state("orders", {"id": ""})))})


BODIES = {
    "a state": (STATE, ZSTD),
    "a state of 127 bytes": (of_size(127), PLAIN),
    "a state of 128 bytes": (of_size(128), ZSTD),
    "a state of a megabyte": (of_size(1 << 20), ZSTD),
    "noise": (f'{{"data":{{"":"{NOISE}"}}}}', PLAIN),
    "unusual numbers and escapes": (
        '{ "data":{"z":123456789012345678901234567890,"a":0.1234567890123456789012,'
        f'"text":"\\u00e9\\/é😀","none":null, "again":{STATE}}} }}',
        ZSTD,
    ),
}


def kept(store):
    return store.database.read(lambda db: db.execute(select(bodies)).all())


@pytest.mark.parametrize("name", BODIES)
def test_a_body_leaves_as_the_bytes_it_came_as(store, name):
    body, codec = BODIES[name]
    [stored] = store.append(SHOP, StateSaved(body))
    assert stored.body == body.encode()
    assert list(store.history(SHOP)) == [stored]
    assert latest_state(store, SHOP).bodies == [body.encode()]
    [row] = kept(store)
    assert row.codec == codec
    assert len(row.data) < len(stored.body) or row.codec == PLAIN
    assert verify(store).is_whole


def test_what_was_compressed_once_is_read_by_every_later_release(store):
    [stored] = store.append(SHOP, StateSaved(STATE))
    with store.database.engine.begin() as db:
        db.execute(bodies.update().values(codec=ZSTD, data=COMPRESSED))
    assert list(store.history(SHOP)) == [stored]


def test_what_is_brought_back_is_not_stored_again(store):
    store.append(SHOP, StateSaved(STATE), StateSaved(STATE.replace("49", "50")))
    rewind(store, SHOP, 1, reason="test")
    assert latest_state(store, SHOP).bodies == [STATE.encode()]
    assert sorted(row.id for row in kept(store)) == [body_id(1, 1), body_id(1, 2)]


def test_an_export_is_plain_and_can_be_read_anywhere(store, tmp_path):
    store.append(SHOP, StateSaved(STATE))
    export = b"".join(export_histories(store))
    assert STATE.replace('"', '\\"').encode() in export
    with connect(tmp_path / "other.db") as other:
        import_histories(other, io.BytesIO(export))
        assert list(other.history(SHOP)) == list(store.history(SHOP))
        assert [row.codec for row in kept(other)] == [ZSTD]


def test_threads_read_and_write_at_the_same_time(store):
    states = [STATE.replace("49", str(number)) for number in range(20)]

    def write_and_read(thread):
        pipeline = Pipeline("source-shop", connection=str(thread))
        for state in states:
            store.append(pipeline, StateEmitted(state))
        return [stored.body.decode() for stored in store.history(pipeline)]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write_and_read, range(4))) == [states] * 4


# Altered


def compressed(body: bytes, **options) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(body)


ALTERED = {
    "more than any body has": compressed(bytes(BODY_LIMIT + 1)),
    "a size that it has not": b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\x00" + compressed(bytes(300))[6:],
    "no size": compressed(bytes(300), write_content_size=False),
    "more behind it": compressed(bytes(300)) + b"more",
    "a part of it": compressed(bytes(300))[:-2],
    "nothing": b"",
    "no frame": STATE.encode(),
}


@pytest.mark.parametrize("data", ALTERED.values(), ids=ALTERED)
def test_what_was_not_compressed_from_a_body_is_found_and_never_read(tmp_path, data):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, saved("users", {"id": 1}), StateSaved(STATE))
        with store.database.engine.begin() as db:
            db.execute(bodies.update().where(BODY_VERSION == 2).values(data=data))
        with pytest.raises(AlteredBody, match="the body of @2 "):
            list(store.history(SHOP))
        [found] = verify(store).pipelines
        assert (found.last_good, found.first_bad) == (1, 2)


def test_another_body_is_found_although_it_is_compressed_as_it_should_be(store):
    store.append(SHOP, StateSaved(STATE), StateSaved(STATE.replace("49", "50")))
    first, _ = sorted(kept(store), key=lambda row: row.id)
    with store.database.engine.begin() as db:
        db.execute(bodies.update().where(BODY_VERSION == 2).values(data=first.data))
    [found] = verify(store).pipelines
    assert (found.last_good, found.first_bad) == (1, 2)


# Without the package

WITHOUT = "import sys; sys.modules['zstandard'] = None; from projections.cli import main; main()"


def run_without(*arguments, stdin=b""):
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, cwd=root)


@pytest.mark.parametrize("command", ["log", "verify", "export"])
def test_reading_without_the_package_says_what_to_install(tmp_path, command):
    with connect(tmp_path / "state.db") as store:
        store.append(SHOP, StateSaved(STATE))
    done = run_without(command, "--db", tmp_path / "state.db")
    assert done.returncode == (3 if command == "verify" else 1)
    assert b"pip install 'airbyte-eventstore[zstd]'" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_without_the_package_bodies_are_kept_plain(tmp_path):
    line = f'{{"type":"STATE","state":{STATE}}}\n'.encode()
    done = run_without("record", "--source", "s", "--db", tmp_path / "state.db", stdin=line)
    assert (done.returncode, done.stdout) == (0, line)
    with sqlite3.connect(tmp_path / "state.db") as db:
        assert db.execute("SELECT codec, data FROM _eventstore_bodies").fetchall() == [
            (PLAIN, STATE.encode())
        ]
