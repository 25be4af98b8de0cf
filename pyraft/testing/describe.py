"""Any value as text, the same text wherever and in whatever order equal values were built.

``repr`` will not do: it shows addresses, and a set in the order of its hashes.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Set
from enum import Enum
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ATOMS = (int, float, complex, str, bytes, bytearray, type(None), Enum)
_DEEP = 60


def describe(value: Any, depth: int = 0) -> str:
    """``value`` as text: equal for equal content, whatever the order of sets and dicts.

    An object without a ``repr`` of its own is described by its attributes, an exception by its
    arguments, and what has neither (a lock, a generator) by its type alone.
    """
    if depth > _DEEP:
        return "…"  # it contains itself
    deeper = depth + 1
    name = type(value).__name__
    if isinstance(value, _ATOMS):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"{name}({', '.join(describe(item, deeper) for item in value)})"
    if isinstance(value, Set):
        return f"{name}({', '.join(sorted(describe(item, deeper) for item in value))})"
    if isinstance(value, Mapping):
        items = (f"{describe(key, deeper)}: {describe(item, deeper)}" for key, item in value.items())
        return f"{name}({', '.join(sorted(items))})"
    if isinstance(value, datetime.date | datetime.time):
        return f"{name}({value.isoformat()})"
    if isinstance(value, BaseException):
        return f"{name}{describe(value.args, deeper)}"
    if getattr(type(value), "__repr__", None) is object.__repr__:
        return f"{name}{describe(_attributes(value), deeper)}"
    return _ADDRESS.sub("", repr(value))


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    return found


def short(text: str, limit: int = 160) -> str:
    """``text``, or its beginning and its length."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
