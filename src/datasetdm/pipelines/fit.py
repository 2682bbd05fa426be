"""The one training loop: labelled images -> augmented variants -> cached features -> a fitted P-Decoder.

The backbone runs once per view and never learns. Its features lie in `OUT/work` until the fit is done, and so does a
checkpoint: the same call goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datasetdm.backbones import Backbone, load_backbone
from datasetdm.backbones.words import CutTexts
from datasetdm.decoder.blocks.transformer import upsample
from datasetdm.decoder.inference import read_images
from datasetdm.decoder.model import CONFIG, PDecoder, autocast
from datasetdm.decoder.tasks import TASKS, Tensors, make_task
from datasetdm.errors import DataError, first_names
from datasetdm.io.files import locked, parse_json, writing
from datasetdm.io.settings import validated
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.pipelines.made import made_with
from datasetdm.pipelines.settings import COMPOSED_CAPTION_DROPOUT, FitConfig
from datasetdm.pipelines.unfinished import MARK, WORK, claim, require_folder
from datasetdm.readers import Reader, read
from datasetdm.readers.overview import constant_notes
from datasetdm.records import ANNOTATIONS, Labels, Sample
from datasetdm.training.cache import FeatureCache, Targets, place_target
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)
from datasetdm.transforms import accepted, apply
from datasetdm.transforms.reviews import reviews_of

RULES = 4
"""Raised whenever the same settings begin to give other weights: an unfinished fit of older rules is not gone on with."""

LOCK = ".fit.lock"
WARM_UP = 50
"""Steps in which the learning rate rises."""

MAX_DECAY = 0.99
"""Of the averaged weights: they average over about the last 100 steps."""

MAX_GRADIENT = 1.0
"""Norm at which gradients are clipped."""

MIN_TO_HOLD_OUT = 10
"""Of fewer images none is held out."""

Build = Callable[[Backbone, Labels, Sequence[str], int], PDecoder]
"""A fresh decoder from (backbone, labels, tasks, width)."""


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is: `done` of `total` in `stage`, and the figures known so far."""

    stage: Literal["features", "steps"]
    done: int
    total: int
    loss: float = float("nan")
    held_out: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    """How many images hold each label."""
    """What the user should know of the data."""


def fit(data: str | Reader, out: Path | str, *, backbone: str | Backbone = "mini", **settings: Any) -> PDecoder:
    """Fit a P-Decoder on labelled images and save it in `out`. Reviews of a store are applied, rejected samples are left out.

    Args:
        data: FORMAT:PATH or an open reader.
        backbone: a name, a folder, a hub id, or a loaded backbone.
        settings: fields of `FitConfig`.

    Raises:
        DataError: no labels to learn from, or a loss that is not finite.
        OutputError: `out` holds something else.
    """
    for _ in iter_fit(data, out, backbone=backbone, config=validated(FitConfig, **settings)):
        pass
    return PDecoder.load(out)


def iter_fit(
    data: str | Reader,
    out: Path | str,
    *,
    backbone: str | Backbone = "mini",
    config: FitConfig | None = None,
    build: Build = PDecoder.for_backbone,
) -> Generator[FitProgress]:
    """`fit` as a generator that says how far it is. `build` makes the decoder, to fit one of another architecture."""
    config, out = config or FitConfig(), Path(out)
    reader = read(data) if isinstance(data, str) else data
    for name in config.tasks or ():
        make_task(name)
    frozen = load_backbone(backbone) if isinstance(backbone, str) else backbone
    reviewed = apply(reader, reader.labels, reviews_of(reader))[0]
    samples = [_needed(s, config.tasks or tuple(TASKS)) for s in accepted(reviewed)]
    kept, held = split([s for s in samples if s.annotated], config.held_out, config.seed)
    tasks = _learnable(kept, config.tasks)
    composed = sum(s.prompt is not None and s.prompt.composed for s in kept + held)
    dropout = config.caption_dropout
    if dropout is None:
        dropout = COMPOSED_CAPTION_DROPOUT if 2 * composed > len(kept + held) else 0.0
    config = config.model_copy(update={"tasks": tasks, "caption_dropout": dropout})
    torch.manual_seed(config.seed)
    decoder = build(frozen, reader.labels, tasks, config.width).to(frozen.device)
    decoder.config = replace(decoder.config, unseen=unseen_labels(kept, reader.labels))
    for head in decoder.heads.values():
        head.fit_statistics(kept)
    recipe = _recipe(kept + held, decoder, config)
    require_folder(out)
    with locked(out / LOCK, "decoder"):
        if (out / WORK).is_dir() and _fitted(out).items() >= recipe.items():  # stopped while it cleaned up
            with writing(out):
                shutil.rmtree(out / WORK)
            return
        work = claim(out, recipe, "fit")
        cache = FeatureCache(kept, decoder, work, config.variants, config.batch, dropout, config.seed)
        counts = Counter(reader.labels.names[i] for s in kept + held for i in s.annotations.labels_in())
        semantic = any(s.semantic is not None for s in kept)
        notes = [*_caption_notes(kept + held, frozen, composed, dropout), *constant_notes(counts, semantic)]
        if unseen := first_names(decoder.config.unseen):
            notes.append(f"labels that no fitted image shows, and that are found by their words alone: {unseen}")
        for done, total in cache.fill(frozen):
            yield FitProgress("features", done, total, notes=notes, labels=counts)
        cache.measure()
        fitted = yield from _train(cache, held, frozen, config, work)
        _calibrate(fitted, held, frozen, config.batch, (True, False) if 2 * composed > len(kept + held) else (True,))
        _finish(fitted, out, {**recipe, "made": made_with(frozen)}, len(kept), len(held))


def split(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(kept, held out): a random fraction, at least one of `MIN_TO_HOLD_OUT` or more images; none of fewer."""
    count = max(1, round(fraction * len(samples))) if fraction and len(samples) >= MIN_TO_HOLD_OUT else 0
    out = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return [s for i, s in enumerate(samples) if i not in out], [samples[i] for i in sorted(out)]


def unseen_labels(samples: Sequence[Sample], labels: Labels) -> tuple[str, ...]:
    """Names of the labels that no sample shows; none where the samples show no label at all, as those of depth alone."""
    shown = {i for s in samples for i in s.annotations.labels_in()}
    return tuple(name for i, name in enumerate(labels.names) if i not in shown) if shown else ()


def _caption_notes(samples: Sequence[Sample], backbone: Backbone, composed: int, dropout: float) -> list[str]:
    """What is to be known of the captions under which images are read."""
    cut = CutTexts(backbone.kept_texts, "captions")
    for sample in samples:
        cut.add(sample.caption)
    if not composed:
        return cut.notes()
    return [
        f"{composed} of {len(samples)} images have no caption of their own, only one composed of their labels; "
        f"caption dropout {dropout:g}: that fraction of the copies is read without a caption",
        *cut.notes(),
    ]


def _needed(sample: Sample, tasks: Sequence[str]) -> Sample:
    """A sample without the annotations that the tasks do not learn from: all samples stay in memory."""
    learnt = (t for t in map(make_task, tasks) if t.target(sample) is not None)
    needed = {field for t in learnt for field in (t.field, *t.needs)}
    return replace(sample, **{k: None for k in ANNOTATIONS if k not in needed})


def _learnable(samples: Sequence[Sample], asked: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks asked for, or if None all that some sample has a label of."""
    found = [n for n in TASKS if any(getattr(s, make_task(n).field) is not None for s in samples)]
    for name in asked or ():
        if name not in found:
            raise DataError(
                f"no sample has a {name} label", expected=f"{name} labels", remedy=f"leave {name} out of --tasks"
            )
    if not found:
        raise DataError("no sample has a label to learn from", expected=f"labels of one of: {', '.join(TASKS)}")
    return tuple(asked or found)


def _recipe(samples: Sequence[Sample], decoder: PDecoder, config: FitConfig) -> dict[str, Any]:
    """All that the weights depend on, JSON-ready."""
    value = {
        "rules": RULES,
        "config": config.model_dump(),
        "data": hashlib.sha256("".join(s.key + s.digest() for s in samples).encode()).hexdigest(),
        "captions": hashlib.sha256(json.dumps([_asked(s) for s in samples]).encode()).hexdigest(),
        "labels": decoder.config.labels.to_json(),
        "backbone": decoder.config.identity,
        "features": asdict(decoder.config.features),
    }
    return json.loads(json.dumps(value))


def _asked(sample: Sample) -> tuple[str, Sequence[str], str] | None:
    """What a prompt says of the image."""
    return None if sample.prompt is None else (sample.prompt.text, sample.prompt.labels, sample.prompt.origin)


def _fitted(out: Path) -> Mapping[str, Any]:
    """What the decoder that is in `out` says of its fit; empty if there is none."""
    try:
        fitted = parse_json((out / CONFIG).read_bytes())["fitted"]
        return fitted if isinstance(fitted, dict) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


# ---------------------------------------------------------------------- steps
@dataclass
class _Training:
    """What a fit that goes on needs."""

    learner: Learner
    average: WeightAverage
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def resumed(cls, decoder: PDecoder, config: FitConfig, checkpoint: Path) -> _Training:
        """From the checkpoint, if there is one."""
        optimiser = torch.optim.AdamW(decoder.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        own = cls(Learner(decoder, optimiser, MAX_GRADIENT), WeightAverage(decoder))
        if (found := load_checkpoint(checkpoint, own.average, {"decoder": own.learner})) is not None:
            own.step, own.figures = found.numbers["step"], found.numbers["figures"]
        return own

    def save(self, checkpoint: Path) -> None:
        numbers = {"step": self.step, "figures": self.figures}
        save_checkpoint(checkpoint, self.average, {"decoder": self.learner}, numbers)


def _train(
    cache: FeatureCache, held: Sequence[Sample], backbone: Backbone, config: FitConfig, work: Path
) -> Generator[FitProgress, None, PDecoder]:
    """Steps; returns the averaged weights. The last ones: ten held-out images would choose a step by chance."""
    checkpoint = work / "checkpoint.safetensors"
    state = _Training.resumed(cache.decoder, config, checkpoint)
    average: Any = state.average.module
    while state.step < config.steps:
        loss = _step(state, cache, config, backbone.device)
        if state.step % config.evaluate_every == 0 or state.step == config.steps:
            state.figures = _held_out_figures(average, held, backbone)
            state.save(checkpoint)
        yield FitProgress("steps", state.step, config.steps, loss, state.figures)
    average.config = replace(cache.decoder.config, fitted={"held_out_figures": state.figures})
    return average


def _step(state: _Training, cache: FeatureCache, config: FitConfig, device: torch.device) -> float:
    """One optimiser step on views that depend only on the seed and the step's number."""
    decoder = cache.decoder
    rng = np.random.default_rng((config.seed, state.step))
    chosen = rng.integers(len(cache.files), size=config.batch).tolist()
    torch.manual_seed(int(rng.integers(2**31)))
    inputs, targets = cache.load(chosen, device)
    decoder.train()
    with autocast(device):
        outputs = decoder(inputs)
    losses = {n: t.loss(decoder.heads[n], outputs[n], targets[n]) for n, t in decoder.tasks.items()}
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        values = ", ".join(f"{n} {float(v.detach()):g}" for n, v in losses.items())
        files = (cache.files[chosen[i]] for i in _not_finite(decoder, outputs, targets, len(chosen)))
        raise DataError(
            f"the loss is not finite at step {state.step}: {values}",
            where="samples " + ", ".join(sorted({p.stem.rsplit("-", 1)[0] for p in files})),
            remedy="the last checkpoint is kept; lower learning_rate, or look at these images' labels",
        )
    rate = warm_up(state.step, WARM_UP) * cosine(state.step / config.steps)
    state.learner.step(total, config.learning_rate * rate)
    state.step += 1
    state.average.update(average_decay(state.step, MAX_DECAY))
    return float(total.detach())


@torch.no_grad()
def _not_finite(decoder: PDecoder, outputs: Mapping[str, Tensors], targets: Targets, count: int) -> list[int]:
    """The rows of a batch whose own loss is not finite; all of them where that shows in none alone."""

    def finite(i: int) -> bool:
        losses = (
            t.loss(decoder.heads[n], outputs[n][i : i + 1], targets[n][i : i + 1]) for n, t in decoder.tasks.items()
        )
        return all(bool(torch.isfinite(loss)) for loss in losses)

    return [i for i in range(count) if not finite(i)] or list(range(count))


def _held_out_figures(decoder: PDecoder, held: Sequence[Sample], backbone: Backbone) -> dict[str, float]:
    """Figures as `TASK.FIGURE`; none without held-out images."""
    found = evaluate(decoder, backbone, held) if held else {}
    return {f"{task}.{k}": round(v, 4) for task, own in found.items() for k, v in own.items()}


def _calibrate(
    decoder: PDecoder, held: Sequence[Sample], backbone: Backbone, batch: int, captions: Sequence[bool]
) -> None:
    """Let every head set what it sets on held-out predictions: temperatures, slopes and shifts of confidences. Images whose
    captions were composed of their labels are read under them, as generated images are, and without them, as others are."""
    canvas, device = (decoder.config.side, decoder.config.side), backbone.device
    outputs: dict[str, list[Tensors]] = {n: [] for n in decoder.tasks}
    targets: dict[str, list[Tensors]] = {n: [] for n in decoder.tasks}
    for start, with_captions in product(range(0, len(held), batch), captions):
        chunk = held[start : start + batch]
        inputs, places = read_images(backbone, chunk, decoder.config.labels, with_captions)
        with torch.no_grad(), autocast(device):
            raw = decoder.eval()(inputs)
        for name, task in decoder.tasks.items():
            rows = [place_target(task, s, p) for s, p in zip(chunk, places, strict=True)]
            outputs[name].append(raw[name].map(lambda x: upsample(x.float(), canvas)))
            targets[name].append(type(rows[0]).stack(rows).to(device))
    for name, head in decoder.heads.items() if held else ():
        head.calibrate(outputs[name], targets[name])


def _finish(decoder: PDecoder, out: Path, recipe: Mapping[str, Any], kept: int, held: int) -> None:
    """Save the decoder with its story, then drop the cache."""
    story = {**recipe, "images": kept, "held_out_images": held, **(decoder.config.fitted or {})}
    decoder.config = replace(decoder.config, fitted=story)
    decoder.save(out)
    work = out / "work"
    with writing(out):
        for path in sorted(work.iterdir(), key=lambda p: p.name == MARK):  # the mark last: a kill leaves no stranger
            path.unlink()
        work.rmdir()
