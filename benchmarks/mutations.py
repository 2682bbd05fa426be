"""Mutated files: bytes, and what is known of a format (values of JSON, YAML and XML, words of lines, heads of images).

Every mutation takes a random generator and the file's bytes and returns other bytes; equal generators give equal bytes.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[Rng, bytes], bytes]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 256, 65535, 65536, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**9, 10**30,
    0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"), "", "0", "-1", "1e9", "nan", "x" * 5000, "\0",
    "\ud800", "\u2028", "../a.png", "/etc/hostname", "a.png", "٣", [], {}, [[]], [None], [-1, -1, 1e9, 1e9], [0, 0, 0, 0],
    {"a": 1}, {"size": [10**9, 10**9], "counts": [1]}, {"size": [20, 30], "counts": "zzz"}, [[1, 2]], list(range(7)),
    "2024-01-01", "no", "__class__", ["x"] * 300,
)  # fmt: skip
"""Values that somebody may not have thought of."""

WORDS = (
    "", "0", "1", "-1", "999", "1e400", "nan", "inf", "-inf", "1e-320", "9" * 5000, "0x10", "1_000", "٣", "²", "x", "\0",
    "../..", "true", "no", "~", "2024-01-01", "1:30", "[", "]", "{", "}", "&a", "*a", "!!python/object/apply:os.system [x]",
    "!!binary x", "'", '"', "#", "%", "\u2028", "\ufeff", "\t", "-", "---", "? x", "<<: *a", "<", "&x;", "]]>", "1 1",
    "[" * 3000, "{a: " * 3000,
)  # fmt: skip

MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP", b"PAR1",
         b"ARROW1\0\0", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n", b"PK\3\4",
         b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x76\x2f\x31\x01", b"SIMPLE  =")  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 8, 16, 32, 255, 65535, 65536, 10**5, 2**31 - 1, 2**31, 2**32 - 1)


def pick(rng: Rng, values: Any) -> Any:
    """One of them."""
    return values[int(rng.integers(len(values)))]


# ---------------------------------------------------------------------- bytes
def flip(rng: Rng, data: bytes) -> bytes:
    """One to eight bits are others."""
    changed = bytearray(data or b"\0")
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(rng: Rng, data: bytes) -> bytes:
    """The end is missing."""
    return data[: int(rng.integers(len(data) + 1))]


def splice(rng: Rng, data: bytes) -> bytes:
    """A piece is left out, doubled, moved or replaced by noise."""
    a, b = sorted(int(v) for v in rng.integers(len(data) + 1, size=2))
    b = min(b, a + 64)
    piece = pick(rng, (b"", data[a:b] * 2, data[a:b] * 50, rng.bytes(int(rng.integers(1, 40))), b"\0" * 8, b"\xff" * 8))
    at = int(rng.integers(len(data) + 1)) if rng.random() < 0.2 else a
    return data[:at] + piece + data[max(at, b) :]


def number(rng: Rng, data: bytes) -> bytes:
    """Four bytes, most often near the beginning or the end, become a large, small or negative number."""
    span = len(data) if rng.random() < 0.4 else min(len(data), 80)
    at = int(rng.integers(max(1, span - 3)))
    at = len(data) - at - 4 if rng.random() < 0.3 else at
    return data[: max(0, at)] + struct.pack(pick(rng, "<>") + "I", pick(rng, SIZES)) + data[max(0, at) + 4 :]


def other_magic(rng: Rng, data: bytes) -> bytes:
    """It begins as another format does."""
    head = pick(rng, MAGIC)
    return head + (data[len(head) :] if rng.random() < 0.7 else b"")


def nothing(rng: Rng, data: bytes) -> bytes:
    """Empty, or noise alone."""
    return b"" if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 300)))


# ---------------------------------------------------------------------- images
def png_head(rng: Rng, data: bytes) -> bytes:
    """A PNG with another size, bit depth or colour type, whose checksum is right."""
    if data[:8] != MAGIC[0] or len(data) < 33:
        return number(rng, data)
    head = bytearray(data[16:29])
    place = int(rng.integers(4))
    if place < 2:
        head[4 * place : 4 * place + 4] = struct.pack(">I", pick(rng, (*SIZES, 20, 29, 31, 4000, 30000)))
    else:
        head[8 + place - 2] = pick(rng, (0, 1, 2, 3, 4, 6, 8, 16, 255))
    checksum = zlib.crc32(b"IHDR" + bytes(head))
    return data[:16] + bytes(head) + struct.pack(">I", checksum) + data[33:]


# ---------------------------------------------------------------------- JSON
def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of nested JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield (*path, key)
        yield from places(entry, (*path, key))


def change_value(rng: Rng, value: Any) -> Any:
    """Nested JSON with one entry replaced, left out, doubled, nested or renamed; the value itself may be changed."""
    ways = list(places(value))
    if not ways or rng.random() < 0.03:
        return deepcopy(pick(rng, VALUES))
    way, target = pick(rng, ways), value
    for key in way[:-1]:
        target = target[key]
    key, kind = way[-1], int(rng.integers(8))
    if kind == 0:
        del target[key]
    elif kind == 1 and isinstance(target, list):
        target.append(target[key])
    elif kind == 1:
        target[pick(rng, ("", "0", "x", "\ud800", "9" * 400))] = target.pop(key)
    elif kind == 2:
        target[key] = [target[key]] if rng.random() < 0.5 else {"x": target[key]}
    elif kind == 3:
        other = pick(rng, ways)
        found: Any = value
        for step in other:
            found = found[step]
        target[key] = json.loads(json.dumps(found))
    elif kind == 4 and isinstance(target[key], (int, float)) and not isinstance(target[key], bool):
        target[key] = pick(rng, (-target[key], target[key] + 0.5, target[key] * 1000, str(target[key]), [target[key]]))
    else:
        target[key] = deepcopy(pick(rng, VALUES))
    return value


def change_json(rng: Rng, data: bytes) -> bytes:
    """A JSON file with one to three wrong entries; at times nested too deeply, or with a key twice."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return splice(rng, data)
    for _ in range(int(rng.integers(1, 4))):
        value = change_value(rng, value)
    try:
        text = json.dumps(value, ensure_ascii=bool(rng.random() < 0.8))
    except RecursionError:
        return data
    chance = rng.random()
    if chance < 0.04:
        deep = int(pick(rng, (500, 3000, 100_000)))
        text = text.replace(":", ":" + pick(rng, ("[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep)), 1)
    elif chance < 0.08:
        text = re.sub(r"\d+", pick(rng, ("9" * 5000, "1e999", "-0", "0.1e-400", "01")), text, count=1)
    elif chance < 0.1 and text.startswith("{"):
        text = "{" + text[1:].rstrip("}") + "," + text[1:]
    return text.encode("utf-8", "surrogatepass")


def change_json_line(rng: Rng, data: bytes) -> bytes:
    """JSON lines, one of them changed, doubled or cut."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    at = int(rng.integers(len(lines)))
    lines[at] = pick(
        rng, (change_json(rng, lines[at]) + b"\n", lines[at] * 2, cut(rng, lines[at]), b"[" * 50_000 + b"\n")
    )
    return b"".join(lines)


# ---------------------------------------------------------------------- text
def change_word(rng: Rng, data: bytes) -> bytes:
    """One to three words of a text (separated by space, or by the signs of XML, YAML and CSV) are others."""
    parts = re.split(r"([\s<>:,{}\[\]]+)", data.decode("utf-8", "replace"))
    for _ in range(int(rng.integers(1, 4))):
        parts[2 * int(rng.integers((len(parts) + 1) // 2))] = pick(rng, WORDS)
    return "".join(parts).encode("utf-8", "surrogatepass")


def change_line(rng: Rng, data: bytes) -> bytes:
    """A line is left out, doubled, many times there or moved."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    at = int(rng.integers(len(lines)))
    line = lines.pop(at)
    lines[int(rng.integers(len(lines) + 1)) : 0] = [line] * pick(rng, (0, 2, 3, 200))
    return b"".join(lines)


def change_xml(rng: Rng, data: bytes) -> bytes:
    """An element's text, or the element, is another; entities, encodings and depth that nobody expects."""
    text = data.decode("utf-8", "replace")
    kind = int(rng.integers(6))
    if kind == 0:
        return re.sub(r">[^<>]*<", lambda m: m[0] if rng.random() < 0.8 else f">{pick(rng, WORDS)}<", text).encode()
    tags = re.findall(r"<(\w+)>[^<>]*</\1>", text) or ["x"]
    tag = pick(rng, tags)
    if kind == 1:
        return re.sub(
            rf"<{tag}>.*?</{tag}>", pick(rng, ("", f"<{tag}/>", f"<{tag}><x/></{tag}>")), text, count=1
        ).encode()
    if kind == 2:
        return text.replace(f"<{tag}>", f"<{tag}>" * pick(rng, (2, 3000)), 1).encode()
    if kind == 3:
        entity = '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        return (entity + text.replace(">", ">&b;", 1)).encode()
    if kind == 4:
        name = pick(rng, ("utf-16", "latin-1", "ebcdic-cp-us", "x", "utf-7", "idna"))
        return f'<?xml version="1.0" encoding="{name}"?>{text}'.encode()
    return text.encode(pick(rng, ("utf-16", "utf-8-sig", "utf-32", "latin-1")), "replace")


# ---------------------------------------------------------------------- safetensors
def safetensors_head(rng: Rng, data: bytes) -> bytes:
    """Tensors with another head, whose length is right most of the time."""
    size = int.from_bytes(data[:8], "little")
    head = change_json(rng, data[8 : 8 + size])
    stated = len(head) if rng.random() < 0.9 else pick(rng, (*SIZES, 2**63))
    return struct.pack("<Q", stated) + head + data[8 + size :]


BYTES: tuple[Mutation, ...] = (flip, flip, cut, splice, splice, number, other_magic, nothing)
KNOWN: dict[str, tuple[Mutation, ...]] = {
    ".json": (change_json,) * 6,
    ".jsonl": (change_json_line,) * 4,
    ".png": (png_head,) * 3,
    ".txt": (change_word, change_word, change_word, change_line),
    ".csv": (change_word, change_line),
    ".tsv": (change_word, change_line),
    ".yaml": (change_word,) * 4 + (change_line,),
    ".xml": (change_xml,) * 4 + (change_word,),
    ".safetensors": (safetensors_head,) * 4,
}
"""Suffix -> mutations that know the format."""


def mutate(rng: Rng, name: str, data: bytes) -> bytes:
    """The bytes of the file `name`, changed in one way."""
    known = KNOWN.get(Path(name).suffix, ())
    change: Mutation = pick(rng, known) if known and rng.random() < 0.75 else pick(rng, BYTES)
    return change(rng, data)
