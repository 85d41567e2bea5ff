"""A GLOBAL state is kept as what is new in it, and leaves as the bytes it came as."""

import io
import random
import secrets
from functools import partial

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from eventstore import AlteredBody, Pipeline, StateEmitted, StateSaved, StoreUnavailable
from eventstore.compression import PLAIN, ZSTD
from eventstore.erasure import erase
from eventstore.integrity import verify
from eventstore.parts import CODECS
from eventstore.tables import BODY_VERSION, bodies
from projections import connect, latest_state, rebuild
from projections.exchange import export_histories, import_histories
from projections.rewind import rewind
from projections.tables_check import check_tables
from tests.interruptions import everywhere
from tests.messages import global_state, inner_state

SHOP = Pipeline("source-shop")
STREAMS = 40
SIZE = 2_000


def blob(number):
    """What a stream says at a time: a part that nothing compresses."""
    return {"cursor": number, "ids": f"{random.Random(number).getrandbits(4 * SIZE):x}"}


def state(blobs):
    return global_state({"lsn": 1}, *(inner_state(f"s{n}", each) for n, each in enumerate(blobs)))


def states(count, seed=1):
    """So many states, each with another stream that has moved."""
    chance = random.Random(seed)
    blobs = [blob(chance.randrange(2**60)) for _ in range(STREAMS)]
    for _ in range(count):
        blobs[chance.randrange(STREAMS)] = blob(chance.randrange(2**60))
        yield state(blobs)


def kept(store):
    with store.database.engine.connect() as db:
        return db.execute(select(bodies).order_by(bodies.c.id)).all()


def check(store, said):
    """All there is, read in each way, is what was said."""
    read = list(store.history(SHOP))
    assert [stored.body for stored in read] == said
    for version, body in enumerate(said, start=1):
        assert store.event(SHOP, version).body == body
    assert verify(store).is_whole
    assert not check_tables(store).problems


def test_states_that_differ_by_a_stream_take_little_more_than_one(store):
    said = [text.encode() for text in states(30)]
    for body in said:
        store.append(SHOP, StateSaved(body))
    check(store, said)
    whole, *others = kept(store)
    assert whole.codec in {PLAIN, ZSTD}
    assert {row.codec for row in others} <= set(CODECS.values())
    assert max(len(row.data) for row in others) < len(said[0]) / 10


def test_it_is_the_same_for_states_of_one_append_and_of_many_stores(store):
    said = [text.encode() for text in states(9)]
    store.append(SHOP, *map(StateEmitted, said[:3]))
    for body in said[3:]:
        with connect(store.database.engine) as other:
            other.append(SHOP, StateSaved(body))
    check(store, said)
    assert sum(len(row.data) for row in kept(store)) < 2 * len(said[0])


def test_what_was_restored_goes_on_being_shared(store):
    said = [text.encode() for text in states(4)]
    for body in said:
        store.append(SHOP, StateSaved(body))
    rewind(store, SHOP, 2, reason="again")
    store.append(SHOP, StateSaved(said[0]))
    assert latest_state(store, SHOP).bodies == [said[0]]
    check(store, [*said, said[1], said[0]])
    assert sum(len(row.data) for row in kept(store)) < 2 * len(said[0])


@settings(max_examples=6)
@given(data=st.data())
def test_whatever_is_erased_all_else_is_there(shared_store, data):
    """In any order; a body that is gone takes nothing of the others with it, and is gone."""
    store, pipeline = shared_store, Pipeline(f"source-{secrets.token_hex(8)}")
    blobs = [blob(secrets.randbits(60)) for _ in range(STREAMS)]
    said, erased = [], set()
    for step in data.draw(
        st.lists(st.sampled_from(["move", "back", "erase"]), min_size=1, max_size=12)
    ):
        if step == "erase" and said:
            version = data.draw(st.integers(1, len(said)))
            if said[version - 1] and erase(store, pipeline, version=version, reason="why").bodies:
                erased.add(version)
                said.append(None)
        elif step == "back" and said and (bodies_said := [each for each in said if each]):
            store.append(pipeline, StateEmitted(data.draw(st.sampled_from(bodies_said))))
            said.append(store.event(pipeline, len(said) + 1).body)
        else:
            blobs[data.draw(st.integers(0, STREAMS - 1))] = blob(secrets.randbits(60))
            said.append(state(blobs).encode())
            with connect(store.database.engine) as another:
                chosen = another if data.draw(st.booleans()) else store
                chosen.append(pipeline, StateEmitted(said[-1]))
    found = list(store.history(pipeline))
    gone = {each.body_version for each in found if each.version in erased}
    for stored, body in zip(found, said, strict=True):
        if body is not None:
            assert stored.erased == (stored.body_version in gone)
            assert stored.body == (b"" if stored.erased else body)
    assert verify(store, [pipeline]).is_whole


def test_what_was_said_in_an_erased_state_alone_is_on_no_row(store):
    said = [text.encode() for text in states(5)]
    for body in said:
        store.append(SHOP, StateEmitted(body))
    ids = (each["stream_state"]["ids"] for each in orjson.loads(said[0])["global"]["stream_states"])
    alone = next(each.encode() for each in ids if each.encode() not in said[1])
    assert [alone in body for body in said] == [True, False, False, False, False]
    erase(store, SHOP, version=1, reason="asked to")
    check(store, [b"", *said[1:], store.event(SHOP, 6).body])
    with connect(store.database.engine) as other:
        other.append(SHOP, StateEmitted(said[4]))
        assert other.event(SHOP, 7).body == said[4]


def history_of(store, pipeline):
    return [stored.body for stored in store.history(pipeline)]


def export_of(store, pipeline):
    try:
        export = list(export_histories(store, [pipeline]))
    except StoreUnavailable:  # what was erased meanwhile would have no reason in it
        export = list(export_histories(store, [pipeline]))
    _, *lines, _ = map(orjson.loads, export)
    return [(line["body"] or "").encode() for line in lines]


def proof_of(store, pipeline):
    return verify(store, [pipeline]).is_whole


@pytest.mark.parametrize("read", [history_of, export_of, proof_of])
def test_what_is_erased_while_somebody_reads_is_there_or_gone(store, engine, read):
    """The parts that it shared with others are, wherever the read is when they are handed on."""
    said = [text.encode() for text in states(4)]
    reader = connect(engine)
    for number, interruption in enumerate(everywhere()):
        pipeline = Pipeline(f"source-{number}")
        for body in said:
            store.append(pipeline, StateEmitted(body))
        reader.pipelines()
        with interruption.of(engine, partial(erase, store, pipeline, version=1, reason="why")):
            found = read(reader, pipeline)
        if found is not True:
            first, *others = found
            assert first in {b"", said[0]}
            assert others[:3] == said[1:]
        assert history_of(reader, pipeline)[:4] == [b"", *said[1:]]


def test_it_moves_to_another_database_and_back(store, tmp_path):
    said = [text.encode() for text in states(5)]
    for body in said:
        store.append(SHOP, StateSaved(body))
    export = b"".join(export_histories(store))
    with connect(tmp_path / "other.db") as other:
        import_histories(other, io.BytesIO(export))
        check(other, said)
        assert b"".join(export_histories(other)) == export
        other.append(SHOP, StateSaved(next(states(1, seed=2))))
    rebuild(store)
    check(store, said)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\n", b"[]\n", b"[]\n{}\n", b"{}\n[]\n", b"[[1]]\n[]\n", b"[-1]\n[]\n"),
        *(b"[1.5]\n[]\n", b"[]\n[1]\n", b"[]\n[[1]]\n", b"[]\n[[0,0,1]]\n", b"[]\n[[7,0,1]]\n"),
        *(b"[]\n[[1,-1,1]]\n", b"[]\n[[1,0,9000000000]]\n", b"[]\n[[true,0,1]]\n"),
        *(b"[3]\n[[0,0,1],[1,99,1]]\nabc", b"\xff\n[]\n"),
        *(b"[]\n[[1,0,41]" + b",[1,0,41]" * 4_000 + b"]\n", b"[]\n[[18446744073709551615,0,1]]\n"),
    ],
)
def test_parts_that_were_altered_are_found(store, text):
    keep_as(store, text)
    with pytest.raises(AlteredBody, match="the body of @3 "):
        store.event(SHOP, 3)
    assert verify(store).pipelines[0].first_bad == 3
    erase(store, SHOP, version=2, reason="it cannot be read, and can be erased nevertheless")
    assert erase(store, SHOP, version=3, reason="so can it itself").bodies == (3,)
    assert verify(store).is_whole


def test_other_parts_are_found(store):
    keep_as(store, b"[3]\n[[0,0,1]]\nabc")
    assert store.event(SHOP, 3).body == b"abc"
    found = verify(store).pipelines[0]
    assert (found.first_bad, found.last_good) == (3, 2)
    assert found.problem == "@3 has another body than it was stored with"


def keep_as(store, text):
    """Alter what keeps the third of three states."""
    for each in states(3):
        store.append(SHOP, StateEmitted(each))
    with store.database.engine.begin() as db:
        third = BODY_VERSION == 3
        db.execute(bodies.update().where(third).values(codec=CODECS[PLAIN], data=text))


def test_what_has_lost_the_parts_it_shares_is_found(store):
    for each in states(3):
        store.append(SHOP, StateEmitted(each))
    with store.database.engine.begin() as db:
        db.execute(bodies.delete().where(BODY_VERSION == 1))
    with pytest.raises(AlteredBody, match="the body of @3 has a part in @1 that is gone"):
        store.event(SHOP, 3)
    assert verify(store).pipelines[0].first_bad == 1
    [new] = states(1)
    with connect(store.database.engine) as other:
        other.append(SHOP, StateEmitted(new))
        assert other.event(SHOP, 4).body == new.encode()
