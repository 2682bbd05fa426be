"""One sample as the page wants it: JSON with outlines and points, and its layers as pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.exporters.outline import loops
from datasetdm.io.codecs import encode_png
from datasetdm.records import IGNORE, Keypoints, Sample
from datasetdm.viewer import paint

DRAWN = {"semantic": "semantic", "doubt": "semantic", "depth": "depth", "depth-doubt": "depth"}
"""Layers that come as pictures -> their annotation. Instances and keypoints come as outlines and points."""

TICKS = 5
NEARLY = 1.5
"""Pictures that are at most so many times as large as asked for are not made smaller."""


def describe(raw: Sample, fixed: Sample) -> dict[str, Any]:
    """All but the pixels. `raw` is the sample as the store has it, `fixed` the one with people's labels."""
    prompt = raw.prompt
    facts: dict[str, Any] = {
        "key": raw.key,
        "height": raw.size[0],
        "width": raw.size[1],
        "prompt": prompt.text if prompt else "",
        "asked": list(prompt.labels) if prompt else [],
        "seed": str(prompt.seed) if prompt else "",
        "provenance": {str(k): str(v) for k, v in raw.provenance.to_json().items()},
    }
    facts |= shapes(fixed) | _regions(raw) | _depth(raw)
    objects = raw.instances
    if objects is not None:
        for entry, label in zip(facts["objects"], objects.label_ids.tolist(), strict=True):
            entry["was"] = raw.labels.names[label]
    return facts


def shapes(sample: Sample) -> dict[str, Any]:
    """Instances and keypoints in pixels, for drawing: an outline is an SVG path with the even-odd rule."""
    facts: dict[str, Any] = {
        "height": sample.size[0],
        "width": sample.size[1],
        "objects": [],
        "points": [],
        "bones": [],
    }
    objects, points = sample.instances, sample.keypoints
    if objects is not None:
        names = [sample.labels.names[i] for i in objects.label_ids.tolist()]
        rows = zip(names, objects.scores.tolist(), objects.masks, objects.boxes.tolist(), strict=True)
        facts["objects"] = [
            {"label": name, "score": round(score, 3), "box": box, "outline": _path(mask)}
            for name, score, mask, box in rows
        ]
    if points is not None:
        for n, names in enumerate(points.names):
            facts["points"] += _points(points, n, names)
            facts["bones"] += _bones(sample, points, n)
    return facts


def _path(mask: np.ndarray) -> str:
    return "".join("M" + "L".join(f"{x} {y}" for x, y in loop) + "Z" for loop in loops(mask))


def _points(record: Keypoints, n: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = zip(names, record.xy[n].tolist(), record.visibility[n].tolist(), strict=False)
    return [{"object": n, "name": name, "x": x, "y": y, "hidden": seen == 1} for name, (x, y), seen in rows if seen]


def _bones(sample: Sample, record: Keypoints, n: int) -> list[dict[str, Any]]:
    """The joined pairs of object n, by the skeleton that has exactly its points."""
    known = sample.labels.skeletons.values()
    edges = next((s.edges for s in known if s.points == record.names[n]), ())
    seen = record.visibility[n] > 0
    ends = [(record.xy[n, a].tolist(), record.xy[n, b].tolist()) for a, b in edges if seen[a] and seen[b]]
    return [{"object": n, "x1": a[0], "y1": a[1], "x2": b[0], "y2": b[1]} for a, b in ends]


def _regions(raw: Sample) -> dict[str, Any]:
    """The labels that the store's map has, largest first, and the share of each."""
    record = raw.semantic
    if record is None:
        return {"regions": []}
    ids, counts = np.unique(record.ids[record.ids != IGNORE], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows = [(raw.labels.names[int(ids[k])], float(counts[k] / record.ids.size)) for k in order]
    return {"regions": [{"label": name, "share": round(share, 4)} for name, share in rows]}


def _depth(sample: Sample) -> dict[str, Any]:
    """The scale of the colours: `ticks` from near to far, evenly spaced on the bar."""
    record = sample.depth
    if record is None:
        return {"depth": None}
    near, far = paint.depth_range(record)
    ticks = np.exp(np.linspace(np.log(near + paint.NEAREST), np.log(far + paint.NEAREST), TICKS)) - paint.NEAREST
    return {"depth": {"unit": record.unit, "ticks": [float(f"{t:.3g}") for t in ticks]}}


def layer(sample: Sample, name: str, side: int) -> bytes:
    """A layer of `DRAWN` as PNG, at most `side` pixels wide and high (0: as it is); clear where there is nothing."""
    record = getattr(sample, DRAWN[name])
    if record is None:
        picture = np.zeros((1, 1, 4), np.uint8)
    elif name == "semantic":
        picture = paint.paint_semantic(record, paint.label_colours(sample.labels))
    elif name == "depth":
        picture = paint.paint_depth(record)
    else:
        picture = paint.paint_confidence(record)
    return encode_png(np.asarray(_reduced(Image.fromarray(picture), side, Image.Resampling.NEAREST)))


def thumbnail(encoded: bytes, side: int) -> tuple[bytes, str]:
    """(bytes, media type) of a stored picture: itself if it is hardly larger than `side` (or that is 0), else a small JPEG.

    Raises:
        DataError: bytes that are no picture.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if not side or max(image.size) <= NEARLY * side:
                return encoded, Image.MIME[image.format or "PNG"]
            out = io.BytesIO()
            _reduced(image.convert("RGB"), side, Image.Resampling.BILINEAR).save(out, "JPEG", quality=88)
            return out.getvalue(), "image/jpeg"
    except (OSError, ValueError, SyntaxError) as e:
        raise DataError(f"the picture cannot be read: {e}", expected="a whole PNG") from e


def _reduced(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    scale = side / max(image.size) if side else 1.0
    if scale >= 1 / NEARLY:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
