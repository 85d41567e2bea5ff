"""The command as its users start it: a process between pipes, or one on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from tests.command_line.prefork import become_the_command, run_prefork

SCRIPT = Path(sys.executable).with_name("eventstore")

TIMEOUT_S = 60

_SETTINGS_OF_A_SHELL = {"EVENTSTORE_DB", "COLUMNS", "LINES", "TERM"}
_SETTINGS_OF_COLOUR = {"FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE"}


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str
    raw: bytes = b""

    @property
    def lines(self) -> list[str]:
        """The lines on stdout."""
        return self.out.splitlines()

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr."""
        return self.err.splitlines()


def start(*args: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen:
    """Start the installed script, with pipes where nothing else is said."""
    options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    return subprocess.Popen([SCRIPT, *map(str, args)], env=environment(env), **options)


def run(
    *args: object,
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> Done:
    """Run the command to its end in a process of its own; never may it print a traceback."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        files = [file.fileno() for file in (given, stdout or out, err)]
        folder = str(cwd or Path.cwd())
        code = run_prefork([*map(str, args)], files, environment(env), folder, TIMEOUT_S)
        out.seek(0)
        err.seek(0)
        return done(code, out.read(), err.read())


def finish(process: subprocess.Popen, stdin: bytes | None = None) -> Done:
    """Give a process the rest of its input and wait for its end."""
    try:
        out, err = process.communicate(stdin, timeout=TIMEOUT_S)
    finally:
        process.kill()
    return done(process.returncode, out or b"", err or b"")


def done(code: int, out: bytes, err: bytes) -> Done:
    """What a process left; never a traceback."""
    complaints = err.decode()
    assert "Traceback" not in complaints, complaints
    assert "Exception ignored" not in complaints, complaints
    return Done(code, out.decode(errors="replace"), complaints, out)


def run_in_bash(script: str, folder: Path) -> Done:
    """Run a script that calls the command, `eventstore`, by its name."""
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment({"PATH": path}),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done(process.returncode, process.stdout, process.stderr)


def run_on_terminal(*args: object, columns: int = 80) -> Done:
    """Run the command in a process on a terminal; `out` is all it shows, without its colours.

    A fork of this process, which has imported the command already: there are many such tests.
    """
    process, terminal = pty.fork()
    if not process:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        become_the_command([*map(str, args)], environment({"TERM": "xterm-256color"}))
    shown = _read_to_end(terminal)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    text = shown.decode().replace("\r\n", "\n")
    assert "Traceback" not in text, text
    return Done(os.waitstatus_to_exitcode(status), re.sub(r"\x1b\[[\d;]*m", "", text), "", shown)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what a developer's shell may have set."""
    ours = _SETTINGS_OF_A_SHELL | _SETTINGS_OF_COLOUR
    return {key: value for key, value in os.environ.items() if key not in ours} | (more or {})


def _read_to_end(terminal: int) -> bytes:
    shown = b""
    # Linux says by an error that nobody has the other side open any more.
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    return shown
