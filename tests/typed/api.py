"""Code as users write it: never run, only read by the type checker."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from airbyte_protocol.models import (
    AirbyteStateMessage,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
)
from sqlalchemy import Connection, Engine, Table, create_engine
from sqlalchemy.orm import Session

from eventstore import (
    AppendIdReused,
    CatalogRegistered,
    EventStore,
    EventStoreError,
    HistoryConflict,
    Pipeline,
    StateCleared,
    StateEmitted,
    StateSaved,
    StoredEvent,
    StreamDefined,
    StreamDescriptor,
    checkpoints,
)
from eventstore.erasure import Erasure, erase, reapply, retention
from eventstore.integrity import Report, verify
from projections import (
    CacheStreamStateModel,
    CatalogView,
    OwnProjection,
    SqlCatalogBackend,
    SqlStateBackend,
    StateProvider,
    StateView,
    audit,
    catalog_as_of,
    connect,
    latest_catalog,
    latest_state,
    parse_moment,
    rebuild,
    register_catalog,
    replay,
    state_as_of,
)
from projections.tables_check import TablesReport, check_tables


def append(store: EventStore, message: AirbyteStateMessage) -> list[StoredEvent]:
    shop = Pipeline("source-shop", "destination-lake")
    [saved] = store.append(
        shop,
        StateSaved(message),
        expected=None,
        id=uuid4(),
        actor="nightly",
        reason="sync 8812",
        run="8812",
    )
    return store.append(
        shop,
        StateSaved(message, origin="restored", of=saved.version),
        StateSaved({"type": "LEGACY", "data": {}}),
        StateSaved(b"{}"),
        StateEmitted("{}"),
        StateCleared(),
        StateCleared(StreamDescriptor("users", "audit")),
        StreamDefined({"stream": {}}),
        CatalogRegistered([{"name": "users"}]),
        expected=saved.version,
        id="01912e33-8b43-7c5c-9f1e-000000000000",
    )


def prove(store: EventStore, private: Path, public: Path) -> bool:
    checkpoints.keygen(private)
    signed: str = checkpoints.make(store, private.read_bytes())
    checkpoint: checkpoints.Checkpoint = checkpoints.read(signed, public.read_bytes())
    told: list[tuple[int, int]] = []
    report: Report = verify(
        store,
        [Pipeline("source-shop")],
        checkpoints=[checkpoint],
        processes=2,
        progress=lambda done, of: told.append((done, of)),
    )
    bad: list[int | None] = [found.first_bad for found in report.pipelines]
    tables: TablesReport = check_tables(store)
    return report.is_whole and not bad and not tables.problems


def remove(store: EventStore, shop: Pipeline) -> list[Erasure]:
    users = StreamDescriptor("users")
    before = datetime.now(timezone.utc)
    one: Erasure = erase(store, shop, version=1, reason="asked to", actor="ann", dry_run=True)
    some = erase(store, shop, stream=users, before=before, reason="asked to")
    old = retention(store, timedelta(days=90), pipelines=[shop], dry_run=True)
    return [one, some, *old, *reapply(store, dry_run=True)]


def columns(saved: StoredEvent) -> tuple[object, ...]:
    pipeline: Pipeline = saved.pipeline
    version: int = saved.version
    stored_at: datetime = saved.stored_at
    append_id: UUID = saved.id
    kind: str = saved.kind
    stream: StreamDescriptor | None = saved.stream
    body: bytes = saved.body
    digest: bytes = saved.hash
    actor: str = saved.actor
    reason: str | None = saved.reason
    run: str = saved.run
    if isinstance(saved.event, StateSaved):
        of: int | None = saved.event.of
        return (of,)
    return (
        *(pipeline, version, stored_at, append_id, kind, stream),
        *(body, digest, actor, reason, run),
    )


def conflicts(store: EventStore, shop: Pipeline) -> int:
    try:
        store.append(shop, StateCleared(), expected=0)
    except HistoryConflict as conflict:
        return conflict.actual - conflict.expected
    except (AppendIdReused, EventStoreError):
        raise
    return 0


def tail(store: EventStore, heads: dict[Pipeline, int]) -> Iterator[StoredEvent]:
    for stored in store.log(after=heads):
        heads[stored.pipeline] = stored.version
        yield stored


def read(store: EventStore, shop: Pipeline) -> tuple[object, ...]:
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    history: Iterator[StoredEvent] = store.history(shop, after=40, up_to=50)
    log: Iterator[StoredEvent] = store.log(since=yesterday, until=yesterday, stream="users", last=5)
    heads: dict[Pipeline, int] = store.heads()
    pipelines: list[Pipeline] = store.pipelines()
    return (*history, *log, heads, pipelines)


def past(store: EventStore, shop: Pipeline, text: str) -> tuple[object, ...]:
    view: StateView = state_as_of(store, shop, parse_moment(text))
    newest: StateView = latest_state(store, shop)
    again: StateView = replay(store, shop, StateView(shop), up_to=view.version)
    provider: StateProvider = view.provider()
    states: Mapping[StreamDescriptor, bytes] = view.streams
    when: datetime | None = view.stored_at
    final: bool = view.final
    file: str = view.state_file()
    messages: list[AirbyteStateMessage] = view.messages
    return newest == again, provider.known_stream_names, states, when, final, file, messages


def catalogs(
    store: EventStore, shop: Pipeline, catalog: ConfiguredAirbyteCatalog
) -> list[ConfiguredAirbyteStream]:
    registered: list[StoredEvent] = register_catalog(store, shop, catalog, actor="nightly")
    then: CatalogView = catalog_as_of(store, shop, registered[-1].version)
    now: CatalogView = latest_catalog(store, shop)
    whole: ConfiguredAirbyteCatalog = now.catalog
    return [*then.streams, *whole.streams]


def open_and_close(cache: Any) -> int:
    stores: list[EventStore] = [
        connect("sqlite:///state.db"),
        connect(Path("state.duckdb"), create=False),
        connect(create_engine("sqlite://")),
        connect(cache, schema="sales"),
    ]
    with stores[0] as store:
        return rebuild(store)


def backends(engine: Engine, message: AirbyteStateMessage) -> tuple[object, ...]:
    states = SqlStateBackend(engine, table_prefix="a_")
    states.get_state_writer("source-shop", destination_name="lake").write_state(message)
    provider = states.get_state_provider("source-shop", as_of=datetime.now(timezone.utc))
    names: list[str] = SqlCatalogBackend(sql_config=engine, table_prefix="").stream_names
    with Session(engine) as session:
        found = session.query(CacheStreamStateModel).filter_by(stream_name="users").first()
        updated: datetime | None = found.last_updated if found else None
    return updated, provider.known_stream_names, names


class Count:
    """A view of the user's own."""

    def __init__(self, events: int = 0) -> None:
        self.events = events

    def after(self, stored: StoredEvent) -> "Count":  # noqa: ARG002 - they are only counted
        return Count(self.events + 1)


def count(store: EventStore, shop: Pipeline) -> int:
    return replay(store, shop, Count()).events


class Sizes:
    """A projection of the user's own."""

    name = "sizes"
    TABLES: tuple[Table, ...] = ()

    def apply(self, db: Connection, stored: StoredEvent) -> None:
        db.execute(self.TABLES[0].insert(), {"bytes": len(stored.body)})


projection: OwnProjection = Sizes()


def explain(store: EventStore, shop: Pipeline) -> tuple[object, ...]:
    words: list[str] = [each.words for each in audit.changes(store, shop, changed="id", last=3)]
    before, after = state_as_of(store, shop, 1), state_as_of(store, shop, 2)
    moves: list[audit.Change] = audit.diff(before, after)
    catalogs: list[audit.CatalogChange] = audit.diff_catalogs(
        catalog_as_of(store, shop, 1), catalog_as_of(store, shop, 2)
    )
    values: list[audit.Blame] = audit.blame(store, shop, 2)
    findings: Iterator[audit.Finding] = audit.doctor(store, [shop])
    patch: list[dict[str, Any]] = audit.json_patch(before, after)
    return words, moves, catalogs, values[0].stored.run, [each.detail for each in findings], patch
