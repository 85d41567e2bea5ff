"""From a moment to a version to a view, and the words that name a moment."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeAlias

from eventstore.erasure import erasure_of
from eventstore.errors import ErasedBody, InvalidMoment
from eventstore.events import Pipeline, to_datetime, to_microseconds
from projections.views import CATALOG_KINDS, STATE_KINDS, CatalogView, StateView

if TYPE_CHECKING:
    from eventstore.store import EventStore


@dataclass(frozen=True)
class BeforeHead:
    """That many versions before the head."""

    versions: int


Moment: TypeAlias = datetime | int | BeforeHead
"""An aware datetime, a version, or a place counted from the head."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_KNOWN_FORMS = (
    "write 2026-11-20T09:00:00Z (with an offset), 2026-11-20, now, 15m, 2h, 3d or 1w (ago), "
    "@41 (a version) or @-1 (one before the newest)"
)


def parse_moment(text: str) -> Moment:
    """Read a moment; raises InvalidMoment.

    RFC 3339 with an offset, a date (its first instant, UTC), `now`, `15m` `2h` `3d` `1w` (ago),
    `@41` (a version) or `@-1` (one before the head).
    """
    text = text.strip()
    if text == "now":
        return datetime.now(timezone.utc)
    if version := re.fullmatch(r"@(-?)(\d{1,18})", text, re.ASCII):
        number = int(version[2])
        return BeforeHead(number) if version[1] else number
    try:
        if ago := re.fullmatch(r"(\d{1,9})([mhdw])", text, re.ASCII):
            return datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
        if instant := parse_instant(text):
            return instant
    except (ValueError, OverflowError) as error:
        raise InvalidMoment(f"{text!r} is on no calendar; {_KNOWN_FORMS}") from error
    hint = ""
    if re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        meant = "so many before the newest" if text < "0" else "the version of that number"
        hint = f" ({meant} is @{text})"
    elif re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d([Zz]|[+-]\d\d:\d\d)?", text, re.ASCII):
        hint = " (it has no seconds)"
    elif _RFC_3339.fullmatch(f"{text}Z"):
        hint = f" (it has no offset; in UTC it is {text.replace(' ', 'T')}Z)"
    raise InvalidMoment(f"{text!r} is no moment{hint}; {_KNOWN_FORMS}")


def parse_instant(text: str) -> datetime | None:
    """Read an RFC 3339 time, None if it has another form; raises ValueError off the calendar."""
    instant = _RFC_3339.fullmatch(text)
    if not instant:
        return None
    date, time, fraction, offset = instant.groups()
    offset = "+00:00" if offset in "Zz" else offset
    microseconds = (fraction or "0")[:6].ljust(6, "0")
    return datetime.fromisoformat(f"{date}T{time}.{microseconds}{offset}")


def state_as_of(store: EventStore, pipeline: Pipeline, moment: Moment) -> StateView:
    """The state of a pipeline as of a moment, what was stored right then included.

    An unknown pipeline has the empty state. Raises UnknownVersion, InvalidMoment, or ErasedBody
    where the state was another then, and its body was erased since.
    """
    place = locate(store, pipeline, moment)
    said = store.newest_said(pipeline, STATE_KINDS, place.version, length=place.head)
    view = StateView(pipeline).with_(*said)
    _refuse_erased(store, view, place)
    return replace(view, version=place.version, stored_at=place.stored_at, final=place.final)


def catalog_as_of(store: EventStore, pipeline: Pipeline, moment: Moment) -> CatalogView:
    """The catalog of a pipeline as of a moment, what was stored right then included.

    An unknown pipeline has the empty catalog. Raises UnknownVersion, InvalidMoment, or ErasedBody
    where the catalog was another then, and part of it was erased since.
    """
    place = locate(store, pipeline, moment)
    view = CatalogView(pipeline).after(*store.newest(pipeline, CATALOG_KINDS, place.version))
    _refuse_erased(store, view, place)
    return replace(view, version=place.version, stored_at=place.stored_at, final=place.final)


def _refuse_erased(store: EventStore, view: StateView | CatalogView, place: Place) -> None:
    """Raise ErasedBody unless all that is missing had been erased by then already.

    From the erasure on, the history itself says that there is nothing; before it there was
    something, and neither nothing nor an older state would be the truth.
    """
    for stream, kept in view.erased.items():
        what = f"{stream} of {view.pipeline}" if stream else f"all of {view.pipeline}"
        erasure = erasure_of(store, view.pipeline, kept)
        if erasure is None:
            raise ErasedBody(
                f"{what} as of @{place.version} cannot be told: the body of @{kept} is missing, "
                "and no event says that it was erased (see: verify)"
            )
        if erasure.version > place.version:
            raise ErasedBody(
                f"{what} as of @{place.version} cannot be told: the body of @{kept} was erased at "
                f"@{erasure.version} by {erasure.actor}: {erasure.reason}"
            )


@dataclass(frozen=True)
class Place:
    """Where in a history a moment is; `final` says that no later append can move it.

    `head` is the version that the history has reached.
    """

    version: int
    stored_at: datetime | None
    final: bool
    head: int


def locate(store: EventStore, pipeline: Pipeline, moment: Moment) -> Place:
    """Find the version a moment means, once; raises UnknownVersion or InvalidMoment."""
    head = store.head(pipeline)
    if isinstance(moment, datetime):
        microseconds = to_microseconds(moment)
        final = microseconds <= head.stored_at
        version = store.version_at(pipeline, moment) if final else head.version
    elif isinstance(moment, BeforeHead):
        version, final = head.version - moment.versions, True
        if version < 0:
            raise store.unknown_version(pipeline, f"{moment.versions} before the newest")
    elif isinstance(moment, int):
        version, final = moment, True
    else:
        raise InvalidMoment(
            f"a moment is an aware datetime or a version, not {moment!r}; text: parse_moment"
        )
    if not 0 <= version <= head.version:
        raise store.unknown_version(pipeline, version)
    if version == head.version:
        return Place(version, to_datetime(head.stored_at) if version else None, final, version)
    stored_at = store.stored_at(pipeline, version) if version else None
    return Place(version, stored_at, final, head.version)
