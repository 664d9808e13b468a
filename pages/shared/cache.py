"""Finished results, kept in memory for all sessions: the most recently used ones, up to a number of bytes."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

DEFAULT_BYTES = 512_000_000


class ResultCache:
    """A least-recently-used store bounded by bytes; safe from any thread."""

    def __init__(self, capacity: int = DEFAULT_BYTES) -> None:
        """Create an empty cache that holds at most `capacity` bytes."""
        self.capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> Any | None:
        """The stored result, now the most recently used one, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Store a result and drop the oldest ones until all fit; one too big alone is not kept."""
        size = size_of(value)
        with self._lock:
            self._forget(key)
            if size > self.capacity:
                return
            self._entries[key] = (value, size)
            self._size += size
            while self._size > self.capacity:
                self._forget(next(iter(self._entries)))

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def _forget(self, key: Hashable) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._size -= size


def size_of(value: Any) -> int:
    """Bytes held by a result: its arrays and texts, through dataclasses, mappings and sequences."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if is_dataclass(value) and not isinstance(value, type):
        return 64 + sum(size_of(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return 64 + sum(size_of(k) + size_of(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return 64 + sum(size_of(item) for item in value)
    return sys.getsizeof(value)
