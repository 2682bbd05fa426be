"""DatasetDM: a hundred labelled images and a frozen text-to-image model in, as many annotated images as you need out.

    import datasetdm as ddm

    decoder = ddm.fit("coco:annotations.json", "my-decoder", tasks=("semantic",))
    for sample in ddm.generate(["a photo of a dog"], decoder=decoder, count=8):
        print(sample.prompt.text, sample.semantic.ids.shape)

Importing this package imports neither torch nor anything else heavy: names are looked up when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasetdm.backbones import FeatureConfig, load_backbone
    from datasetdm.decoder.inference import annotate
    from datasetdm.decoder.model import PDecoder
    from datasetdm.engines.local import write
    from datasetdm.errors import DatasetDMError
    from datasetdm.exporters import export
    from datasetdm.pipelines.annotate import Annotator
    from datasetdm.pipelines.evaluate import evaluate
    from datasetdm.pipelines.fit import fit, iter_fit
    from datasetdm.pipelines.generate import DatasetGenerator, generate
    from datasetdm.pipelines.settings import FitConfig, GenerateConfig, TrainConfig
    from datasetdm.pipelines.stream import Data, Stream
    from datasetdm.pipelines.train import iter_train, train
    from datasetdm.readers import read
    from datasetdm.recipe.run import load_recipe, run_recipe
    from datasetdm.recipe.schema import Recipe
    from datasetdm.records import DepthMap, Instances, Keypoints, Labels, Prompt, Sample, SemanticMap
    from datasetdm.store import Store, write_store

_HOMES = {
    "backbones": ("FeatureConfig", "load_backbone"),
    "errors": ("DatasetDMError",),
    "engines.local": ("write",),
    "pipelines.annotate": ("Annotator",),
    "pipelines.stream": ("Data", "Stream"),
    "recipe.run": ("load_recipe", "run_recipe"),
    "recipe.schema": ("Recipe",),
    "decoder.inference": ("annotate",),
    "pipelines.evaluate": ("evaluate",),
    "exporters": ("export",),
    "pipelines.fit": ("fit", "iter_fit"),
    "pipelines.settings": ("FitConfig", "GenerateConfig", "TrainConfig"),
    "pipelines.train": ("iter_train", "train"),
    "pipelines.generate": ("DatasetGenerator", "generate"),
    "decoder.model": ("PDecoder",),
    "readers": ("read",),
    "store": ("Store", "write_store"),
    "records": ("DepthMap", "Instances", "Keypoints", "Labels", "Prompt", "Sample", "SemanticMap"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.2.0.dev0"
__all__ = [
    "Annotator", "Data", "DatasetDMError", "DatasetGenerator", "DepthMap", "FeatureConfig", "FitConfig",
    "GenerateConfig", "Instances", "Keypoints", "Labels", "PDecoder", "Prompt", "Recipe", "Sample", "SemanticMap",
    "Store", "Stream", "TrainConfig", "annotate", "evaluate", "export", "fit", "generate", "iter_fit",
    "iter_train", "load_backbone", "load_recipe", "read", "run_recipe", "train", "write", "write_store",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'datasetdm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"datasetdm.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
