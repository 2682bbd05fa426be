"""What made a store or a decoder, for its provenance: names, licences and hashes of models, versions of software."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from datasetdm import __version__
from datasetdm.backbones import Backbone
from datasetdm.backbones.hub import shared_name
from datasetdm.decoder.model import PDecoder
from datasetdm.pipelines.stream import Source, Stream

PACKAGES = ("torch", "diffusers", "transformers", "numpy")
"""On whose versions the numbers depend."""


def versions() -> dict[str, str]:
    """Package -> version."""
    found = {"datasetdm": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def made_with(backbone: Backbone) -> dict[str, Any]:
    """A backbone, and the versions, JSON-ready. Of a folder's place only its name is said."""
    licence = getattr(backbone, "licence", "unknown")  # backbones of plug-ins need not say
    return {
        "backbone": {"name": shared_name(backbone.name), "identity": backbone.identity, "licence": licence},
        "versions": versions(),
    }


def made_by(source: Source) -> dict[str, Any]:
    """What makes a source's samples, JSON-ready: its backbone and its decoder, if it has some, and the versions."""
    while isinstance(source, Stream):
        source = source.source
    backbone, decoder = getattr(source, "backbone", None), getattr(source, "decoder", None)
    made = {"versions": versions()} if backbone is None else made_with(backbone)
    return made | ({"decoder": decoder.fingerprint()} if isinstance(decoder, PDecoder) else {})
