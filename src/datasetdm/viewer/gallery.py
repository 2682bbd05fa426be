"""One HTML page over a store: every picture with overlays that can be switched. It loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_text
from datasetdm.records import IGNORE, Labels, Sample, SemanticMap
from datasetdm.viewer import paint

LAYERS = {
    "semantic": "Semantic",
    "confidence": "Doubt",
    "instance": "Instances",
    "depth": "Depth",
    "depth-doubt": "Depth doubt",
    "keypoints": "Keypoints",
}
"""Overlay -> its switch's text."""


def write_gallery(samples: Iterable[Sample], labels: Labels, path: Path, title: str) -> Iterator[None]:
    """Write the page at `path`; yields after every sample."""
    colours = paint.label_colours(labels)
    cards = []
    for sample in samples:
        cards.append(_card(sample, colours))
        yield
    present = [k for k in LAYERS if any(k in c["layers"] or (k == "keypoints" and c["points"]) for c in cards)]
    used = sorted({i for c in cards for i, _, _ in c["shares"]})
    legend = [(labels.names[i], paint.css(colours[i])) for i in used]
    environment = Environment(loader=PackageLoader("datasetdm.viewer", "."), autoescape=select_autoescape(["j2"]))
    page = environment.get_template("gallery.html.j2")
    switches = [(k, LAYERS[k]) for k in present]
    write_text(path, page.render(title=title, cards=cards, switches=switches, legend=legend))


def _card(sample: Sample, colours: np.ndarray) -> dict[str, Any]:
    layers: dict[str, str] = {}
    shares: list[tuple[int, str, str]] = []
    facts: list[str] = []
    points: list[dict[str, Any]] = []
    semantic, objects, depth, keypoints = sample.semantic, sample.instances, sample.depth, sample.keypoints
    if semantic is not None:
        layers["semantic"] = _uri(paint.paint_semantic(semantic, colours))
        shares = _shares(semantic, sample.labels, colours)
        if semantic.confidence is not None:
            layers["confidence"] = _uri(paint.paint_confidence(semantic))
            facts.append(f"confidence {semantic.confidence.astype(float).mean():.2f}")
    if depth is not None:
        layers["depth"] = _uri(paint.paint_depth(depth))
        if depth.confidence is not None:
            layers["depth-doubt"] = _uri(paint.paint_confidence(depth))
        near, far = paint.depth_range(depth)
        facts.append(f"depth {near:.1f} to {far:.1f} {'m' if depth.unit == 'metre' else '(relative)'}")
    if objects is not None:
        layers["instance"] = _uri(paint.paint_instances(objects))
        facts.append("1 object" if len(objects) == 1 else f"{len(objects)} objects")
    if keypoints is not None:
        xy, visibility = keypoints.xy, keypoints.visibility
        seen = np.argwhere(visibility > 0).tolist()
        points = [dict(x=xy[i, k, 0], y=xy[i, k, 1], hidden=visibility[i, k] == 1) for i, k in seen]
    prompt = sample.prompt
    return dict(
        key=sample.key,
        image=_uri(sample.image),
        height=sample.size[0],
        width=sample.size[1],
        prompt=prompt.text if prompt else "",
        asked=", ".join(prompt.labels) if prompt else "",
        layers=layers,
        points=points,
        shares=shares,
        facts=" · ".join(facts),
    )


def _shares(record: SemanticMap, labels: Labels, colours: np.ndarray) -> list[tuple[int, str, str]]:
    """(id, text, colour) of every label that covers at least half a percent, largest first."""
    ids, counts = np.unique(record.ids[record.ids != IGNORE], return_counts=True)
    order = np.argsort(-counts)
    rows = [(int(ids[k]), counts[k] / record.ids.size) for k in order]
    return [(i, f"{labels.names[i]} {share:.0%}", paint.css(colours[i])) for i, share in rows if share >= 0.005]


def _uri(array: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(array)).decode("ascii")
