"""What a recipe says: named stages, each a stream or a fit. The command line, Python and YAML files build the same models.

    stages:
      decoder: {kind: fit, data: "coco:annotations.json"}
      store: {kind: generate, decoder: "stage:decoder", prompts: prompts.txt, count: 1000}
      coco: {kind: export, data: "stage:store", format: coco}

`stage:NAME` stands for what an earlier stage made. A field's description is the command line's help, its default is what the
help shows. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from datasetdm.errors import ConfigError
from datasetdm.io.settings import Files, Fractions, Names, NewNames, Numbers, Texts
from datasetdm.pipelines.settings import CheckConfig, EditConfig, FilterConfig, FitConfig, GenerateConfig, TrainConfig
from datasetdm.recipe.prompt_settings import RUNNING, PromptsConfig

REFERENCE = "stage:"
"""What a reference to an earlier stage begins with."""

GRAMMAR = "grammar"
"""The prompts that stand for the grammar of the embedded model's world."""

REFERS_TO = {
    "data": ("store", "a stage of kind generate, annotate, edit or filter"),
    "synthetic": ("store", "a stage of kind generate, annotate, edit or filter"),
    "self_training": ("store", "a stage of kind generate, annotate, edit or filter"),
    "prompts": ("prompts", "a stage of kind prompts"),
    "decoder": ("decoder", "a fit"),
    "model": ("model", "a stage of kind train"),
    "encoder": ("model", "a stage of kind train"),
}
"""Settings that may be a reference -> what the other stage makes, and the stages that make it."""

READ = ("data", "synthetic", "self_training")
"""Settings that name data."""

_Name = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_HIDDEN = Parameter(parse=False)


class _Stage(BaseModel):
    """What all stages share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    HOW: ClassVar[frozenset[str]] = frozenset({"device", "low_memory", "compile", "engine", "address", "workers"})
    """Settings that change how the work is done, but not what comes out."""
    MAKES: ClassVar[Literal["decoder", "model", "store", "folder", "file", "prompts"]]
    """What the stage leaves in the recipe's folder."""


class _Reads(_Stage):
    data: str = Field(
        description="A store's folder or URL, or FORMAT:PATH, for instance `coco:annotations.json`; `datasetdm formats` lists them."
    )


class _Transforms(_Stage):
    transforms: Annotated[tuple[dict[str, Any], ...], _HIDDEN] = Field(
        (), description="What is done to the samples, in this order: name and settings of transforms."
    )


class DataOptions(_Transforms):
    """How data are read."""

    images: Path | None = Field(None, description="Folder of the images, where the format does not say.")
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="What wrong data do: stop the work, or skip the image and count it."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="At most so many images, chosen at random, by the seed if there is one; all if not given.",
    )
    balance: bool = Field(False, description="With --limit: every label is there about equally often.")


class _Device(_Stage):
    device: str = Field("auto", description="auto, cpu or cuda.")
    low_memory: bool = Field(
        False, description="Parts of the pipeline wait in the CPU's memory, and the VAE takes one image at a time."
    )


class _Decoder(_Device):
    decoder: str = Field("mini", description="`mini`, a folder that `fit` wrote, or `hf://ORG/NAME`.")
    backbone: str | None = Field(None, description="Default: the one that the decoder was fitted on.")


class _Engine(_Stage):
    engine: Literal["local", "ray"] | None = Field(
        None,
        description="Where the models run: in this process, or in workers of their own by Ray. Default local; ray where this "
        "machine has several GPUs and Ray is installed.",
    )
    address: str | None = Field(
        None, description="With ray: the cluster's head, HOST:PORT or auto; default workers on this machine alone."
    )
    workers: int | None = Field(
        None, ge=1, description="With ray: number of workers; default one per GPU, or one where there is none."
    )

    @model_validator(mode="after")
    def _check_engine(self) -> _Engine:
        if self.engine == "local" and (self.address is not None or self.workers is not None):
            raise ValueError("address and workers belong to the engine ray")
        return self


class _Backbone(_Device):
    backbone: str = Field("mini", description="`mini`, a pipeline's folder, or a hub id (`datasetdm backbones`).")
    lora: Files = Field((), description="LoRA files (.safetensors) on top of it; the decoder remembers them.")
    size: int | None = Field(None, ge=8, description="Side of the backbone's images in pixels; default its native one.")
    timesteps: Numbers | None = Field(
        None, description="Comma-separated noise levels at which the backbone reads the images; default the family's."
    )
    inversion: Literal["renoise", "ddim"] = Field(
        "renoise", description="How the noise is found: fixed noise, or the deterministic sampler run backwards."
    )


class FitStage(_Backbone, FitConfig, DataOptions, _Reads):
    """Fit a P-Decoder on labelled images."""

    MAKES = "decoder"
    kind: Annotated[Literal["fit"], _HIDDEN] = "fit"


class PromptsStage(PromptsConfig, DataOptions):
    """Make prompts for labels, with what each is meant to show; the same command goes on with an unfinished file."""

    HOW = DataOptions.HOW | RUNNING
    MAKES = "prompts"
    kind: Annotated[Literal["prompts"], _HIDDEN] = "prompts"
    data: str | None = Field(
        None,
        description="Labelled data (a store's folder, or FORMAT:PATH): their labels, and how these occur together.",
    )
    count: int = Field(ge=1, description="Number of prompts.")


class _Prompts(_Stage):
    prompts: Texts = Field(
        min_length=1,
        description="A file of prompts (one per line, or .jsonl, .json, .csv, .tsv), or prompts; they are used in turn. "
        "`grammar` composes some for the embedded model.",
    )
    count: int | None = Field(None, ge=1, description="Number of samples that the store shall hold.")
    target: int | None = Field(
        None,
        ge=1,
        description="Instead of --count: number of samples that no filter rejects. From the second round on, labels that few "
        "such samples show are asked for more often.",
    )
    round: int = Field(64, ge=1, description="With --target: images per round, rounded up to whole batches.")
    min_yield: float = Field(
        0.02,
        ge=0,
        le=1,
        description="With --target: stop if a smaller fraction of the last 4 rounds passes the filters.",
    )


class GenerateStage(_Engine, _Decoder, GenerateConfig, FilterConfig, _Transforms, _Prompts):
    """Generate annotated images into a store; the same command goes on with an unfinished one.

    Filters write scores and reasons: what they reject stays in the store, and export, fit and evaluate skip it.
    """

    HOW = _Decoder.HOW | {"min_yield"}
    MAKES = "store"
    kind: Annotated[Literal["generate"], _HIDDEN] = "generate"
    batch: int | None = Field(  # ty: ignore[incompatible-attribute-override]  # None: it depends on the store
        None, ge=1, description="Images per batch; default the store's own, or 16 and at most the count."
    )
    compile: bool = Field(
        False, description="Compile the denoiser first (torch.compile): minutes at the start, faster images afterwards."
    )

    @model_validator(mode="after")
    def _check_number(self) -> GenerateStage:
        if (self.count is None) == (self.target is None):
            raise ConfigError(
                "neither --count nor --target is given"
                if self.count is None
                else "--count and --target are both given",
                expected="--count N (samples in all), or --target N (samples that no filter rejects)",
            )
        return self


class AnnotateStage(_Engine, _Decoder, CheckConfig, FilterConfig, DataOptions, _Reads):
    """Annotate existing images into a store; the same command goes on with an unfinished one, and with new images.

    Captions, each in a text file beside its image, help much. Filters write scores and reasons, as in `generate`.
    """

    MAKES = "store"
    kind: Annotated[Literal["annotate"], _HIDDEN] = "annotate"


class EditStage(_Decoder, EditConfig, DataOptions, _Reads):
    """Put other things into annotated images, and label the result; the same command goes on with an unfinished store.

    The pixels of the labels that are named are generated anew; the other pixels stay.
    """

    MAKES = "store"
    kind: Annotated[Literal["edit"], _HIDDEN] = "edit"


class FilterStage(FilterConfig, _Reads):
    """Filter a store into a store of its own, whose shards are linked."""

    MAKES = "store"
    kind: Annotated[Literal["filter"], _HIDDEN] = "filter"


class TrainStage(TrainConfig, DataOptions, _Reads):
    """Train an ordinary model of transformers on labelled data, on synthetic samples, or on both."""

    MAKES = "model"
    HOW = _Reads.HOW | {"tensorboard"}
    kind: Annotated[Literal["train"], _HIDDEN] = "train"
    data: Texts = Field(  # ty: ignore[incompatible-attribute-override]  # several
        min_length=1,
        description="A store's folder or URL, or FORMAT:PATH (`datasetdm formats`), or several: the model learns the labels of "
        "the first, those of the others are matched by name. --limit is of each.",
    )
    synthetic: Texts = Field(
        (), description="More samples, for instance stores of generated ones; their labels are matched by name."
    )
    self_training: Texts = Field(
        (), description="Images to learn from without labels, real or generated; labels that they have are ignored."
    )
    synthetic_limit: int | None = Field(
        None, ge=1, description="At most so many of each of them, chosen at random; all if not given."
    )
    synthetic_transforms: Annotated[tuple[dict[str, Any], ...], _HIDDEN] = Field(
        (), description="What is done to the synthetic samples, in this order: name and settings of transforms."
    )
    device: str = Field("auto", description="auto, cpu or cuda.")


DECODERS_OWN = ("decoder", "backbone", "low_memory", "captions")
"""Settings of an evaluation that a trained model has no use for."""


class EvaluateStage(_Decoder, DataOptions, _Reads):
    """Measure a P-Decoder, or a trained model, on labelled images."""

    MAKES = "folder"
    kind: Annotated[Literal["evaluate"], _HIDDEN] = "evaluate"
    model: str | None = Field(
        None,
        description="Instead of a decoder: a folder that `train` wrote, or another one of transformers, or a hub id.",
    )
    captions: bool = Field(
        True,
        description="Read every image under its own caption, as when it was generated; else under none. A caption "
        "composed of the labels is not its own: the figures are those without it, those under it stand beside.",
    )
    unseen: Names = Field(
        (),
        description="Comma-separated labels without labelled images: figures over seen and unseen labels, and their harmonic mean.",
    )
    shown: int = Field(20, ge=0, description="So many of the worst and of the best images are on the page; 0: no page.")

    @model_validator(mode="after")
    def _check_model(self) -> EvaluateStage:
        own = EvaluateStage.model_fields
        if self.model and (extra := [n for n in DECODERS_OWN if getattr(self, n) != own[n].default]):
            raise ConfigError(
                f"a model has no {', '.join(extra)}",
                where=f"--model {self.model}",
                expected="--model alone, or what belongs to a decoder",
                remedy="measure them one after the other",
            )
        return self


class ExportOptions(DataOptions):
    """What is done to samples on their way into a format, in this order: reviews, limit, scores, confidences, labels, split."""

    format: str = Field("coco", description="`datasetdm formats` lists them.")
    min_score: float = Field(0.0, ge=0, le=1, description="Leave out objects and regions of a lower score.")
    min_confidence: float = Field(
        0.0, ge=0, le=1, description="Ignore single pixels of a lower confidence, in semantic maps and depth."
    )
    remap: NewNames = Field(
        {}, description="New names of labels: `cat=animal,dog=animal,sky=` (the last drops a label)."
    )
    split: Fractions = Field(
        {}, description="Parts and their fractions: `train=0.8,val=0.1,test=0.1`. A sample's part follows from its key."
    )
    link: bool = Field(False, description="Link images that are files instead of copying them.")
    licence: str = Field("unknown", description="What a data set's card says, for instance cc-by-4.0.")


class ExportStage(ExportOptions, _Reads):
    """Write a store, or other labelled data, in another format."""

    MAKES = "folder"
    kind: Annotated[Literal["export"], _HIDDEN] = "export"


class PageOptions(_Stage):
    """What is on a page."""

    limit: int = Field(200, ge=1, description="At most so many samples on the page to share, the first ones.")


class PageStage(PageOptions, _Reads):
    """Write a store's first samples as a page of one file."""

    MAKES = "file"
    kind: Annotated[Literal["page"], _HIDDEN] = "page"


Stage = (
    FitStage
    | PromptsStage
    | GenerateStage
    | AnnotateStage
    | EditStage
    | FilterStage
    | TrainStage
    | EvaluateStage
    | ExportStage
    | PageStage
)
RESUMABLE = ("decoder", "model", "store", "prompts")
"""What an interrupted stage makes if the same stage goes on with it."""

KINDS = get_args(Stage)
"""The models of all kinds of stages."""


class Recipe(BaseModel):
    """Named stages in the order in which they run.

    Raises:
        ConfigError: a name that is no file name, or a reference to no earlier stage, or to one of another kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    stages: dict[_Name, Annotated[Stage, Field(discriminator="kind")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_references(self) -> Recipe:
        earlier: dict[str, _Stage] = {}
        for name, stage in self.stages.items():
            for field, other in ((f, o) for f, others in references(stage).items() for o in others):
                if other not in earlier:
                    known = ", ".join(earlier) or "no stage stands before it"
                    raise ConfigError(f"{name}.{field} names no earlier stage: {other!r}", expected=f"one of: {known}")
                wanted, makers = REFERS_TO[field]
                if wanted != earlier[other].MAKES:
                    raise ConfigError(
                        f"{name}.{field} is a stage that makes no {wanted}", where=f"stage {other!r}", expected=makers
                    )
            earlier[name] = stage
        return self


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a setting that has one, several or none."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def references(stage: _Stage) -> dict[str, list[str]]:
    """Field -> names of the earlier stages that it refers to."""
    values = {f: texts(getattr(stage, f, None)) for f in REFERS_TO}
    if len(values["prompts"]) > 1:
        values["prompts"] = ()  # prompts themselves
    found = {f: [t.removeprefix(REFERENCE) for t in own if t.startswith(REFERENCE)] for f, own in values.items()}
    return {f: names for f, names in found.items() if names}


def with_values(value: Any, new: Callable[[str], Any]) -> Any:
    """A setting with one text or several, each replaced."""
    return new(value) if isinstance(value, str) else tuple(map(new, value))
