"""Who appends, why, in which run and under which id; and names for those that nobody named."""

from __future__ import annotations

import getpass
import os
import secrets
import time
from uuid import UUID

from eventstore.errors import InvalidEvent
from eventstore.events import name_problem

REASON_LIMIT = 4000
"""Characters in a reason."""


_VERSION_AND_VARIANT = 0xF << 76 | 0b11 << 62


def uuid7() -> UUID:
    """A UUID that sorts by time (RFC 9562, version 7): indexes of it grow at their end."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    return UUID(int=value & ~_VERSION_AND_VARIANT | 0x7 << 76 | 0b10 << 62)


def os_user() -> str:
    """The name of the OS user, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def append_id(given: UUID | str) -> UUID:
    """Read an append id; raises InvalidEvent."""
    try:
        return given if isinstance(given, UUID) else UUID(given)
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidEvent(f"an append id is a UUID, not {given!r}") from error


def fresh_run() -> str:
    """A name for a run, short enough to be typed."""
    return secrets.token_hex(6)


def check_attribution(actor: str, reason: str | None, run: str) -> tuple[str, str | None, str]:
    """Return the three as they are; raises InvalidEvent if one cannot be stored."""
    problems = {
        "actor": name_problem(actor),
        "reason": None if reason is None else name_problem(reason, limit=REASON_LIMIT),
        "run": name_problem(run),
    }
    for what, problem in problems.items():
        if problem:
            raise InvalidEvent(f"the {what} {problem}")
    return actor, reason, run
