"""The one training loop: labelled images -> augmented variants -> cached features -> a fitted P-Decoder.

The backbone runs once a variant and never learns. Its features lie in `OUT/work` until the fit is done, and so does a
checkpoint: the same call goes on where it was stopped.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from datasetdm.augment import augment
from datasetdm.backbones import Backbone, load_backbone
from datasetdm.decoder.transformer import upsample
from datasetdm.errors import DataError, OutputError
from datasetdm.evaluate import evaluate
from datasetdm.files import atomic, safe_name, write_json, writing
from datasetdm.images import Placement, stack_images
from datasetdm.model import PDecoder, autocast
from datasetdm.readers import Reader, read
from datasetdm.settings import validated
from datasetdm.tasks import make_task
from datasetdm.types import Sample


class FitConfig(BaseModel):
    """Settings of a fit.

    variants: augmented copies of every image (the first is the image itself). held_out: share of the images that only
    chooses the checkpoint and the confidences. batch counts pictures. width: channels of the decoder's coarse levels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[str, ...] = ("semantic", "depth")
    steps: int = Field(600, ge=1)
    batch: int = Field(16, ge=1)
    variants: int = Field(6, ge=1)
    held_out: float = Field(0.1, ge=0, lt=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    width: int = Field(128, ge=32)
    evaluate_every: int = Field(100, ge=1)
    caption_dropout: float = Field(0.0, ge=0, le=1)
    seed: int = 0


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is: `done` of `total` in `stage`, and the figures known so far."""

    stage: Literal["features", "steps"]
    done: int
    total: int
    loss: float = float("nan")
    held_out: Mapping[str, float | int] = field(default_factory=dict)


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
    data: str | Reader, out: Path | str, *, backbone: str | Backbone = "mini", config: FitConfig | None = None
) -> Iterator[FitProgress]:
    """`fit` as a generator that says how far it is."""
    config, out = config or FitConfig(), Path(out)
    reader = read(data) if isinstance(data, str) else data
    frozen = load_backbone(backbone) if isinstance(backbone, str) else backbone
    for name in config.tasks:
        make_task(name)
    samples = _usable(list(reader), config.tasks)
    kept, held = split(samples, config.held_out, config.seed)
    recipe = _recipe(samples, frozen, config)
    work = _claim(out, recipe)
    torch.manual_seed(config.seed)
    decoder = PDecoder.for_backbone(frozen, reader.labels, config.tasks, config.width)
    for head in decoder.heads.values():
        head.calibrate(kept)
    files = yield from _cache_features(kept, frozen, decoder, config, work)
    _measure(decoder, files)
    best = yield from _train(decoder, files, held, frozen, config, work)
    _tune(best, held, frozen)
    _finish(best, out, recipe, len(kept), len(held))


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(kept, held out): a random share, at least one of ten or more images; none of fewer."""
    count = max(1, round(share * len(samples))) if share and len(samples) >= 10 else 0
    out = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return [s for i, s in enumerate(samples) if i not in out], [samples[i] for i in sorted(out)]


def _usable(samples: list[Sample], tasks: Sequence[str]) -> list[Sample]:
    for name in tasks:
        if not any(make_task(name).target(s) is not None for s in samples):
            raise DataError(
                f"no sample has a {name} label", expected=f"{name} labels", remedy=f"leave {name} out of --tasks"
            )
    return [s for s in samples if any(make_task(n).target(s) is not None for n in tasks)]


def _recipe(samples: Sequence[Sample], backbone: Backbone, config: FitConfig) -> dict[str, Any]:
    data = hashlib.sha256("".join(s.key + s.digest() for s in samples).encode()).hexdigest()
    captions = hashlib.sha256("\n".join(_caption(s) for s in samples).encode()).hexdigest()
    features = asdict(backbone.config)
    value = dict(
        config=config.model_dump(), data=data, captions=captions, backbone=backbone.identity, features=features
    )
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
    if not mark.exists() and out.exists() and any(out.iterdir()):
        raise OutputError(
            "the output folder is not empty", where=out, expected="a new folder", remedy="choose another --out"
        )
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    write_json(mark, recipe)
    return work


def _caption(sample: Sample) -> str:
    return sample.prompt.text if sample.prompt else ""


# ---------------------------------------------------------------------- features
def _cache_features(
    samples: Sequence[Sample], backbone: Backbone, decoder: PDecoder, config: FitConfig, work: Path
) -> Generator[FitProgress, None, list[Path]]:
    """One file a variant of a picture: its features and targets. Returns the files."""
    jobs = [(v, i) for v in range(config.variants) for i in range(len(samples))]
    files = [work / f"{i:05d}-{safe_name(samples[i].key)}-{v:02d}.safetensors" for v, i in jobs]
    finest = decoder.config.side // min(decoder.pixels.widths)
    for start in range(0, len(jobs), config.batch):
        chunk = range(start, min(start + config.batch, len(jobs)))
        if not all(files[k].exists() for k in chunk):
            prepared = [_variant(samples[jobs[k][1]], *jobs[k], decoder, config, finest) for k in chunk]
            images = torch.cat([p[0] for p in prepared])
            f = backbone.features(backbone.encode(images), [p[2] for p in prepared], decoder.config.labels.names)
            for row, k in enumerate(chunk):
                tensors = {f"map.{n}": x[row].half().cpu() for n, x in f.maps.items()} | prepared[row][1]
                with atomic(files[k]) as path:
                    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
            with atomic(work / "text.safetensors") as path:
                save_file({"text": f.text.float().cpu().contiguous()}, path)
        yield FitProgress("features", chunk.stop, len(jobs))
    return files


def _variant(
    sample: Sample, variant: int, index: int, decoder: PDecoder, config: FitConfig, finest: int
) -> tuple[Tensor, dict[str, Tensor], str]:
    """One augmented picture f[1 3 H W], its target maps f[h w] at the decoder's finest stride, and its caption."""
    place = Placement.fit(sample.size, (decoder.config.side, decoder.config.side))
    maps = {}
    for name, task in decoder.tasks.items():
        own = task.target(sample)
        for key, blank in task.blank().items():
            values = np.full(sample.size, blank, np.float32) if own is None else own[key]
            maps[f"target.{name}.{key}"] = place.map(values, blank)
    image = place.image(sample.image)
    rng = np.random.default_rng((config.seed, variant, index))
    if variant:
        image, maps, zoom = augment(image, maps, seed=int(rng.integers(2**31)))
        for name, task in decoder.tasks.items():
            for key in task.blank():
                maps[f"target.{name}.{key}"] = task.zoomed(key, maps[f"target.{name}.{key}"], zoom)
    small = {
        k: torch.nn.functional.interpolate(m, (finest, finest), mode="nearest-exact")[0, 0] for k, m in maps.items()
    }
    caption = "" if rng.random() < config.caption_dropout else _caption(sample)
    return image, small, caption


def _load_batch(files: Sequence[Path]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Feature maps f[b ...] and targets f[b h w] by task."""
    rows = [load_file(f) for f in files]
    stacked = {k: torch.stack([r[k] for r in rows]) for k in rows[0]}
    maps = {k.removeprefix("map."): v for k, v in stacked.items() if k.startswith("map.")}
    targets: dict[str, dict[str, Tensor]] = {}
    for key, value in stacked.items():
        if key.startswith("target."):
            _, task, name = key.split(".", 2)
            targets.setdefault(task, {})[name] = value
    return maps, targets


def _measure(decoder: PDecoder, files: Sequence[Path]) -> None:
    """Standardise every feature over (at most 64 of) the fitting pictures."""
    rows = [load_file(f) for f in files[:: max(1, len(files) // 64)]]
    for name, module in decoder.normalisers():
        module.measure([r[f"map.{name}"] for r in rows])


# ---------------------------------------------------------------------- steps
class _State:
    """Everything that a resumed fit needs, as tensors and numbers."""

    def __init__(self, decoder: PDecoder, config: FitConfig):
        self.decoder, self.average = decoder, copy.deepcopy(decoder).eval()
        self.best = copy.deepcopy(self.average)
        self.optimiser = torch.optim.AdamW(decoder.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.step, self.score, self.figures = 0, float("-inf"), {}

    def save(self, folder: Path) -> None:
        tensors = {}
        for name in ("decoder", "average", "best"):
            tensors |= {f"{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for i, s in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in s.items()}
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        numbers = {"step": str(self.step), "score": str(self.score), "figures": json.dumps(self.figures)}
        with atomic(folder / "checkpoint.safetensors") as path:
            save_file(tensors, path, metadata=numbers)

    def load(self, folder: Path) -> None:
        from safetensors import safe_open

        path = folder / "checkpoint.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as f:
            meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
        self.step, self.score, self.figures = int(meta["step"]), float(meta["score"]), json.loads(meta["figures"])
        for name in ("decoder", "average", "best"):
            getattr(self, name).load_state_dict(_below(tensors, f"{name}."))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, "optimiser.").items():
            i, name = key.split(".")
            state.setdefault(int(i), {})[name] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _train(
    decoder: PDecoder, files: Sequence[Path], held: Sequence[Sample], backbone: Backbone, config: FitConfig, work: Path
) -> Generator[FitProgress, None, PDecoder]:
    """Steps; returns the averaged weights that did best on the held-out pictures (the last, if there are none)."""
    state = _State(decoder, config)
    state.load(work)
    text = load_file(work / "text.safetensors")["text"]
    while state.step < config.steps:
        loss = _step(state, files, text, config)
        if state.step % config.evaluate_every == 0 or state.step == config.steps:
            _compare(state, held, backbone)
            state.save(work)
        yield FitProgress("steps", state.step, config.steps, loss, state.figures)
    state.best.config = replace(decoder.config, fitted={"held_out_figures": state.figures})
    return state.best


def _step(state: _State, files: Sequence[Path], text: Tensor, config: FitConfig) -> float:
    """One optimiser step on pictures that depend only on the seed and the step's number."""
    rng = np.random.default_rng((config.seed, state.step))
    chosen = [files[i] for i in rng.integers(len(files), size=config.batch)]
    torch.manual_seed(int(rng.integers(2**31)))
    maps, targets = _load_batch(chosen)
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
        raise DataError(
            f"the loss is no number at step {state.step}: {bad}",
            where="samples " + ", ".join(sorted({p.stem.rsplit("-", 1)[0] for p in chosen})),
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


def _compare(state: _State, held: Sequence[Sample], backbone: Backbone) -> None:
    """Keep the averaged weights if they do better on the held-out pictures: mean over tasks of the chosen figures."""
    scores, figures = [], {}
    for name, own in (evaluate(state.average, backbone, held) if held else {}).items():
        figure, more = state.average.tasks[name].meter().better
        scores.append(own[figure] if more else -own[figure])
        figures |= {f"{name}.{k}": round(v, 4) for k, v in own.items()}
    score = float(np.mean(scores)) if scores else float(state.step)
    if score >= state.score:
        state.score, state.figures = score, figures | {"step": state.step}
        state.best.load_state_dict(state.average.state_dict())


def _tune(decoder: PDecoder, held: Sequence[Sample], backbone: Backbone) -> None:
    """Let every head set what it sets on held-out predictions (temperatures)."""
    if not held:
        return
    canvas = (decoder.config.side, decoder.config.side)
    places = [Placement.fit(s.size, canvas) for s in held]
    latents = backbone.encode(stack_images([s.image for s in held], places))
    f = backbone.features(latents, [_caption(s) for s in held], decoder.config.labels.names)
    with torch.no_grad(), autocast(latents.device):
        outputs = decoder.eval()(f.maps, f.text)
    for name, task in decoder.tasks.items():
        targets: dict[str, Tensor] = {}
        for key, blank in task.blank().items():
            maps = [
                torch.full((1, 1, *canvas), blank) if (own := task.target(s)) is None else p.map(own[key], blank)
                for s, p in zip(held, places, strict=True)
            ]
            targets[key] = torch.cat(maps)[:, 0]
        full = {k: upsample(v.float(), canvas) for k, v in outputs[name].items()}
        decoder.heads[name].tune([full], [targets])


def _finish(decoder: PDecoder, out: Path, recipe: Mapping[str, Any], kept: int, held: int) -> None:
    """Save the decoder with its story, then drop the cache."""
    story = {**recipe, "pictures": kept, "held_out_pictures": held, **(decoder.config.fitted or {})}
    decoder.config = replace(decoder.config, fitted=story)
    decoder.save(out)
    shutil.rmtree(out / "work")
