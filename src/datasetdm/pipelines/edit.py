"""Existing images with other things in them: the pixels of some labels are sampled anew, the others stay, and the P-Decoder
labels the result.

    sample -> latents, region, prompt --masked latent blending--> latents -> image and features -> annotations -> sample
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones import Backbone, RunOptions
from datasetdm.backbones.blending import Kept
from datasetdm.backbones.canvas import Placement, stack_images, to_uint8
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.errors import ConfigError
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import EditConfig
from datasetdm.pipelines.stream import CHECKED, Keys, Source, other_data
from datasetdm.prompts import describe
from datasetdm.prompts.wording import article, counted, plural
from datasetdm.records import BACKGROUND, Labels, Prompt, Provenance, Sample
from datasetdm.store.store import Store

SEVERAL = re.compile(r"\b(two|three|four|several|many|some|\d+)( \w+)? $", re.IGNORECASE)
"""Before a noun whose plural is the same word: more than one of it."""


@dataclass(frozen=True)
class Edit:
    """What is to be done to one image.

    Args:
        parent: the image.
        region: the pixels that are sampled anew.
        prompt: what the new image shall show.
        negative: what the region shall not show.
    """

    parent: Sample
    region: Bool[np.ndarray, "h w"]
    prompt: Prompt
    negative: str = ""


class Editor:
    """A source of edited images: those of other data that show what is to be edited, in their order.

    Args:
        data: annotated images.
        decoder: a name, a folder, or a loaded one.
        backbone: likewise; None is the one that the decoder was fitted on.
        options: how a backbone that is loaded here is held and run.
        settings: fields of `EditConfig`.

    Raises:
        ConfigError: no edit, or labels that the data or the decoder do not know.
    """

    def __init__(
        self,
        data: Source,
        *,
        decoder: str | Path | PDecoder = "mini",
        backbone: str | Backbone | None = None,
        device: str = "auto",
        options: RunOptions | None = None,
        **settings: Any,
    ):
        self.data, self.config = data, validated(EditConfig, **settings)
        check_edits(self.config, data.labels)
        self.decoder, self.backbone = load_pair(decoder, backbone, device, options)
        self.steps = self.config.steps or self.backbone.steps
        self.guidance = self.backbone.guidance if self.config.guidance is None else self.config.guidance
        self.contrasts = self.backbone.contrasts(self.guidance)
        self.labels = self.decoder.config.labels.with_names(self.config.labels)
        unknown = [n for n in self.config.replace.values() if n and n.lower() not in self.labels.by_word]
        if unknown:
            raise ConfigError(
                f"the decoder would not find the new {', '.join(unknown)}",
                expected=f"some of: {', '.join(self.labels.names)}",
                remedy=f"name all labels to annotate: --labels {','.join([*self.labels.names, *unknown])}",
            )
        self._fingerprint = self.decoder.fingerprint(self.labels)

    @property
    def endless(self) -> bool:
        """Whether the data never end."""
        return self.data.endless

    def origin(self) -> dict[str, Any]:
        """What the images come from, the edits, and the models by hash."""
        settings = self.config.model_dump(mode="json", exclude={"batch", "labels"})
        return {
            "source": "edit",
            "data": self.data.origin(),
            "edits": settings | {"steps": self.steps, "guidance": self.guidance},
            "backbone": self.backbone.identity,
            "decoder": self._fingerprint,
        }

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        """The edited images that are not done; images without anything to edit give none."""
        todo = (e for s in self.data.samples() if self.key(s) not in done and (e := plan_edit(s, self.config)))
        while chunk := list(islice(todo, self.config.batch)):
            yield from self._edited(chunk)

    def key(self, parent: Sample) -> str:
        """The edited sample's: the parent's, and what tells edits apart."""
        return f"{parent.key}-{self.config.digest()}"

    def check(self, store: Store) -> None:
        """Some of the store's samples must come from the data's samples."""
        rows = np.unique(np.linspace(0, len(store) - 1, CHECKED).astype(int)).tolist() if len(store) else []
        parents = {(d := store[row].provenance.details)["parent"]: d["parent_sha256"] for row in rows}
        for sample in self.data.samples():
            if (digest := parents.pop(sample.key, None)) is not None and digest != sample.digest():
                raise other_data(store, f"the image {sample.key!r} is another one than the store's samples come from")
            if not parents:
                return
        if parents:
            raise other_data(store, f"the store comes from {min(parents)!r}, which these data lack")

    # ------------------------------------------------------------------ one batch
    def _edited(self, edits: Sequence[Edit]) -> list[Sample]:
        places = [Placement.fit(e.parent.size, self.backbone.size) for e in edits]
        images = stack_images([e.parent.image for e in edits], places)
        regions = [
            grow(p.map(torch.from_numpy(e.region)[None], 0.0), self._margin) for e, p in zip(edits, places, strict=True)
        ]
        new = self._sample(edits, self.backbone.encode(images), torch.stack(regions))
        texts = [e.prompt.text for e in edits]
        kept = self.backbone.kept_texts(texts)
        features = self.backbone.features(new, texts, self.labels.names)
        asked = [[self.labels.by_word.get(n.lower(), n) for n in e.prompt.labels] for e in edits]
        inputs = DecoderInput.from_features(features, kept, self.labels, asked)
        found = self.decoder.annotate(inputs, places, self.labels)
        return [
            Sample(
                self.key(e.parent), self._composed(e, place, region, image), self.labels, e.prompt, **own.fields(),
                provenance=self._provenance(e),
            )
            for e, place, region, image, own in zip(edits, places, regions, features.images, found, strict=True)
        ]  # fmt: skip

    def _sample(self, edits: Sequence[Edit], latents: Tensor, regions: Bool[Tensor, "b 1 H W"]) -> Tensor:
        stride = self.backbone.size[0] // latents.shape[-1]
        anew = F.max_pool2d(regions.float(), stride) > 0  # [b 1 h w]
        negatives = [e.negative if self.contrasts else "" for e in edits]
        prompts = [e.prompt for e in edits]
        return self.backbone.sample(
            prompts, self.steps, self.guidance, negatives, Kept(latents, ~anew.to(latents.device))
        )

    def _composed(self, edit: Edit, place: Placement, region: Tensor, image: Tensor) -> np.ndarray:
        """The new image within the region, the parent's own pixels elsewhere, a soft edge between them."""
        inner = erode(region, self._margin // 2).float()[None]
        width = 2 * (self._margin // 2) + 1
        soft = F.avg_pool2d(F.pad(inner, (width // 2,) * 4, "replicate"), width, 1)
        alpha = place.undo(soft)[0, 0, :, :, None].numpy()
        new = to_uint8(place.undo(image[None].float().cpu()))[0]
        return np.rint(alpha * new + (1 - alpha) * edit.parent.image).astype(np.uint8)

    @cached_property
    def _margin(self) -> int:
        """Pixels of the backbone's canvas by which regions grow."""
        return round(self.config.margin * max(self.backbone.size))

    def _provenance(self, edit: Edit) -> Provenance:
        details = {
            "parent": edit.parent.key,
            "parent_sha256": edit.parent.digest(),
            "edit": self.config.edits(),
            **({"negative": edit.negative} if edit.negative else {}),
        }
        file, backbone = edit.parent.provenance.file, self.backbone.identity[:12]
        return Provenance(file=file, backbone=backbone, decoder=self._fingerprint[:12], details=details)


def check_edits(config: EditConfig, known: Labels) -> None:
    """Raises ConfigError if nothing is to be edited, or labels that the data do not know."""
    if not (config.replace or config.remove or config.background):
        raise ConfigError("there is nothing to edit", expected="--replace OLD=NEW, --remove LABEL or --background TEXT")
    if bare := [old for old, new in config.replace.items() if new is None]:
        raise ConfigError(f"--replace {bare[0]}= names nothing new", expected="OLD=NEW", remedy=f"--remove {bare[0]}")
    missing = [n for n in (*config.replace, *config.remove) if n.lower() not in known.by_word]
    if missing:
        raise ConfigError(
            f"the data have no label {', '.join(missing)}", expected=f"some of: {', '.join(known.names)}",
            remedy="`datasetdm inspect` lists the labels that are there",
        )  # fmt: skip


def plan_edit(sample: Sample, config: EditConfig) -> Edit | None:
    """What the edits are for one image; None if it shows nothing of what is to be edited."""
    names, by_word = sample.labels.names, sample.labels.by_word
    there = {names[i] for i in sample.annotations.labels_in()}
    things = _things(sample, there) if config.background else []
    new = {by_word[old.lower()]: text for old, text in config.replace.items() if text}
    gone = {by_word[n.lower()] for n in config.remove}
    targets = there & {*new, *gone}
    if not targets and not things:
        return None
    region = pixels_of(sample, targets)
    if config.background:
        region |= ~pixels_of(sample, things)
    if region.mean() < config.min_region:
        return None
    if config.room and (replaced := there & {*new}):
        others = {*_things(sample, there)} - targets
        region |= boxes(pixels_of(sample, replaced), config) & ~pixels_of(sample, others)
    asked = things if config.background else asked_labels_of(sample, there)
    left = [*dict.fromkeys(new.get(n, n) for n in asked if n not in gone)]
    named = {*sample.labels.named_in(sample.caption)}
    if config.background or gone or not {*new} & named:
        text = " ".join(filter(None, (describe(left), config.background)))  # it cannot be edited word by word
    else:
        text = replace_labels(sample.caption, sample.labels, new)
        unnamed = [new[n] for n in asked if n in new and n not in named]
        text = ", ".join([text, *(counted(n, 1) for n in dict.fromkeys(unnamed))])
    seed = int(np.random.SeedSequence((config.seed, *sample.key.encode())).generate_state(1, np.uint64)[0] >> 1)
    origin = sample.prompt.origin if sample.prompt and sample.prompt.origin != "labels" else "user"
    return Edit(sample, region, Prompt(text, tuple(left), seed, origin), ", ".join(sorted(gone & there)))


def pixels_of(sample: Sample, names: set[str] | list[str]) -> Bool[np.ndarray, "h w"]:
    """The pixels of these labels, by objects and by the semantic map."""
    ids = [sample.labels.index[n] for n in names]
    pixels = np.zeros(sample.size, bool)
    if sample.instances is not None:
        pixels |= sample.instances.masks[np.isin(sample.instances.label_ids, ids)].union()
    if sample.semantic is not None:
        pixels |= np.isin(sample.semantic.ids, ids)
    return pixels


def boxes(pixels: Bool[np.ndarray, "h w"], config: EditConfig) -> Bool[np.ndarray, "h w"]:
    """The boxes around all connected pieces, widened by `room`; pieces that are too small to be edited alone stay themselves."""
    numbers, _ = ndimage.label(pixels, np.ones((3, 3)))
    room, found = round(config.room * max(pixels.shape)), pixels.copy()
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        if (numbers[place] == number).sum() >= config.min_region * pixels.size:
            rows, columns = (slice(max(0, s.start - room), s.stop + room) for s in place)
            found[rows, columns] = True
    return found


def replace_labels(caption: str, labels: Labels, new: Mapping[str, str]) -> str:
    """The caption with other words for labels, all at once, each in the number and with the article that it needs."""
    one = {w.lower(): n for n in new for w in (n, *labels.synonyms[labels.index[n]])}
    many = {w + s: n for w, n in one.items() for s in ("s", "es")} | {plural(w): n for w, n in one.items()}
    plurals = {plural(n) for n in new} - {*new}  # some vocabularies list "people" as another word for a person
    longest_first = "|".join(map(re.escape, sorted({*one, *many}, key=len, reverse=True)))

    def other(match: re.Match[str]) -> str:
        word = match[2].lower()
        text = new[many[word] if word not in one else one[word]]
        if word not in one or word in plurals or (plural(word) == word and SEVERAL.search(caption[: match.start()])):
            return plural(text)
        return f"{article(text)} {text}" if match[1] else text

    return re.sub(rf"\b(?:(an?) )?({longest_first})\b", other, caption, flags=re.IGNORECASE)


def grow(region: Bool[Tensor, "1 H W"], pixels: int) -> Bool[Tensor, "1 H W"]:
    """The region and all that lies within so many pixels of it, along rows and columns."""
    return F.max_pool2d(region.float(), 2 * pixels + 1, 1, pixels) > 0


def erode(region: Bool[Tensor, "1 H W"], pixels: int) -> Bool[Tensor, "1 H W"]:
    """The region without what lies within so many pixels of its edge; the image's border is no edge."""
    return ~grow(~region, pixels)


def asked_labels_of(sample: Sample, there: set[str]) -> list[str]:
    """The labels that the prompt asked for, or those that are there if it asked for none."""
    return [*sample.prompt.labels] if sample.prompt and sample.prompt.labels else _ordered(sample, there)


def _things(sample: Sample, there: set[str]) -> list[str]:
    """The labels that are there and no surroundings: those of objects, or else all but stuff and background."""
    if sample.instances is not None:
        objects = {sample.labels.names[i] for i in sample.instances.label_ids.tolist()}
        return _ordered(sample, objects - {*sample.labels.stuff})
    return _ordered(sample, there - {*sample.labels.stuff, BACKGROUND})


def _ordered(sample: Sample, names: set[str]) -> list[str]:
    return [n for n in sample.labels.names if n in names]
