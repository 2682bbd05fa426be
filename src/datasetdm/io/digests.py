"""What files hold, by hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError
from datasetdm.io.remote import Place


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def place_name(place: str) -> str:
    """What may be said elsewhere of a path, or of FORMAT:PATH: its last part, without the folders above it."""
    format, colon, path = place.rpartition(":")
    return f"{format}{colon}{Path(path).name}"


def file_digest(path: Place) -> str:
    """SHA-256 of a file. Raises ConfigError if it cannot be read."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise ConfigError(f"the file cannot be read: {e.strerror}", where=path, expected="a file") from e


def files_digest(place: Path) -> str:
    """SHA-256 of the names and contents of all files below a folder, hidden ones left out; or of one file."""
    if not place.is_dir():
        return file_digest(place)
    h = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            h.update(f"{path.relative_to(place)}\0{file_digest(path)}".encode())
    return h.hexdigest()
