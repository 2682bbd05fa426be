"""What a recipe would do in a folder: which stages are reused, continued or run, and how long that takes.

Every stage that a recipe made carries a mark with the inputs that it was made from: its settings, and the content of what it
read. A stage with the same inputs is reused. A store whose only change is a larger count, or more images, is continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from datasetdm.errors import DataError, OutputError, StoreError, unknown_name
from datasetdm.exporters import EXPORTERS
from datasetdm.io.digests import digest, file_digest, files_digest
from datasetdm.io.files import occupied, parse_json, write_json
from datasetdm.io.remote import Place, as_place
from datasetdm.pipelines.filter import make_filters
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.prompts import open_prompts
from datasetdm.recipe.data import export_transforms, open_data
from datasetdm.recipe.estimate import estimate, image_side
from datasetdm.recipe.places import require_growth
from datasetdm.recipe.runners import CHECKS
from datasetdm.recipe.schema import (
    GRAMMAR,
    REFERENCE,
    REFERS_TO,
    RESUMABLE,
    DataOptions,
    ExportStage,
    FitStage,
    GenerateStage,
    PromptsStage,
    Recipe,
    Stage,
    TrainStage,
    references,
    texts,
    with_values,
)
from datasetdm.store.quality import QUALITY
from datasetdm.store.reviews import REVIEWS
from datasetdm.transforms import Transform, transform_from_json

MARK = ".stage.json"
"""The mark's name inside a stage's folder; beside a file it is `.NAME.stage.json`."""
SUFFIXES = {"file": ".html", "prompts": ".jsonl"}
"""What a stage makes, if that is a file -> its suffix."""

GROWS = {"generate": ("count", "target"), "annotate": ("content",), "prompts": ("count",)}
"""Kind of stage -> the inputs of which one may change while the store is continued."""

UNFINISHED = "unfinished"

Action = Literal["reuse", "continue", "run", "run again"]


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Args:
        name: of the stage.
        stage: the stage, its references replaced by the places of the other stages.
        out: where it writes.
        inputs: all that its output depends on, JSON-ready, contents by hash.
        action: what is to be done.
        why: what changed since it was made, for those that run again or are continued.
        mark: what it left here before.
        count: of images, if it is known.
        left: how many of them are left to make, if it is known.
        side: of the images in pixels, if it is known.
        seconds, bytes: what is left to do; None where nothing is known.
    """

    name: str
    stage: Stage
    out: Path
    inputs: Mapping[str, Any]
    action: Action
    why: str = ""
    mark: Mapping[str, Any] = field(default_factory=dict)
    count: int | None = None
    left: int | None = None
    side: int | None = None
    seconds: float | None = None
    bytes: float | None = None


Digests = dict[tuple[Any, ...], Any]
"""What was read -> what was found: SHA-256 and number of samples of data, the origin of a transform that reads some."""


def plan(recipe: Recipe, out: Path, without_data: bool = False, digests: Digests | None = None) -> list[Step]:
    """The steps of a recipe in the folder `out`, in their order.

    Args:
        recipe: what is to be done.
        out: where.
        without_data: a stage whose data are not there is planned all the same, and `why` says what it lacks.
        digests: what an earlier call found; data that no stage makes, also those that filters compare with, are read once for
            all calls that share it.

    Raises:
        OutputError: a stage's place holds what no recipe made, or a store with reviews that would have to be made again.
        DataError, StoreError, ConfigError: data or prompts that are missing or not what they say.
    """
    steps: dict[str, Step] = {}
    digests = {} if digests is None else digests
    for name, stage in recipe.stages.items():
        place = out / (name + SUFFIXES.get(stage.MAKES, ""))
        earlier = {f: [steps[other] for other in others] for f, others in references(stage).items()}
        made = {REFERENCE + s.name: str(s.out) for own in earlier.values() for s in own}
        places = {f: with_values(getattr(stage, f), lambda v, made=made: made.get(v, v)) for f in earlier}
        resolved = stage.model_copy(update=places)
        _check_names(stage)
        try:
            inputs, count = _inputs(stage, earlier, digests)
            step = _decide(name, resolved, place, inputs, {f: own[0].name for f, own in earlier.items()})
        except (DataError, StoreError) as e:
            if not without_data:
                raise
            count = next((n for f in ("count", "limit") if (n := getattr(stage, f, None)) is not None), None)
            step = Step(name, resolved, place, {}, "run", f"lacks data: {e.what} ({e.where})")
        steps[name] = _estimated(step, count, image_side(stage, earlier))
    return list(steps.values())


def _check_names(stage: Stage) -> None:
    """Raises ConfigError for a format, transform, split or student that the stage would refuse later."""
    if isinstance(stage, TrainStage):
        CHECKS.load(stage.kind)(stage)
    for transform in (*getattr(stage, "transforms", ()), *getattr(stage, "synthetic_transforms", ())):
        transform_from_json(transform)
    if isinstance(stage, ExportStage):
        export_transforms(stage)
        if stage.format not in EXPORTERS:
            raise unknown_name("format", stage.format, EXPORTERS)


def _estimated(step: Step, count: int | None, side: int | None) -> Step:
    """The step with what is left to do: nothing of one that is reused, the new images of one that is continued."""
    if step.action == "reuse":
        return replace(step, count=count, left=0, side=side, seconds=0.0, bytes=0.0)
    new = count
    if step.action == "continue" and count is not None and step.mark.get("done"):
        new = max(0, count - step.mark.get("count", 0))
    seconds, size = estimate(step.stage, new, side, step.mark)
    return replace(step, count=count, left=new, side=side, seconds=seconds, bytes=size)


def _decide(name: str, stage: Stage, out: Path, inputs: Mapping[str, Any], earlier: Mapping[str, str]) -> Step:
    mark = read_mark(out)
    if out.is_symlink() and (not out.exists() or (mark and mark["inputs"] != inputs)):
        raise OutputError(
            f"stage {name!r} must be made, but its place is a symbolic link",
            where=out,
            expected="a place of its own, which the recipe can rename",
            remedy="delete the link, or choose another --out",
        )
    if not mark:
        if out.exists() and (not out.is_dir() or occupied(out)):
            raise OutputError(
                f"stage {name!r} would write where something is already",
                where=out,
                expected="a place that is free, or that this recipe wrote",
                remedy="choose another --out, or move it away",
            )
        return Step(name, stage, out, inputs, "run")
    old, grows = mark["inputs"], GROWS.get(stage.kind, ())
    different = sorted(k for k in {*old, *inputs} if old.get(k) != inputs.get(k))
    if not different and not mark["done"] and stage.MAKES not in RESUMABLE:
        return Step(name, stage, out, inputs, "run again", UNFINISHED, mark)
    if not different:
        return Step(name, stage, out, inputs, "reuse" if mark["done"] else "continue", UNFINISHED, mark)
    why = ", ".join(
        f"stage {earlier[k]} changes" if k in earlier else _difference(k, old.get(k), inputs.get(k)) for k in different
    )
    if len(different) == 1 and different[0] in grows:
        if isinstance(stage, GenerateStage) and stage.count is not None:
            require_growth(out, stage.count)
        return Step(name, stage, out, inputs, "continue", why, mark)
    return Step(name, stage, out, inputs, "run again", why, mark)


def _difference(key: str, old: object, new: object) -> str:
    texts = [json.dumps(v) for v in (old, new)]
    return f"{key} was {texts[0]}, is {texts[1]}" if max(map(len, texts)) < 40 else f"{key} changed"


def _inputs(stage: Stage, earlier: Mapping[str, Sequence[Step]], digests: Digests) -> tuple[dict[str, Any], int | None]:
    """All that the output depends on (settings but for those of the device, hashes of what is read, also by
    transforms), and how many images."""
    count: int | None = getattr(stage, "count", None)
    values = stage.model_dump(mode="json", exclude=set(stage.HOW))
    for name, steps in earlier.items():
        made = {REFERENCE + s.name: digest(dict(s.inputs)) + _made_digest(s) for s in steps}
        values[name] = with_values(getattr(stage, name), lambda v, made=made: made.get(v, v))
    for name, options in _data_options(stage).items():
        found = [
            data_digest(v, options, _seed(stage), digests)
            for v in texts(getattr(stage, name))
            if not v.startswith(REFERENCE)
        ]
        if found:
            values["content" if name == "data" else f"{name}_content"] = [content for content, _ in found]
        if name == "data":
            counts = [*(s.count for s in earlier.get("data", ())), *(n for _, n in found)]
            count = sum(n or 0 for n in counts) if counts and None not in counts else count
    values = {k: _plain(v) if k in REFERS_TO or k.endswith("content") else v for k, v in values.items()}
    if (limit := getattr(stage, "limit", None)) is not None and count is not None:
        count = min(limit, count)
    for name in ("decoder", "backbone", "model", "encoder"):
        if name not in earlier and (place := values.get(name)) and Path(place).is_dir():
            values[name] = files_digest(Path(place))
    if "lora" in values:
        values["lora"] = [file_digest(Path(f)) for f in values["lora"]]
    if getattr(stage, "target", None) is None:
        values.pop("round", None)
    if isinstance(stage, FilterConfig):
        values = {k: v for k, v in values.items() if k not in FilterConfig.model_fields}
        if filters := make_filters(stage):
            values["filters"] = _origins(filters, digests)
    for name in ("transforms", "synthetic_transforms"):
        if name in values:
            values[name] = _origins([transform_from_json(t) for t in values[name]], digests)
    if stage.kind == "generate" and "prompts" not in earlier and stage.prompts != (GRAMMAR,):
        values["prompts"] = open_prompts(stage.prompts).origin()
    return values, getattr(stage, "count", count)


def _origins(transforms: Sequence[Transform], digests: Digests) -> list[dict[str, Any]]:
    """All that each transform's output depends on."""
    found = []
    for transform in transforms:
        key = (transform.name, digest(transform.to_json()))
        if key not in digests:
            digests[key] = transform.origin()
        found.append(digests[key])
    return found


def _data_options(stage: Stage) -> dict[str, DataOptions]:
    """Setting that names data -> how these are read."""
    own = {"data": stage if isinstance(stage, DataOptions) else DataOptions()} if getattr(stage, "data", None) else {}
    if isinstance(stage, TrainStage):
        own["synthetic"] = DataOptions(on_error=stage.on_error, limit=stage.synthetic_limit)
        own["self_training"] = DataOptions(on_error=stage.on_error)
    return own


def _plain(value: Any) -> Any:
    """One value of several if it is alone, and nothing of none: the same inputs whether a setting can have several or not."""
    if not isinstance(value, list | tuple):
        return value
    return list(value) if len(value) > 1 else next(iter(value), None)


def _made_digest(step: Step) -> str:
    """SHA-256 of what a stage made beyond its inputs: the reviews of a store, the prompts of a language model."""
    if step.stage.MAKES != "prompts":
        return _reviews_digest(step.out)
    stays = step.action == "reuse" or step.why == UNFINISHED
    return file_digest(step.out) if stays and step.out.is_file() else ""


def _reviews_digest(store: Place) -> str:
    """SHA-256 of what people and filters said of a finished store's samples; empty if nobody did."""
    found = [p for p in (store / REVIEWS, store / QUALITY) if p.exists()]
    return "" if not found else digest({p.name: file_digest(p) for p in found})


def _seed(stage: Stage) -> int:
    """Of the choice of samples: these stages choose by their own seed."""
    return stage.seed if isinstance(stage, FitStage | TrainStage | PromptsStage) else 0


def data_digest(data: str, options: DataOptions, seed: int, digests: Digests) -> tuple[str, int]:
    """SHA-256 of the labels and of all that the chosen samples say, in their order, reviews of a store included; and how many."""
    place = (data, options.images, options.on_error, options.limit, options.balance, seed)
    if place not in digests:
        digests[place] = _read_digest(data, options, seed)
    content, count = digests[place]
    return content + _reviews_digest(as_place(data.removeprefix("store:"))), count


def _read_digest(data: str, options: DataOptions, seed: int) -> tuple[str, int]:
    reader = open_data(data, options.model_copy(update={"transforms": ()}), seed).reader
    h, keys = hashlib.sha256(digest(reader.labels.to_json()).encode()), 0
    for sample in reader:
        quality = {"scores": dict(sample.quality.scores), "reasons": sample.quality.reasons}
        prompt = None if (own := sample.prompt) is None else [own.text, own.labels, own.origin]
        h.update(digest([sample.key, sample.digest(), prompt, sample.split, quality]).encode())
        keys += 1
    return h.hexdigest(), keys


# ---------------------------------------------------------------------- marks
def mark_path(out: Path) -> Path:
    """Where the mark of an output lies: inside a folder, beside a file."""
    return out.with_name(f".{out.name}{MARK}") if out.suffix in SUFFIXES.values() else out / MARK


def read_mark(out: Path) -> dict[str, Any]:
    """The mark of an output that a recipe made; empty if there is none, or the output is gone or was replaced."""
    try:
        mark = parse_json(mark_path(out).read_bytes())
        same = out.is_dir() or hashlib.sha256(out.read_bytes()).hexdigest() == mark["sha256"]
        return mark if same and isinstance(mark["inputs"], dict) and "done" in mark else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_mark(step: Step, done: bool, **measured: Any) -> None:
    """Leave the mark of a stage, with what was measured: `seconds`, `count`, `bytes`."""
    content = {} if step.out.is_dir() else {"sha256": hashlib.sha256(step.out.read_bytes()).hexdigest()}
    write_json(
        mark_path(step.out), {"stage": step.name, "inputs": dict(step.inputs), "done": done, **content, **measured}
    )
