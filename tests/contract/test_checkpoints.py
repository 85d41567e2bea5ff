"""Checkpoints find what no chain can: a tail cut off, a backup restored, a history rewritten."""

import json
import stat
import subprocess
import sys
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sqlalchemy import select

from eventstore import Pipeline, StateSaved, checkpoints
from eventstore.errors import CheckpointBroken, CheckpointUnusable, Invalid
from eventstore.integrity import verify
from eventstore.tables import bodies, bodies_of, body_id, events
from projections import connect
from tests.messages import emitted, saved, stream_state
from tests.tampering import rehash, tampering

SHOP = Pipeline("source-shop")
BANK = Pipeline('source-bänk\x7f\x1b[31m"\\', "destination-lake", connection="e\tu")


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A private key and its public key."""
    file = tmp_path_factory.mktemp("keys") / "key"
    public, _ = checkpoints.keygen(file)
    return file.read_bytes(), public.read_bytes()


@pytest.fixture
def log(store):
    store.append(SHOP, saved("users", {"cursor": 1}), *emitted(4))
    store.append(BANK, saved("users", {"cursor": 1}))
    return store


def _signed(store, keys, previous=None):
    return checkpoints.read(checkpoints.make(store, keys[0], previous=previous), keys[1])


def test_a_checkpoint_covers_what_was_there(log, keys):
    checkpoint = _signed(log, keys)
    log.append(SHOP, *emitted(2))
    report = verify(log, checkpoints=[checkpoint])
    assert report.is_whole
    assert [(found.events, found.covered) for found in report.pipelines] == [(7, 5), (1, 1)]
    assert [found.covered for found in verify(log).pipelines] == [0, 0]


def cut_off(db, after):
    """Take away all of the first history after a version."""
    db.execute(events.delete().where(events.c.pipeline_id == 1, events.c.version > after))
    db.execute(bodies.delete().where(bodies_of(1), bodies.c.id > body_id(1, after)))


def test_a_truncated_tail_is_found(log, engine, keys):
    checkpoint = _signed(log, keys)
    with tampering(engine) as db:
        cut_off(db, 3)
    assert verify(log).is_whole
    found = verify(log, checkpoints=[checkpoint]).pipelines[0]
    assert (found.last_good, found.first_bad, found.is_whole) == (3, 4, False)


def test_a_restored_backup_is_found(log, engine, keys):
    with engine.connect() as db:
        backup = {
            table: [dict(row) for row in db.execute(select(table)).mappings()]
            for table in (events, bodies)
        }
    log.append(SHOP, *emitted(2))
    checkpoint = _signed(log, keys)
    with tampering(engine) as db:
        for table, rows in backup.items():
            db.execute(table.delete())
            db.execute(table.insert(), rows)
    connect(engine).append(SHOP, *emitted(9))
    assert verify(log).is_whole
    found = verify(log, checkpoints=[checkpoint]).pipelines[0]
    assert (found.first_bad, found.is_whole) == (7, False)


def test_a_history_written_and_hashed_anew_is_found(log, engine, keys):
    early = _signed(log, keys)
    log.append(SHOP, *emitted(3))
    late = _signed(log, keys, early)
    with tampering(engine) as db:
        place = (events.c.pipeline_id == 1, events.c.version == 7)
        db.execute(events.update().where(*place).values(actor="mallory"))
        rehash(db, SHOP)
    assert verify(log).is_whole
    found = verify(log, checkpoints=[late, early]).pipelines[0]
    assert (found.last_good, found.first_bad, found.covered) == (5, 8, 5)
    assert "written anew" in found.problem


def test_a_forked_tail_is_found(log, engine, keys):
    checkpoint = _signed(log, keys)
    with tampering(engine) as db:
        cut_off(db, 3)
    connect(engine).append(
        SHOP, *(StateSaved(stream_state("users", {"cursor": n})) for n in range(50, 60))
    )
    assert verify(log).is_whole
    found = verify(log, checkpoints=[checkpoint]).pipelines[0]
    assert (found.last_good, found.first_bad) == (0, 5)


def test_a_pipeline_taken_away_whole_is_found(log, engine, keys):
    from eventstore.tables import pipelines, streams  # noqa: PLC0415 - only to be emptied

    checkpoint = _signed(log, keys)
    with tampering(engine) as db:
        db.execute(pipelines.delete().where(pipelines.c.id == 2))
        for table in (events, streams):
            db.execute(table.delete().where(table.c.pipeline_id == 2))
        db.execute(bodies.delete().where(bodies_of(2)))
    assert verify(log).is_whole
    report = verify(log, checkpoints=[checkpoint])
    assert [(found.pipeline, found.is_whole) for found in report.pipelines] == [
        (SHOP, True),
        (BANK, False),
    ]
    assert verify(log, [SHOP], checkpoints=[checkpoint]).is_whole


def test_the_first_problem_is_the_one_that_is_told(log, engine, keys):
    checkpoint = _signed(log, keys)
    with tampering(engine) as db:
        db.execute(events.update().where(events.c.version == 2).values(actor="mallory"))
    found = verify(log, checkpoints=[checkpoint]).pipelines[0]
    assert (found.first_bad, found.covered) == (2, 0)


def test_a_later_checkpoint_extends_an_earlier_one(log, engine, keys):
    early = _signed(log, keys)
    log.append(SHOP, *emitted(1))
    late = _signed(log, keys, early)
    assert late.previous == early.digest
    assert verify(log, checkpoints=[early, late]).is_whole
    with tampering(engine) as db:
        cut_off(db, 2)
    with pytest.raises(CheckpointBroken, match="@6"):
        checkpoints.make(log, keys[0], previous=late)
    shorter = _signed(log, keys)
    report = verify(log, checkpoints=[early, shorter])
    assert "does not extend" in report.problems[0]


def test_another_program_can_check_a_checkpoint(log, keys):
    """By the documented format alone."""
    text = checkpoints.make(log, keys[0])
    document = json.loads(text)
    signature = bytes.fromhex(document.pop("signature"))
    signed = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    key = load_pem_public_key(keys[1])
    key.verify(signature, signed.encode())
    assert document["key"] == sha256(key.public_bytes_raw()).hexdigest()[:16]
    assert checkpoints.read(text, keys[1]).digest == sha256(signed.encode()).hexdigest()
    with pytest.raises(InvalidSignature):
        key.verify(signature, signed.replace("source-shop", "source-chop").encode())


@pytest.mark.parametrize("field", ["made_at", "previous", "heads", "signature", "version", "hash"])
def test_an_altered_checkpoint_is_broken(log, keys, field):
    document = json.loads(checkpoints.make(log, keys[0]))
    changed = {
        "made_at": "2020-01-01T00:00:00.000000Z",
        "previous": "0" * 64,
        "heads": [],
        "signature": document["signature"][::-1],
    }
    if field in changed:
        document[field] = changed[field]
    else:
        document["heads"][0][field] = 1 if field == "version" else "0" * 64
    with pytest.raises(CheckpointBroken):
        checkpoints.read(json.dumps(document), keys[1])


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "{", b"\xff", '{"format":"airbyte-eventstore checkpoint 1"}', "[" * 9999],
)
def test_what_is_no_checkpoint_tells_nothing(keys, text):
    with pytest.raises(CheckpointUnusable):
        checkpoints.read(text, keys[1])


def test_another_key_tells_nothing(log, keys, tmp_path):
    public, _ = checkpoints.keygen(tmp_path / "other")
    with pytest.raises(CheckpointUnusable, match="signed with key"):
        checkpoints.read(checkpoints.make(log, keys[0]), public.read_bytes())


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(store, keys, pem):
    with pytest.raises(CheckpointUnusable):
        checkpoints.make(store, pem)
    with pytest.raises(CheckpointUnusable):
        checkpoints.read(checkpoints.make(store, keys[0]), pem)


def test_a_missing_file_tells_nothing(tmp_path):
    with pytest.raises(CheckpointUnusable, match="cannot read"):
        checkpoints.read_file(tmp_path / "none", tmp_path / "none.pub")


def test_a_private_key_is_its_owners_and_never_overwritten(tmp_path):
    file = tmp_path / "key"
    public, _ = checkpoints.keygen(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = (file.read_bytes(), public.read_bytes())
    with pytest.raises(Invalid, match="already"):
        checkpoints.keygen(file)
    public.rename(tmp_path / "elsewhere")
    with pytest.raises(Invalid, match="already"):
        checkpoints.keygen(file)
    assert (file.read_bytes(), (tmp_path / "elsewhere").read_bytes()) == before


def test_without_cryptography_the_extra_is_named():
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from eventstore import checkpoints\n"
        "from eventstore.errors import CheckpointUnusable\n"
        "try: checkpoints.read('{}', b'')\n"
        "except CheckpointUnusable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "airbyte-eventstore[sign]" in done.stdout


def test_no_key_is_in_the_database(log, keys, engine):
    checkpoints.make(log, keys[0])
    with engine.connect() as db:
        for table in (events, bodies):
            assert "PRIVATE KEY" not in repr(db.execute(select(table)).all())
