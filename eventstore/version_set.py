"""A set of versions that takes a bit for each: erasures may name millions of them."""

from __future__ import annotations


class VersionSet:
    """Versions of a history, none before `first`."""

    def __init__(self, first: int = 1) -> None:
        """Begin with none."""
        self._first = first
        self._bits = bytearray()

    def add(self, version: int) -> None:
        """Put a version in."""
        byte, bit = divmod(version - self._first, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << bit

    def discard(self, version: int) -> None:
        """Take a version out, if it is there."""
        if version in self:
            byte, bit = divmod(version - self._first, 8)
            self._bits[byte] ^= 1 << bit

    def __contains__(self, version: int) -> bool:
        byte, bit = divmod(version - self._first, 8)
        return 0 <= byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    def between(self, first: int, last: int) -> set[int]:
        """Those from one version to another, both included."""
        low, high = (first - self._first) // 8, (last - self._first) // 8
        if not any(self._bits[max(low, 0) : max(high + 1, 0)]):
            return set()
        return {version for version in range(first, last + 1) if version in self}

    def least(self) -> int | None:
        """The first of them."""
        rest = self._bits.lstrip(b"\0")
        if not rest:
            return None
        lowest = (rest[0] & -rest[0]).bit_length() - 1
        return self._first + (len(self._bits) - len(rest)) * 8 + lowest
