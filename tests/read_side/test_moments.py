"""The words that name a moment."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstore import InvalidMoment
from projections import BeforeHead, parse_moment

UTC = timezone.utc


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T09:00:00Z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20t09:00:00z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20 09:00:00Z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T09:00:00+02:00", datetime(2026, 11, 20, 7, tzinfo=UTC)),
        ("2026-11-20T09:00:00-00:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T09:00:00-09:30", datetime(2026, 11, 20, 18, 30, tzinfo=UTC)),
        ("2026-11-20T09:00:00.5Z", datetime(2026, 11, 20, 9, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-20T09:00:00.123456Z", datetime(2026, 11, 20, 9, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-20T09:00:00.123456789Z", datetime(2026, 11, 20, 9, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("  2026-11-20\n", datetime(2026, 11, 20, tzinfo=UTC)),
        ("@41", 41),
        ("@0", 0),
        ("@007", 7),
        ("@-1", BeforeHead(1)),
        ("@-0", BeforeHead(0)),
    ],
)
def test_a_moment_is_read(text, moment):
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("now", timedelta()),
        ("0m", timedelta()),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("500w", timedelta(weeks=500)),
    ],
)
def test_a_moment_is_read_that_was_some_time_ago(text, ago):
    before = datetime.now(UTC)
    moment = parse_moment(text)
    assert before - ago <= moment <= datetime.now(UTC) - ago
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yesterday",
        "NOW",
        "now()",
        "2026-11-20T09:00:00",
        "2026-11-20T09:00Z",
        "2026-11-20T09Z",
        "2026-11-20T09:00:00 Z",
        "2026-11-20T09:00:00,5Z",
        "2026-11-20T09:00:00.Z",
        "2026-11-20T09:00:00+0200",
        "2026-11-20T09:00:00+02",
        "2026-11-20T09:00:00+25:00",
        "2026-11-20T24:00:00Z",
        "2026-11-20T23:59:60Z",
        "2026-11-31",
        "2025-02-29",
        "2026-13-01",
        "2026-00-10",
        "0000-01-01",
        "26-11-20",
        "20261120",
        "2026-11",
        "2026",
        "2026/11/20",
        "20.11.2026",
        "2026-W47-5",
        "1795316110",
        "@",
        "@-",
        "@--1",
        "@+1",
        "@1.5",
        "@ 1",
        "@1e3",
        "@٤١",
        "٢٠٢٦-11-20",
        "@" + "9" * 100,
        "15",
        "m",
        "-15m",
        "1.5h",
        "15 m",
        "15min",
        "5s",
        "1y",
        "15M",
        "999999999w",
        "9" * 100 + "d",
    ],
)
def test_what_names_no_moment_is_refused_with_the_forms_that_do(text):
    with pytest.raises(InvalidMoment, match=r"2026-11-20T09:00:00Z .* @-1"):
        parse_moment(text)


@settings(max_examples=500)
@given(
    st.text(max_size=30)
    | st.text("0123456789-:TtZz+@ .mhdwno", max_size=30)
    | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
    | st.from_regex(r"@?-?\d{1,30}[mhdw]?")
)
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_any_text_is_a_moment_or_refused(text):
    try:
        moment = parse_moment(text)
    except InvalidMoment:
        return
    assert isinstance(moment, int | BeforeHead) or moment.tzinfo is not None


@given(st.datetimes(timezones=st.timezones().map(lambda _: UTC)))
def test_every_instant_can_be_written_and_read(moment):
    assert parse_moment(moment.isoformat()) == moment
    assert parse_moment(moment.isoformat().replace("+00:00", "Z")) == moment
