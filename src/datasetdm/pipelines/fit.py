"""The one training loop: labelled images -> augmented variants -> cached features -> a fitted P-Decoder.

The backbone runs once a variant and never learns. Its features lie in `OUT/work` until the fit is done, and so does a
checkpoint: the same call goes on where it was stopped.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from datasetdm.backbones import Backbone, load_backbone
from datasetdm.decoder.blocks.transformer import upsample
from datasetdm.decoder.model import PDecoder, autocast
from datasetdm.decoder.tasks import NEEDS, TASKS, Outputs, make_task
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.errors import DataError, OutputError
from datasetdm.io.files import occupied, write_json
from datasetdm.io.settings import validated
from datasetdm.pipelines.evaluate import evaluate, read_features
from datasetdm.pipelines.settings import FitConfig
from datasetdm.readers import Reader, read
from datasetdm.records import ANNOTATIONS, Labels, Sample
from datasetdm.training.cache import FeatureCache, by_task, load_batch, target_maps

RULES = 2
"""Raised whenever the same settings begin to give other weights: an unfinished fit of older rules is not gone on with."""

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


def fit(data: str | Reader, out: Path | str, *, backbone: str | Backbone = "mini", **settings: Any) -> PDecoder:
    """Fit a P-Decoder on labelled images and save it in `out`.

    Args:
        data: FORMAT:PATH or an open reader. backbone: a name, a folder, a hub id, or a loaded backbone.
        settings: fields of `FitConfig`.
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
) -> Iterator[FitProgress]:
    """`fit` as a generator that says how far it is. `build` makes the decoder, to fit one of another architecture."""
    config, out = config or FitConfig(), Path(out)
    reader = read(data) if isinstance(data, str) else data
    for name in config.tasks or ():
        make_task(name)
    frozen = load_backbone(backbone) if isinstance(backbone, str) else backbone
    samples = [_needed(s, config.tasks or tuple(TASKS)) for s in reader]
    kept, held = split([s for s in samples if s.annotated], config.held_out, config.seed)
    tasks = _learnable(kept, config.tasks)
    config = config.model_copy(update={"tasks": tasks})
    torch.manual_seed(config.seed)
    decoder = build(frozen, reader.labels, tasks, config.width).to(frozen.device)
    for head in decoder.heads.values():
        head.calibrate(kept)
    recipe = _recipe(kept + held, decoder, config)
    work = _claim(out, recipe)
    cache = FeatureCache(kept, decoder, work, config.variants, config.batch, config.caption_dropout, config.seed)
    for done, total in cache.fill(frozen):
        yield FitProgress("features", done, total)
    cache.measure()
    fitted = yield from _train(cache, held, frozen, config, work)
    _tune(fitted, held, frozen, config.batch)
    _finish(fitted, out, recipe, len(kept), len(held))


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(kept, held out): a random share, at least one of ten or more images; none of fewer."""
    count = max(1, round(share * len(samples))) if share and len(samples) >= 10 else 0
    out = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return [s for i, s in enumerate(samples) if i not in out], [samples[i] for i in sorted(out)]


def _needed(sample: Sample, tasks: Sequence[str]) -> Sample:
    """A sample without the annotations that the tasks do not learn from: all samples stay in memory."""
    found = [k for k in tasks if make_task(k).target(sample) is not None]
    kept = {*found, *(n for k in found for n in NEEDS.get(k, ()))}
    needed = {make_task(k).field for k in kept}
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
        "captions": hashlib.sha256("\n".join(s.caption for s in samples).encode()).hexdigest(),
        "labels": decoder.config.labels.to_json(),
        "backbone": decoder.config.identity,
        "features": asdict(decoder.config.features),
    }
    return json.loads(json.dumps(value))


def _claim(out: Path, recipe: Mapping[str, Any]) -> Path:
    """The work folder of this recipe below `out`; a finished decoder or other files there are an error."""
    work = out / "work"
    mark = work / "recipe.json"
    if out.exists() and not out.is_dir():
        raise OutputError("the output place is a file", where=out, expected="a folder", remedy="choose another --out")
    if mark.exists() and json.loads(mark.read_text()) != recipe:
        raise OutputError(
            "the output folder belongs to another, unfinished fit",
            where=out,
            remedy="choose another --out, or delete it",
        )
    if not mark.exists() and occupied(out):
        raise OutputError(
            "the output folder is not empty", where=out, expected="a new folder", remedy="choose another --out"
        )
    write_json(mark, recipe)
    return work


# ---------------------------------------------------------------------- steps
class _State:
    """Everything that a resumed fit needs, as tensors and numbers."""

    def __init__(self, decoder: PDecoder, config: FitConfig):
        self.decoder, self.average = decoder, copy.deepcopy(decoder).eval()
        self.optimiser = torch.optim.AdamW(decoder.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.step, self.figures = 0, {}

    def save(self, folder: Path) -> None:
        tensors = {}
        for name in ("decoder", "average"):
            tensors |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for i, s in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in s.items()}
        numbers = {"step": str(self.step), "figures": json.dumps(self.figures)}
        save_tensors(folder / "checkpoint.safetensors", tensors, numbers)

    def load(self, folder: Path) -> None:
        from safetensors import safe_open

        path = folder / "checkpoint.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as f:
            meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        self.step, self.figures = int(meta["step"]), json.loads(meta["figures"])
        for name in ("decoder", "average"):
            getattr(self, name).load_state_dict(_below(tensors, f"{name}."))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, "optimiser.").items():
            i, name = key.split(".")
            state.setdefault(int(i), {})[name] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _train(
    cache: FeatureCache, held: Sequence[Sample], backbone: Backbone, config: FitConfig, work: Path
) -> Generator[FitProgress, None, PDecoder]:
    """Steps; returns the averaged weights. They are not chosen by the held-out pictures: ten of them choose by chance."""
    state = _State(cache.decoder, config)
    state.load(work)
    text = cache.text(backbone.device)
    while state.step < config.steps:
        loss = _step(state, cache.files, text, config)
        if state.step % config.evaluate_every == 0 or state.step == config.steps:
            state.figures = _held_out_figures(state.average, held, backbone)
            state.save(work)
        yield FitProgress("steps", state.step, config.steps, loss, state.figures)
    state.average.config = replace(cache.decoder.config, fitted={"held_out_figures": state.figures})
    return state.average


def _step(state: _State, files: Sequence[Path], text: Tensor, config: FitConfig) -> float:
    """One optimiser step on pictures that depend only on the seed and the step's number."""
    rng = np.random.default_rng((config.seed, state.step))
    chosen = [files[i] for i in rng.integers(len(files), size=config.batch)]
    torch.manual_seed(int(rng.integers(2**31)))
    maps, targets = load_batch(chosen, text.device)
    warm, rest = min(1.0, (state.step + 1) / 50), state.step / config.steps
    for group in state.optimiser.param_groups:
        group["lr"] = config.learning_rate * warm * 0.5 * (1 + np.cos(np.pi * rest))
    state.decoder.train()
    with autocast(text.device):
        outputs = state.decoder(maps, text)
    losses = {n: t.loss(state.decoder.heads[n], outputs[n], targets[n]) for n, t in state.decoder.tasks.items()}
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        bad = ", ".join(f"{n} {float(v.detach()):g}" for n, v in losses.items())
        guilty = _guilty(state.decoder, outputs, targets, chosen)
        raise DataError(
            f"the loss is no number at step {state.step}: {bad}",
            where="samples " + ", ".join(sorted({p.stem.rsplit("-", 1)[0] for p in guilty})),
            remedy="the last checkpoint is kept; lower learning_rate, or look at these pictures' labels",
        )
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(state.decoder.parameters(), 1.0)
    state.optimiser.step()
    state.step += 1
    keep = min(0.99, state.step / (10 + state.step))
    with torch.no_grad():
        for a, b in zip(state.average.state_dict().values(), state.decoder.state_dict().values(), strict=True):
            a.lerp_(b, 1 - keep) if a.is_floating_point() else a.copy_(b)
    return float(total.detach())


@torch.no_grad()
def _guilty(
    decoder: PDecoder, outputs: Mapping[str, Outputs], targets: Mapping[str, Outputs], files: Sequence[Path]
) -> list[Path]:
    """The views whose own loss is no number; all of them where that shows in none alone."""
    bad = []
    for i, path in enumerate(files):
        for name, task in decoder.tasks.items():
            alone = ({k: v[i : i + 1] for k, v in maps[name].items()} for maps in (outputs, targets))
            if not torch.isfinite(task.loss(decoder.heads[name], *alone)):
                bad.append(path)
    return bad or list(files)


def _held_out_figures(decoder: PDecoder, held: Sequence[Sample], backbone: Backbone) -> dict[str, float]:
    """Figures as `TASK.FIGURE`; none without held-out pictures."""
    found = evaluate(decoder, backbone, held) if held else {}
    return {f"{task}.{k}": round(v, 4) for task, own in found.items() for k, v in own.items()}


def _tune(decoder: PDecoder, held: Sequence[Sample], backbone: Backbone, batch: int) -> None:
    """Let every head set what it sets on held-out predictions: temperatures, slopes and shifts of confidences."""
    canvas = (decoder.config.side, decoder.config.side)
    outputs: dict[str, list[dict[str, Tensor]]] = {n: [] for n in decoder.tasks}
    targets: dict[str, list[dict[str, Tensor]]] = {n: [] for n in decoder.tasks}
    for start in range(0, len(held), batch):
        chunk = held[start : start + batch]
        f, places = read_features(backbone, chunk, decoder.config.labels)
        with torch.no_grad(), autocast(backbone.device):
            raw = decoder.eval()(f.maps, f.text)
        maps = [target_maps(decoder, s, p) for s, p in zip(chunk, places, strict=True)]
        own = by_task({k: torch.cat([m[k] for m in maps])[:, 0].to(backbone.device) for k in maps[0]})
        for name in decoder.tasks:
            outputs[name].append({k: upsample(v.float(), canvas) for k, v in raw[name].items()})
            targets[name].append(own[name])
    for name, head in decoder.heads.items() if held else ():
        head.tune(outputs[name], targets[name])


def _finish(decoder: PDecoder, out: Path, recipe: Mapping[str, Any], kept: int, held: int) -> None:
    """Save the decoder with its story, then drop the cache."""
    story = {**recipe, "pictures": kept, "held_out_pictures": held, **(decoder.config.fitted or {})}
    decoder.config = replace(decoder.config, fitted=story)
    decoder.save(out)
    shutil.rmtree(out / "work")
