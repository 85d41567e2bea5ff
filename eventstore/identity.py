"""Names that nobody gave: of an append, of a run, of whoever runs the process."""

from __future__ import annotations

import getpass
import os
import secrets
import time
from uuid import UUID

from eventstore.errors import InvalidEvent


def uuid7() -> UUID:
    """A UUID that sorts by time (RFC 9562, version 7): indexes of it grow at their end."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return UUID(int=value | secrets.randbits(62))


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
