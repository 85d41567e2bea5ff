r"""Checkpoints: what the heads of all histories were, signed, and kept outside the database.

A checkpoint is a JSON object:

    {
      "format": "airbyte-eventstore checkpoint 1",
      "made_at": "2026-11-20T09:00:00.000000Z",
      "heads": [
        {"source": "source-shop", "destination": null, "table_prefix": "", "connection": "",
         "version": 41, "hash": "<64 hexadecimal digits>"}
      ],
      "previous": "<the digest of an earlier checkpoint, which this one extends, or null>",
      "key": "<the key's id>",
      "signature": "<128 hexadecimal digits>"
    }

What is signed is the object without `signature` in canonical form, as UTF-8: RFC 8785, which for
these values (objects, lists, texts, null, integers below 2^53) is JSON without whitespace, members
sorted by name, and no character escaped but ", \ and those below U+0020. The signature is Ed25519
(RFC 8032) over these bytes. The digest of a checkpoint is SHA-256 of the same bytes, in hexadecimal
digits. The id of a key is the first 16 hexadecimal digits of SHA-256 of the 32 bytes of the public
key. Keys are in PEM files, PKCS 8 and SubjectPublicKeyInfo, as `openssl pkey` reads them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from eventstore.errors import CheckpointBroken, CheckpointUnusable, Invalid, InvalidPipeline
from eventstore.events import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from eventstore.store import EventStore

FORMAT = "airbyte-eventstore checkpoint 1"

_FIELDS = {"format", "made_at", "heads", "previous", "key", "signature"}


class SignedHead(NamedTuple):
    """Where a history ended, and the hash it had there."""

    version: int
    hash: bytes


@dataclass(frozen=True)
class Checkpoint:
    """What the heads were, by a signature that was found to be right."""

    made_at: str
    heads: Mapping[Pipeline, SignedHead]
    previous: str | None
    digest: str


def make(store: EventStore, private_key: bytes, *, previous: Checkpoint | None = None) -> str:
    """Sign the heads of all histories; returns the document.

    With the checkpoint it is to extend: raises CheckpointBroken if a history has not that head any
    more. That the histories are whole otherwise is for `verify` to say, before.
    """
    key = _private_key(private_key)
    heads = store.ends()
    if previous is not None:
        _check_extends(store, previous)
    document = {
        "format": FORMAT,
        "made_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "heads": [
            {
                "source": pipeline.source,
                "destination": pipeline.destination,
                "table_prefix": pipeline.table_prefix,
                "connection": pipeline.connection,
                "version": head.version,
                "hash": head.hash.hex(),
            }
            for pipeline, head in heads.items()
        ],
        "previous": previous and previous.digest,
        "key": _key_id(key.public_key()),
    }
    signature = key.sign(_canonical(document)).hex()
    return json.dumps({**document, "signature": signature}, indent=2, ensure_ascii=False) + "\n"


def read(text: str | bytes, public_key: bytes) -> Checkpoint:
    """Read a checkpoint that was signed with this key.

    Raises CheckpointUnusable if it is none, or another key's: then it says nothing. Raises
    CheckpointBroken if it was altered after it was signed.
    """
    key = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - extra `sign`

    document = _parsed(text)
    if document["key"] != _key_id(key):
        raise CheckpointUnusable(
            f"the checkpoint is signed with key {document['key']}, not with {_key_id(key)}"
        )
    signed = _canonical({name: document[name] for name in _FIELDS - {"signature"}})
    try:
        key.verify(bytes.fromhex(document["signature"]), signed)
    except (InvalidSignature, ValueError) as error:
        raise CheckpointBroken(
            f"the checkpoint of {document['made_at']} is not what was signed: it was altered"
        ) from error
    try:
        heads = {_pipeline(head): _signed(head) for head in document["heads"]}
    except (InvalidPipeline, KeyError, TypeError, ValueError) as error:
        raise CheckpointUnusable(f"a head in the checkpoint cannot be read: {error}") from error
    digest = sha256(signed).hexdigest()
    return Checkpoint(document["made_at"], heads, document["previous"], digest)


def read_file(path: Path, public_key: Path) -> Checkpoint:
    """`read` from files; raises CheckpointUnusable if one of them cannot be read."""
    return read(_bytes(path), _bytes(public_key))


def keygen(path: Path) -> tuple[Path, str]:
    """Make a private key in a new file that only its owner may read, and its public key beside it.

    The public key's file has the suffix `.pub`; returned with the key's id. Raises Invalid if one
    of the files is there.
    """
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = path.with_name(path.name + ".pub")
    if beside.exists():
        raise Invalid(f"{beside} is there already; a key is never overwritten")
    write_new(path, private, mode=0o600)
    write_new(beside, public, mode=0o644)
    return beside, _key_id(key.public_key())


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that is not there yet; raises Invalid if it is, or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError as error:
        raise Invalid(f"{path} is there already, and is never overwritten") from error
    except OSError as error:
        raise Invalid(f"cannot write {path}: {error.strerror}") from error


def order_problems(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Where a later checkpoint does not extend an earlier one."""
    ordered = sorted(checkpoints, key=lambda each: each.made_at)
    return [
        f"the checkpoint of {later.made_at} does not extend that of {earlier.made_at}: {pipeline} "
        f"was at @{head.version}, then at {_place(later.heads.get(pipeline))}"
        for earlier, later in pairwise(ordered)
        for pipeline, head in earlier.heads.items()
        if not _extends(later.heads.get(pipeline), head)
    ]


def _extends(later: SignedHead | None, earlier: SignedHead) -> bool:
    if later is None or later.version < earlier.version:
        return False
    return later.version > earlier.version or later.hash == earlier.hash


def _place(head: SignedHead | None) -> str:
    return "nothing" if head is None else f"@{head.version} (hash {head.hash.hex()[:8]})"


def _check_extends(store: EventStore, previous: Checkpoint) -> None:
    for pipeline, head in previous.heads.items():
        there = store.head(pipeline).version
        if there < head.version or store.event(pipeline, head.version).hash != head.hash:
            raise CheckpointBroken(
                f"{pipeline} is not what the checkpoint of {previous.made_at} signed at "
                f"@{head.version}: run verify before you sign it"
            )


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(
        document, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    ).encode()


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
        _canonical(document)
    except (ValueError, RecursionError) as error:
        raise CheckpointUnusable(f"the checkpoint is no JSON document: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointUnusable(f"no checkpoint that this release can read: not {FORMAT!r}")
    texts = ("made_at", "key", "signature")
    if set(document) != _FIELDS or not all(isinstance(document[name], str) for name in texts):
        raise CheckpointUnusable(f"a checkpoint has the members {', '.join(sorted(_FIELDS))}")
    return document


def _pipeline(head: Mapping[str, Any]) -> Pipeline:
    names = ("source", "destination", "table_prefix", "connection")
    return Pipeline(*(head[name] for name in names))


def _signed(head: Mapping[str, Any]) -> SignedHead:
    return SignedHead(int(head["version"]), bytes.fromhex(head["hash"]))


def _key_id(key: Ed25519PublicKey) -> str:
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def _private_key(pem: bytes) -> Ed25519PrivateKey:
    serialization, ed25519 = _cryptography()
    load = partial(serialization.load_pem_private_key, password=None)
    key: Ed25519PrivateKey = _loaded(load, pem, ed25519.Ed25519PrivateKey, "private key")
    return key


def _public_key(pem: bytes) -> Ed25519PublicKey:
    serialization, ed25519 = _cryptography()
    load = serialization.load_pem_public_key
    key: Ed25519PublicKey = _loaded(load, pem, ed25519.Ed25519PublicKey, "public key")
    return key


def _loaded(load: Callable[[bytes], Any], pem: bytes, its_type: type, what: str) -> Any:
    try:
        key = load(pem)
    except (ValueError, TypeError) as error:
        other = "private" if what.startswith("public") else "public"
        if f"-----BEGIN {other.upper()} KEY-----".encode() in pem:
            raise CheckpointUnusable(
                f"this is a {other} key, and a {what} is needed: the public one ends in .pub"
            ) from error
        raise CheckpointUnusable(f"no {what} in PEM: {error}") from error
    if not isinstance(key, its_type):
        raise CheckpointUnusable(f"the {what} is no Ed25519 key")
    return key


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointUnusable(f"cannot read {path}: {error.strerror}") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - extra `sign`
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
    except ImportError as error:
        raise CheckpointUnusable(
            f"signatures need cryptography: pip install 'airbyte-eventstore[sign]' ({error})"
        ) from error
    return serialization, ed25519
