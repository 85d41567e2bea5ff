"""The hash of an event: what makes a history impossible to change unnoticed.

hash = SHA-256(previous hash || encoding of every column || commitment), where
commitment = SHA-256(salt || body). Names are hashed and never database ids, so a history can move
to another database with its hashes; the body enters only through its commitment, so it can be
erased and the chain still be verified.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = b"airbyte-eventstore event 1\n"
GENESIS = bytes(32)
"""What stands before the first event of a history."""

Field: TypeAlias = str | int | bytes | None


def commitment(salt: bytes, body: bytes) -> bytes:
    """Commit to a body without revealing it: the salt keeps short bodies from being guessed."""
    return sha256(salt + body).digest()


def event_hash(previous: bytes, fields: Iterable[Field]) -> bytes:
    """Chain an event to its predecessor; each field is typed and length-prefixed."""
    return sha256(b"".join([FORMAT, previous, *map(encoded, fields)])).digest()


def encoded(field: Field) -> bytes:
    """A field as it is hashed."""
    if field is None:
        return b"n"
    if isinstance(field, str):
        return _encoded_text(field)
    if isinstance(field, int):
        return b"i%d;" % field
    return b"b%d:%b" % (len(field), field)


@lru_cache(256)  # of all names in a history there are few
def _encoded_text(field: str) -> bytes:
    text = field.encode()
    return b"s%d:%b" % (len(text), text)
