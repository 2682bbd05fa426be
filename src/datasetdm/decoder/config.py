"""What a P-Decoder is built from, as its `config.json` says it: every value is checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasetdm.backbones import FeatureConfig
from datasetdm.backbones.features import FeatureSpec
from datasetdm.errors import DataError, DecoderError
from datasetdm.io.files import parse_json, write_json
from datasetdm.records import Labels

CONFIG = "config.json"


@dataclass(frozen=True)
class DecoderConfig:
    """All that is needed to build a P-Decoder and to know which backbone it reads.

    backbone: what it was loaded by; identity: what it is (hash of its weights). side: image side of the features.
    unseen: names of labels that no image of the fit shows. fitted: how the weights came about (data, steps, held-out figures).
    """

    tasks: tuple[str, ...]
    labels: Labels
    backbone: str
    identity: str
    features: FeatureConfig
    specs: tuple[FeatureSpec, ...]
    text_width: int
    side: int
    width: int = 128
    unseen: tuple[str, ...] = ()
    fitted: Mapping[str, object] | None = None

    @property
    def seen(self) -> frozenset[str]:
        """Names of the labels that the fit saw."""
        return frozenset(self.labels.names).difference(self.unseen)


_Size = Annotated[int, Field(ge=1, le=65_536)]
_STRICT = ConfigDict(extra="forbid", strict=True)


class _Features(BaseModel):
    model_config = _STRICT

    timesteps: Annotated[list[Annotated[int, Field(ge=0, le=1_000_000)]], Field(min_length=1, max_length=100)] | None
    inversion: Literal["renoise", "ddim"] = "renoise"
    inversion_steps: Annotated[int, Field(ge=1, le=100_000)] = 100
    size: Annotated[int, Field(ge=8, le=16_384)] | None = None


class _Spec(BaseModel):
    model_config = _STRICT

    name: Annotated[str, Field(min_length=1, max_length=200)]
    channels: _Size
    stride: Annotated[int, Field(ge=1, le=1024)]
    kind: Literal["hidden", "attention", "vae"]


class _File(BaseModel):
    model_config = _STRICT

    tasks: Annotated[list[str], Field(min_length=1, max_length=100)]
    labels: dict[str, Any]
    backbone: Annotated[str, Field(min_length=1)]
    identity: str
    features: _Features
    specs: Annotated[list[_Spec], Field(min_length=1, max_length=1000)]
    text_width: _Size
    side: Annotated[int, Field(ge=8, le=16_384)]
    width: Annotated[int, Field(ge=1, le=8192)] = 128
    unseen: list[str] = []
    fitted: dict[str, Any] | None = None


def read_config(folder: Path) -> DecoderConfig:
    """The configuration of a saved decoder.

    Raises:
        DecoderError: no decoder there, or a file that is none of ours.
    """
    path = folder / CONFIG
    try:
        found = _File.model_validate(parse_json(path.read_bytes()))
        labels = Labels.from_json(found.labels)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise DecoderError(
            "there is no decoder here",
            where=folder,
            expected="a folder that `datasetdm fit` wrote, with a config.json",
            remedy="fit one with `datasetdm fit`, or use --decoder mini",
        ) from e
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        raise _unreadable(path, f"{name}: {first['msg']}") from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as e:
        raise _unreadable(path, " ".join(str(e).split()[:40])) from e
    timesteps = found.features.timesteps
    rest = found.features.model_dump(exclude={"timesteps"})
    return DecoderConfig(
        tasks=tuple(found.tasks),
        labels=labels,
        features=FeatureConfig(None if timesteps is None else tuple(timesteps), **rest),
        specs=tuple(FeatureSpec(**s.model_dump()) for s in found.specs),
        unseen=tuple(found.unseen),
        **found.model_dump(exclude={"tasks", "labels", "features", "specs", "unseen"}),
    )


def write_config(folder: Path, config: DecoderConfig) -> None:
    """Write what `read_config` gives back."""
    write_json(folder / CONFIG, asdict(config) | {"labels": config.labels.to_json()})


def _unreadable(path: Path, what: str) -> DecoderError:
    return DecoderError(
        f"the decoder's config.json cannot be read: {what}",
        where=path,
        expected="the file that `datasetdm fit` wrote",
        remedy="restore it, or fit the decoder again",
    )
