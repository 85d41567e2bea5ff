"""`record` ends before its input does: broken pipes, signals, and a database that fails."""

from __future__ import annotations

import re
import resource
import signal
import sqlite3
import threading
from itertools import count

import pytest

from tests.command_line.histories import events_in
from tests.command_line.shell import done, finish, run, run_in_bash, start
from tests.messages import envelope, stream_state

RECORD = ("record", "--source", "source-shop", "--db")


def line(cursor: int, padding: str = "") -> bytes:
    return envelope(stream_state("orders", {"cursor": cursor, "x": padding})).encode() + b"\n"


def states_stored(database) -> list[bytes]:
    return [b'{"type":"STATE","state":%s}\n' % event.body for event in events_in(database)]


def feed(process, lines) -> threading.Thread:
    """Write into a process's input, in the background, until it is gone."""

    def write():
        try:
            for some in lines:
                process.stdin.write(some)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def end(process, timeout_s: float = 5) -> int:
    """Wait for a process that should end by itself."""
    try:
        return process.wait(timeout_s)
    finally:
        process.kill()


# Whoever reads the output leaves


def test_when_the_reader_leaves_it_stops_without_a_traceback(tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(b"".join(map(line, range(3000))))
    script = (
        "cat lines.jsonl | eventstore record --db state.db --source s | head -1; "
        "exit ${PIPESTATUS[1]}"
    )
    cut = run_in_bash(script, tmp_path)
    assert cut.raw == line(0)
    assert cut.code == 1
    assert all(text.startswith("eventstore: ") for text in cut.complaints)
    assert 0 < len(events_in(tmp_path / "state.db")) < 3000


def test_an_output_that_is_full_is_an_error_in_one_line(tmp_path):
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        cut = run(*RECORD, tmp_path / "state.db", stdin=line(0), stdout=full)
    assert cut.code == 1
    assert cut.complaints
    assert all(text.startswith("eventstore: ") for text in cut.complaints)


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_without_an_input_or_an_output_it_says_so(closed, tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(line(0))
    script = f"eventstore record --db state.db --source s < lines.jsonl {closed}"
    cut = run_in_bash(script, tmp_path)
    assert cut.code in {1, 2}
    assert [text[:12] for text in cut.complaints] == ["eventstore: "]


def test_without_a_place_for_reports_they_do_not_get_into_the_output(tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(line(0))
    script = "eventstore record --db state.db --source s < lines.jsonl 2>&-"
    assert run_in_bash(script, tmp_path).raw == line(0)


# Somebody ends it


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_it_while_it_waits_for_a_line(sent, code, tmp_path):
    process = start(*RECORD, tmp_path / "state.db")
    process.stdin.write(line(0))
    process.stdin.flush()
    assert process.stdout.readline() == line(0)
    process.send_signal(sent)
    assert end(process) == code
    cut = done(process.returncode, process.stdout.read(), process.stderr.read())
    assert cut.raw == b""
    assert cut.complaints
    assert all(text.startswith("eventstore: ") for text in cut.complaints)
    assert states_stored(tmp_path / "state.db") == [line(0)]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_ends_it_while_it_is_busy_and_what_came_out_is_stored(sent, code, tmp_path):
    process = start(*RECORD, tmp_path / "state.db")
    feed(process, map(line, count()))
    came_out = process.stdout.readline()
    process.send_signal(sent)
    came_out += process.stdout.read()
    assert end(process) == code
    cut = done(process.returncode, b"", process.stderr.read())
    assert all(text.startswith("eventstore: ") for text in cut.complaints)
    lines = came_out.splitlines(keepends=True)
    assert lines == list(map(line, range(len(lines))))
    assert states_stored(tmp_path / "state.db")[: len(lines)] == lines


def test_sigterm_ends_it_although_nobody_reads_its_output(tmp_path):
    process = start(*RECORD, tmp_path / "state.db")
    feed(process, [b'{"type":"RECORD"}\n'] * 100_000)
    assert process.stdout.readline() == b'{"type":"RECORD"}\n'
    with pytest.raises(TimeoutError):
        wait_until_moving_on(process)
    process.terminate()
    assert end(process) == 143


def wait_until_moving_on(process, patience_s: float = 0.5) -> None:
    """Return when the process has used the processor again, or time out because it is stuck."""
    seen, stop = cpu_ticks(process), threading.Event()
    for _ in range(20):
        stop.wait(patience_s)
        now = cpu_ticks(process)
        if now == seen:
            raise TimeoutError
        seen = now


def cpu_ticks(process) -> int:
    with open(f"/proc/{process.pid}/stat") as stat:  # noqa: PTH123 - no file on a disk
        return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))


# The database fails


def test_when_a_table_is_gone_it_stops_before_the_line_it_could_not_store(tmp_path):
    database, given = tmp_path / "state.db", [line(0), line(1), line(2)]
    process = start(*RECORD, database)
    process.stdin.write(given[0])
    process.stdin.flush()
    assert process.stdout.readline() == given[0]
    with sqlite3.connect(database) as db:
        db.execute("ALTER TABLE _eventstore_bodies RENAME TO gone")
    cut = finish(process, given[1] + given[2])
    with sqlite3.connect(database) as db:
        db.execute("ALTER TABLE gone RENAME TO _eventstore_bodies")
    assert cut.raw == b""
    assert cut.code == 1
    assert states_stored(database) == given[:1]
    [error] = [text for text in cut.complaints if "_eventstore_bodies" in text]
    assert error.startswith("eventstore: ")
    assert "line 2" in error


@pytest.mark.parametrize("name", ["state.db", "state.duckdb"])
def test_when_the_disk_is_full_it_stops_and_what_came_out_is_stored(name, tmp_path):
    database, given = tmp_path / name, [line(cursor, "x" * 5000) for cursor in range(200)]
    run(*RECORD, database)

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    cut = finish(start(*RECORD, database, preexec_fn=limit_files), b"".join(given))
    lines = cut.raw.splitlines(keepends=True)
    assert cut.code == 1
    assert all(text.startswith("eventstore: ") for text in cut.complaints)
    assert 0 < len(lines) < len(given)
    assert lines == given[: len(lines)]
    assert states_stored(database)[: len(lines)] == lines


def test_the_report_counts_the_lines_that_were_passed_on(tmp_path):
    database = tmp_path / "state.db"
    run(*RECORD, database)
    with sqlite3.connect(database) as db:
        db.execute("ALTER TABLE _eventstore_bodies RENAME TO gone")
    cut = run(*RECORD, database, stdin=b'{"type":"LOG"}\n{"type":"LOG"}\n' + line(0) + line(1))
    assert cut.raw == b'{"type":"LOG"}\n{"type":"LOG"}\n'
    assert re.search(r"\b2 lines passed on", cut.err)


@pytest.mark.parametrize("name", ["state.db", "state.duckdb"])
def test_without_a_database_nothing_is_passed_on(name, tmp_path):
    cut = run(*RECORD, tmp_path / "no folder" / name, stdin=b'{"type":"LOG"}\n' + line(0))
    assert (cut.raw, cut.code) == (b"", 1)
    assert [text[:12] for text in cut.complaints] == ["eventstore: "]
    assert list(tmp_path.iterdir()) == []
