"""The command in a new process without its half a second of imports: there are many such tests.

A process that has imported the command, and has opened nothing, forks for each run. A fork of the
tests' own process will not do: SQLite and DuckDB would find in its memory what the tests have open.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from projections import cli, commands

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

for _command in commands.LISTED:
    getattr(commands, _command)  # imports it

_REQUEST = 1 << 20
"""Bytes, at most, of arguments and environment."""


def run_prefork(
    args: Sequence[str], files: Sequence[int], env: Mapping[str, str], cwd: str, timeout_s: int
) -> int:
    """Run the command on three open files as stdin, stdout and stderr; returns its exit code."""
    server = _server(os.getpid())
    request = json.dumps([args, dict(env), cwd, timeout_s]).encode()
    assert len(request) < _REQUEST
    socket.send_fds(server, [request], files)
    return int(server.recv(16))


@cache
def _server(_of: int) -> socket.socket:
    """Start the process that forks; it ends when this one, which holds the other end, is gone."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", __name__, str(its.fileno())]
        root = Path(__file__).parents[2]
        subprocess.Popen(command, pass_fds=[its.fileno()], start_new_session=True, cwd=root)
    return ours


def _serve(requests: socket.socket) -> None:
    while True:
        request, files, *_ = socket.recv_fds(requests, _REQUEST, 3)
        if not request:
            return
        process = os.fork()
        if not process:
            requests.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
            os.closerange(3, max(files) + 1)
            args, env, cwd, timeout_s = json.loads(request)
            signal.alarm(timeout_s)
            os.chdir(cwd)
            become_the_command(args, env)
        for file in files:
            os.close(file)
        _, status = os.waitpid(process, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def become_the_command(args: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Be what the installed script would be in this process, to its end."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        encoding = env.get("PYTHONIOENCODING")
        sys.stdin = os.fdopen(0)
        sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encoding=encoding)
        sys.stderr = os.fdopen(2, "w", 1, encoding=encoding)
        sys.argv = ["eventstore", *args]
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
