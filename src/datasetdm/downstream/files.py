"""Students as folders of `transformers`, written whole or not at all, and opened again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from datasetdm.backbones import pick_device
from datasetdm.backbones.quiet import quiet
from datasetdm.downstream import STUDENTS, Student, Variant
from datasetdm.errors import ConfigError
from datasetdm.io.files import write_json, writing
from datasetdm.records import Labels, Sample

CONFIG = "config.json"
"""The file that is written last: a folder that holds it is whole."""
STORY = "datasetdm.json"
"""What a folder of ours says beside: the vocabulary with its skeletons, and what the model was trained on."""
BACKBONE_NORMS = "hidden_states_norms"
"""Weights that a network of `transformers` has as a backbone alone, so that no published one holds them."""


def build_model(student: Student[Any], variant: Variant, side: int, encoder: str | None = None) -> Any:
    """A model of `transformers`: fresh, or with the weights of `encoder` where they fit (the rest is new).

    Args:
        student: whose model it is.
        variant: its size.
        side: of the images that it sees.
        encoder: a folder or hub id of the student's architecture or of its `encoder_type`; its sizes go before the variant's.

    Raises:
        ConfigError: no such folder, one of another architecture, one that lacks weights of the encoder, or a side that the
            model cannot see.
    """
    config, kind = student.classes()
    if encoder is None:
        return kind(config(**student.sized(variant.settings, side), **student.settings()))
    own = _read_config(encoder)
    if own.model_type == student.model_type:
        chosen = config(**{**student.sized(own.to_dict(), side), **student.settings(), "architectures": None})
        return quiet(lambda: kind.from_pretrained(encoder, config=chosen, ignore_mismatched_sizes=True))
    if own.model_type != student.encoder_type:
        known = " or ".join(filter(None, (student.model_type, student.encoder_type)))
        raise ConfigError(
            f"the encoder is a {own.model_type}",
            where=encoder,
            expected=f"a folder or hub id of a {known}",
            remedy="choose the --student of this architecture",
        )
    sizes = {**variant.settings, **student.around(own.to_dict())}
    model = kind(config(**student.sized(sizes, side), **student.settings()))
    fresh = model.get_submodule(student.encoder)
    model.set_submodule(student.encoder, _read_encoder(encoder, fresh, prefix=own.model_type))
    return model


def _read_encoder(name: str, fresh: Any, prefix: str) -> Any:
    """A network like `fresh` with the weights of a folder or hub id, whose names may begin with `prefix`. Raises ConfigError
    where it lacks some."""
    names = {rf"^{prefix}\.": ""}
    found, report = quiet(
        lambda: type(fresh).from_pretrained(name, config=fresh.config, key_mapping=names, output_loading_info=True)
    )
    if missing := sorted(key for key in report["missing_keys"] if BACKBONE_NORMS not in key):
        raise ConfigError(
            f"{len(missing)} weights of the encoder are missing",
            where=name,
            expected=f"{missing[0]} and others",
            remedy="use the whole pretrained network",
        )
    return found


def _read_config(name: str) -> Any:
    from transformers import AutoConfig

    if Path(name).is_dir() and not (Path(name) / CONFIG).exists():
        raise ConfigError(
            f"no model can be read: the folder has no {CONFIG}, which is written last",
            where=name,
            expected="a folder or hub id of transformers",
            remedy="if a training was stopped here, run the same command again",
        )
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"no model can be read: {str(e).splitlines()[0]}", where=name, expected="a folder or hub id of transformers"
        ) from e


def save_model(folder: Path, model: Any, processor: Any, story: Mapping[str, Any]) -> None:
    """Write model, image processor and story into a folder, `config.json` last."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".model.", suffix=".tmp", dir=folder))
        try:
            quiet(lambda: model.save_pretrained(temporary))
            processor.save_pretrained(temporary)
            write_json(temporary / STORY, dict(story))
            for path in sorted(temporary.iterdir(), key=lambda p: p.name == CONFIG):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class TrainedModel:
    """A model with what it needs to annotate images."""

    student: Student[Any]
    model: Any
    processor: Any

    @classmethod
    def load(cls, name: str | Path, device: str = "auto") -> TrainedModel:
        """A folder that `train` wrote, or any other folder or hub id of `transformers` with an architecture of `STUDENTS`.

        Raises:
            ConfigError: no such folder, or no known architecture.
        """
        from transformers import AutoImageProcessor

        config = _read_config(str(name))
        kinds = [STUDENTS.load(n) for n in STUDENTS]
        story = read_story(Path(name))
        said = story.get("trained", {}).get("config", {}).get("student")
        alike = [k for k in kinds if k.model_type == config.model_type]
        kind = next((k for k in alike if k.name == said), alike[0] if alike else None)
        if kind is None:
            known = ", ".join(sorted({k.model_type for k in kinds}))
            raise ConfigError(f"no student is a {config.model_type}", where=name, expected=f"one of: {known}")
        student = kind(Labels.from_json(story["labels"]) if story else kind.labels_of(config))
        model = quiet(lambda: student.classes()[1].from_pretrained(name)).eval().to(pick_device(device))
        return cls(student, model, quiet(lambda: AutoImageProcessor.from_pretrained(name)))

    def annotate(self, samples: Iterable[Sample], batch: int = 16) -> Iterator[tuple[Sample, Sample]]:
        """(given, annotated) pairs, the latter in the model's labels. Images of several sizes are looked at together only where
        the image processor makes them equal: others cannot be, or would be padded."""
        iterator, equal = iter(samples), "height" in (getattr(self.processor, "size", None) or {})
        while chunk := list(islice(iterator, batch)):
            for _, alike in groupby(chunk, key=lambda s: equal or s.size):
                yield from self._annotated(list(alike))

    def _annotated(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
        found = self.student.annotate(self.model, self.processor, samples)
        for sample, own in zip(samples, found, strict=True):
            yield sample, Sample(sample.key, sample.image, self.student.labels, sample.prompt, **own.fields())


def read_story(folder: Path) -> dict[str, Any]:
    """What a folder of ours says of its model; empty for others."""
    path = folder / STORY
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as e:
        raise ConfigError(f"the file is no JSON: {e}", where=path, remedy="train the model again") from e
