"""The hash of an event: what makes a history impossible to change unnoticed.

hash = SHA-256(previous hash || encoding of every column || commitment), where
commitment = SHA-256(salt || body). Names are hashed and never database ids, so a history can move
to another database with its hashes; the body enters only through its commitment, so it can be
erased and the chain still be verified.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = b"airbyte-eventstore event 1\n"
GENESIS = bytes(32)
"""What stands before the first event of a history."""

_REMEMBERED = 1000
"""Texts whose encodings are kept: a reason may have thousands of characters."""


def commitment(salt: bytes, body: bytes) -> bytes:
    """Commit to a body without revealing it: the salt keeps short bodies from being guessed."""
    return sha256(salt + body).digest()


def row_hash(  # noqa: PLR0917 - twice as fast as by their names
    previous: bytes,
    pipeline: bytes,
    version: int,
    stored_at: int,
    append_id: bytes,
    kind: str,
    form: int,
    stream: bytes,
    origin: str | None,
    of: int | None,
    actor: str,
    reason: str | None,
    run: str,
    body_version: int | None,
    committed: bytes | None,
) -> bytes:
    """Chain an event to its predecessor: every column a user can see, names and never their ids.

    Each field is typed and length-prefixed; names are encoded already, once for many events.
    """
    texts = _texts
    return sha256(
        b"".join(
            (
                FORMAT,
                previous,
                pipeline,
                b"i%d;i%d;b%d:" % (version, stored_at, len(append_id)),
                append_id,
                texts[kind],
                b"i%d;" % form,
                stream,
                texts[origin],
                b"n" if of is None else b"i%d;" % of,
                texts[actor],
                texts[reason],
                texts[run],
                b"n" if body_version is None else b"i%d;" % body_version,
                b"n" if committed is None else b"b%d:%b" % (len(committed), committed),
            )
        )
    ).digest()


def encoded_names(names: Iterable[str | None]) -> bytes:
    """The names of a pipeline or a stream as they are hashed."""
    return b"".join(map(_encoded, names))


def _encoded(text: str | bytes | None) -> bytes:
    if text is None:
        return b"n"
    if isinstance(text, bytes):  # which SQLite keeps in a column of texts, and so shows
        return b"b%d:%b" % (len(text), text)
    utf8 = text.encode()
    return b"s%d:%b" % (len(utf8), utf8)


class _Texts(dict[Any, bytes]):
    """Texts as they are hashed; the same few stand in most events."""

    def __missing__(self, text: str | None) -> bytes:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = made = _encoded(text)
        return made


_texts = _Texts()
