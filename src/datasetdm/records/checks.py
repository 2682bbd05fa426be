"""What the records check when they are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from datasetdm.errors import DataError


def require(ok: bool, what: str, expected: str, where: str) -> None:
    """Raise `DataError` unless `ok`."""
    if not ok:
        raise DataError(what, where=where, expected=expected)


def checked_array(value: Any, dtype: type, shape: Sequence[int | None], name: str) -> np.ndarray:
    """`value` as a read-only array of `dtype`, its shape held against `shape` (None: any size)."""
    array = np.asarray(value)
    sizes = [h if w is None else w for w, h in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or array.shape != (*sizes,):
        wanted = "x".join("any" if s is None else str(s) for s in shape)
        raise DataError(f"{name} has shape {array.shape}", where=name, expected=f"shape {wanted}")
    array = np.ascontiguousarray(array, dtype=dtype)
    array.flags.writeable = False
    return array


def checked_confidence(value: Any, shape: Sequence[int], name: str) -> np.ndarray | None:
    """Probabilities in steps of 1/255, so that a store holds them exactly."""
    if value is None:
        return None
    c = checked_array(value, np.float32, shape, name)
    inside = bool(c.min(initial=0) >= 0 and c.max(initial=1) <= 1)  # NaN is neither
    require(inside, "confidence outside 0..1", "0..1", name)
    return checked_array(_STEPS.take(np.rint(c * 255).astype(np.uint8)), np.float16, shape, name)


_STEPS = (np.arange(256, dtype=np.float32) / 255).astype(np.float16)


def require_text(texts: Iterable[str], where: str) -> None:
    """Refuse texts that UTF-8 cannot hold (lone surrogates, as in undecodable file names): no format could write them."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            shown = text.encode("utf-8", "backslashreplace").decode()[:80]
            raise DataError(
                f"the text '{shown}' cannot be written as UTF-8",
                where=where,
                expected="text without lone surrogates",
                remedy="rename the file, or correct the text, in the source of the data",
            ) from e


def require_json(value: Any, where: str) -> None:
    """Refuse what JSON cannot hold."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise DataError(
            f"not JSON-ready: {e}", where=where, expected="texts, finite numbers, booleans, null, lists and mappings"
        ) from e
