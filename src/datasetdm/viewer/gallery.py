"""One HTML page over samples: every image with overlays that can be switched. It loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, Template, select_autoescape

from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_text
from datasetdm.records import Labels, Sample
from datasetdm.viewer import detail, paint
from datasetdm.viewer.payloads import LAYER_TEXTS, LayerName, Point

SMALLEST_FRACTION = 0.005
"""Regions below this fraction of the image are not listed."""


@dataclass(frozen=True)
class Card:
    """One image of the page: layers are data addresses by name, regions are (label, text, colour)."""

    key: str
    image: str
    height: int
    width: int
    prompt: str
    asked: str
    layers: dict[LayerName, str]
    points: Sequence[Point]
    regions: Sequence[tuple[str, str, str]]
    facts: str


def write_gallery(samples: Iterable[Sample], labels: Labels, path: Path, title: str) -> Iterator[None]:
    """Write the page at `path`; yields after every sample."""
    colours = dict(legend_of(labels, labels.names))
    cards = []
    for sample in samples:
        cards.append(_card(sample, colours))
        yield
    present = {name for card in cards for name in card.layers} | (
        {LayerName.KEYPOINTS} if any(c.points for c in cards) else set()
    )
    used = {label for card in cards for label, _, _ in card.regions}
    page = template("gallery.html.j2").render(
        title=title, cards=cards, switches=switches_of(present), legend=legend_of(labels, used)
    )
    write_text(path, page)


def template(name: str) -> Template:
    """A page of this package; what it shows is escaped."""
    environment = Environment(loader=PackageLoader("datasetdm.viewer", "."), autoescape=select_autoescape(["j2"]))
    return environment.get_template(name)


def switches_of(layers: Collection[LayerName]) -> list[tuple[LayerName, str]]:
    """Layers and the texts of their switches, in the order of the switches."""
    return [(name, text) for name, text in LAYER_TEXTS.items() if name in layers]


def legend_of(labels: Labels, used: Collection[str]) -> list[tuple[str, str]]:
    """The used labels and their CSS colours."""
    colours = zip(labels.names, paint.label_colours(labels), strict=True)
    return [(name, paint.css(colour)) for name, colour in colours if name in used]


def data_address(content: bytes, kind: str = "image/png") -> str:
    """An image as an address that holds all of it."""
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")


def _card(sample: Sample, colours: dict[str, str]) -> Card:
    semantic, objects, depth = sample.semantic, sample.instances, sample.depth
    layers: dict[LayerName, str] = {}
    facts: list[str] = []
    if semantic is not None:
        layers[LayerName.SEMANTIC] = data_address(detail.layer(sample, LayerName.SEMANTIC, 0))
        if semantic.confidence is not None:
            layers[LayerName.UNCERTAINTY] = data_address(detail.layer(sample, LayerName.UNCERTAINTY, 0))
            facts.append(f"confidence {semantic.confidence.mean(dtype=np.float64):.2f}")
    if depth is not None:
        layers[LayerName.DEPTH] = data_address(detail.layer(sample, LayerName.DEPTH, 0))
        if depth.confidence is not None:
            layers[LayerName.DEPTH_UNCERTAINTY] = data_address(detail.layer(sample, LayerName.DEPTH_UNCERTAINTY, 0))
        near, far = paint.depth_range(depth)
        facts.append(f"depth {near:.1f} to {far:.1f} {'m' if depth.unit == 'metre' else '(relative)'}")
    if objects is not None:
        layers[LayerName.INSTANCES] = data_address(encode_png(paint.paint_instances(objects)))
        crowds = int(objects.crowd.sum())
        facts.append(
            f"{len(objects)} object{'' if len(objects) == 1 else 's'}" + (f", {crowds} crowd" if crowds else "")
        )
    regions = [r for r in detail.regions(sample) if r.fraction >= SMALLEST_FRACTION]
    prompt = sample.prompt
    return Card(
        key=sample.key,
        image=data_address(encode_png(sample.image)),
        height=sample.size[0],
        width=sample.size[1],
        prompt=prompt.text if prompt else "",
        asked=", ".join(prompt.labels) if prompt else "",
        layers=layers,
        points=detail.shapes(sample, sample).points,
        regions=[(r.label, f"{r.label} {r.fraction:.0%}", colours[r.label]) for r in regions],
        facts=" · ".join(facts),
    )
