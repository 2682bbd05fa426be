"""What all families share: the stock pipeline samples, one extra pass of its denoiser reads, its VAE decodes.

Features come from the denoiser over the clean latents, brought to a small timestep (Baranchuk et al. 2022, arXiv
2112.03126, read a diffusion UNet this way), from the attention between its image and each label's own words, and from
the VAE decoder's activations. A family says how its denoiser is called and where its features are.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasetdm.backbones import FeatureConfig, RunOptions
from datasetdm.backbones.blending import Blend, Kept
from datasetdm.backbones.features import FINEST, Capture, Features, FeatureSpec
from datasetdm.backbones.hub import (
    BUILTIN,
    UNUSED,
    folder_identity,
    load_pipeline,
    read_licence,
    read_model_index,
    split_loras,
    with_loras,
)
from datasetdm.backbones.memory import in_halves, place
from datasetdm.backbones.quiet import silenced
from datasetdm.backbones.sampling import Sampling, choose_sampling
from datasetdm.backbones.words import SENTENCE, Segment, Words, kept_text, read_words
from datasetdm.errors import ConfigError
from datasetdm.records import Prompt

Condition = dict[str, Any]
"""The denoiser's keyword arguments beside the noisy latents and the timestep."""


class PipelineBackbone(ABC):
    """A diffusers pipeline folder. See `Backbone` for what the methods promise."""

    denoiser: ClassVar[str]
    """Name of the denoiser in the pipeline."""
    timesteps: ClassVar[tuple[int, ...]]
    """Noise levels at which it reads, if none are asked for."""
    reads: ClassVar[str]
    """Which of its layers features come from, in words."""
    long_tokenizer: ClassVar[str] = ""
    """Name of the tokenizer whose texts the pipeline cuts at its own `max_sequence_length`, if there is one."""

    def __init__(
        self,
        folder: Path,
        name: str,
        config: FeatureConfig,
        device: torch.device,
        dtype: torch.dtype,
        loras: Sequence[Path] = (),
        options: RunOptions | None = None,
    ):
        own = split_loras(name)[0] if loras else name
        found = own not in BUILTIN and Path(own).is_dir()
        self.name = with_loras(str(folder.resolve()) if found else own, loras)
        self.config = replace(config, timesteps=self.timesteps) if config.timesteps is None else config
        self.device, self.dtype, self.options = device, dtype, options or RunOptions()
        index = read_model_index(folder)
        parts = [p for p, v in index.items() if not p.startswith("_") and isinstance(v, list) and v[0]]
        self.identity = folder_identity(folder, sorted(set(parts) - {*UNUSED}, key=_order), loras)
        self.licence = read_licence(folder)
        self.pipe = load_pipeline(folder, dtype, loras)
        self.pipe.set_progress_bar_config(disable=True)
        for part in self.pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        place(self.pipe, self.denoiser, device, self.options)
        train_steps = self.pipe.scheduler.config.num_train_timesteps
        if not self.config.timesteps or any(not 0 <= t < train_steps for t in self.config.timesteps):
            raise ConfigError(f"timesteps {self.config.timesteps}", expected=f"one or more of 0..{train_steps - 1}")
        self.stride = self.pipe.vae_scale_factor
        self.size = self._check_size(self._native * self.stride if self.config.size is None else self.config.size)
        self._sampling = choose_sampling(
            own, loras, type(self.pipe.scheduler).__name__, self._default_sampling(), self._embeds_guidance()
        )
        self.steps, self.guidance = self._sampling.steps, self._sampling.guidance
        if self._sampling.scheduler:
            self._use_scheduler(self._sampling)

    def _check_size(self, side: int) -> tuple[int, int]:
        unit = self.stride * self._unit
        if side % unit or side < unit:
            raise ConfigError(f"images of {side} pixels per side", expected=f"a multiple of {unit}", where=self.name)
        return side, side

    # ------------------------------------------------------------------ what a family says
    @abstractmethod
    def _default_sampling(self) -> Sampling:
        """Steps and guidance of the family's undistilled models."""

    def _embeds_guidance(self) -> bool:
        """Whether the denoiser takes the guidance scale as an input."""
        return False

    def contrasts(self, guidance: float) -> bool:
        return guidance > 1 and not self._embeds_guidance()

    @property
    def _native(self) -> int:
        """Side of the latents that it was trained on; images are square."""
        return self.net.config.sample_size

    @property
    @abstractmethod
    def _unit(self) -> int:
        """The latents' side must be a multiple of it."""

    @abstractmethod
    def _segments(self) -> list[Segment]:
        """Which text encoders wrote which stretch of the conditioning sequence."""

    @abstractmethod
    def _condition(self, texts: Sequence[str]) -> Condition:
        """The conditioning of prompts; `encoder_hidden_states` f[b s d] holds the sequence."""

    @abstractmethod
    def _denoise(self, noisy: Tensor, t: int, condition: Condition) -> Tensor:
        """The denoiser's prediction f[b c h w]. Call `self.net.forward`, which compilation leaves alone."""

    @abstractmethod
    def _invert(self, latents: Tensor, t: int, condition: Condition) -> Tensor:
        """Latents at timestep `t`, by `self.config.inversion`."""

    @abstractmethod
    def _read(self, noisy: Tensor, t: int, condition: Condition, words: Words) -> dict[str, Tensor]:
        """The denoiser's maps at `t`: hidden f[b c h w] and attention f[b l c h w], by name without the timestep."""

    # ------------------------------------------------------------------ images
    @property
    def net(self) -> Any:
        """The denoiser."""
        return getattr(self.pipe, self.denoiser)

    def sample(
        self,
        prompts: Sequence[Prompt],
        steps: int,
        guidance: float,
        negatives: Sequence[str] = (),
        kept: Kept | None = None,
    ) -> Float[Tensor, "b c h w"]:
        negatives = negatives or [""] * len(prompts)
        if any(negatives) and not self.contrasts(guidance):
            raise no_contrast(self.name, guidance)
        latents: dict[int, Tensor] = {}
        for group in ([i for i, n in enumerate(negatives) if bool(n) is some] for some in (True, False)):

            def of(rows: slice, group: Sequence[int] = group) -> Tensor:
                own = group[rows]
                stay = None if kept is None else kept[own]
                return self._sample([prompts[i] for i in own], steps, guidance, [negatives[i] for i in own], stay)

            if group:  # an empty negative prompt is not the same as none: SDXL sets its embedding to zero
                latents |= dict(zip(group, torch.cat(in_halves(of, len(group))), strict=True))
        return torch.stack([latents[i] for i in range(len(prompts))])

    @torch.no_grad()
    @silenced()
    def _sample(
        self, prompts: Sequence[Prompt], steps: int, guidance: float, negatives: Sequence[str], kept: Kept | None
    ) -> Tensor:
        others: dict[str, Any] = {"negative_prompt": list(negatives)} if any(negatives) else {}
        if kept is not None:
            blend = Blend(kept, prompts, self.pipe.scheduler)
            others |= self._at_step_end(lambda step, x: self._pack(blend(step, self._unpack(x))))
        images = self.pipe(
            [p.text for p in prompts],
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=self.size[0],
            width=self.size[1],
            generator=[torch.Generator("cpu").manual_seed(p.seed) for p in prompts],
            output_type="latent",
            **others,
            **self._call_arguments,
        ).images
        return self._unpack(images)

    _call_arguments: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the pipeline's call."""

    def _at_step_end(self, change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
        """Arguments of the pipeline's call that make it change its latents at the end of every step, by number."""

        def changed(_: Any, step: int, __: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            return values | {"latents": change(step, values["latents"])}

        return {"callback_on_step_end": changed}

    def _unpack(self, latents: Tensor) -> Float[Tensor, "b c h w"]:
        """Latents as the pipeline holds them -> as a map."""
        return latents

    def _pack(self, latents: Float[Tensor, "b c h w"]) -> Tensor:
        """Undoes `_unpack`."""
        return latents

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        def mean(rows: slice) -> Tensor:
            x = (images[rows] * 2 - 1).to(self.device, self._vae_dtype)
            return self.pipe.vae.encode(x).latent_dist.mean.to(self.dtype)

        x = torch.cat(in_halves(mean, len(images)))
        return (x - self._vae_shift) * self.pipe.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        return torch.cat(in_halves(lambda rows: self._decode(latents[rows]), len(latents)))

    def _decode(self, latents: Tensor) -> Tensor:
        x = latents.to(self.device, self.dtype) / self.pipe.vae.config.scaling_factor + self._vae_shift
        y = self.pipe.vae.decode(x.to(self._vae_dtype)).sample
        return (y.float() / 2 + 0.5).clamp(0, 1)

    @property
    def _vae_shift(self) -> float:
        return self.pipe.vae.config.get("shift_factor") or 0.0

    @cached_property
    def _vae_dtype(self) -> torch.dtype:
        """float32 for a VAE that overflows in float16 (SDXL's; its configuration says so)."""
        if self.dtype == torch.float16 and self.pipe.vae.config.get("force_upcast"):
            self.pipe.vae.to(torch.float32)
            return torch.float32
        return self.dtype

    # ------------------------------------------------------------------ features
    @torch.no_grad()
    @silenced()
    def features(self, latents: Float[Tensor, "b c h w"], captions: Sequence[str], labels: Sequence[str]) -> Features:
        words = self._words(tuple(labels))

        chunks = in_halves(lambda rows: self._features(latents[rows], captions[rows], words), len(latents))
        if len(chunks) == 1:
            return Features(chunks[0][0], words.text, chunks[0][1])
        maps = {n: torch.cat([m[n] for m, _ in chunks]) for n in chunks[0][0]}
        return Features(maps, words.text, torch.cat([images for _, images in chunks]))

    def _features(self, latents: Tensor, captions: Sequence[str], words: Words) -> tuple[dict[str, Tensor], Tensor]:
        latents = latents.to(self.device, self.dtype)
        condition = self._condition(captions)
        maps: dict[str, Tensor] = {}
        assert self.config.timesteps is not None
        for t in self.config.timesteps:
            own = self._read(self._invert(latents, t, condition), t, condition, words)
            maps |= {f"{name}@{t}": x for name, x in own.items()}
        one = (
            1 if self.options.slices else len(latents)
        )  # the VAE's own slices would each overwrite the last one's maps
        caught, images = [], []
        for rows in latents.split(one):
            with Capture(self._vae_modules) as capture:
                images.append(self._decode(rows))
            caught.append(capture.outputs)
        maps |= {n: torch.cat([c[n] for c in caught]) if len(caught) > 1 else caught[0][n] for n in self._vae_modules}
        return maps, torch.cat(images)

    @cached_property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Read off one blank image, so that they are what really arrives."""
        blank = torch.zeros(1, self.pipe.vae.config.latent_channels, *(s // self.stride for s in self.size))
        f = self.features(blank, [""], ["thing"])
        return tuple(
            FeatureSpec(n, x.shape[-3], self.size[0] // x.shape[-2], self._kind(n, x)) for n, x in f.maps.items()
        )

    def _kind(self, name: str, x: Tensor) -> Literal["hidden", "attention", "vae"]:
        return "attention" if x.ndim == 5 else "vae" if name in self._vae_modules else "hidden"

    @property
    def text_width(self) -> int:
        return self._words(("thing",)).text.shape[1]

    @cached_property
    def _vae_modules(self) -> dict[str, nn.Module]:
        """The last layer of every up block of the VAE's decoder, as far as a P-Decoder reads; none, if it works in tiles."""
        if self.options.tiles:
            return {}
        latent = self.size[0] // self.stride
        read = {i: b for i, b in enumerate(self.pipe.vae.decoder.up_blocks) if latent * 2**i <= min(FINEST, 4 * latent)}
        return {f"vae{i}": block.resnets[-1] for i, block in read.items()}

    # ------------------------------------------------------------------ words
    def kept_texts(self, texts: Sequence[str]) -> list[str]:
        return [kept_text(text, self._tokenizers) for text in texts]

    @cached_property
    def _tokenizers(self) -> list[tuple[Any, int]]:
        """The tokenizers of its text encoders, each with the number of tokens that are encoded."""
        names = [n for n in self.pipe.components if n.startswith("tokenizer")]
        used = [n for n in names if getattr(self.pipe, n.replace("tokenizer", "text_encoder"), None) is not None]
        limits = {n: getattr(self.pipe, n).model_max_length for n in used}
        if self.long_tokenizer in limits:
            own = inspect.signature(self.pipe.encode_prompt).parameters["max_sequence_length"].default
            limits[self.long_tokenizer] = own
        return [(getattr(self.pipe, n), limit) for n, limit in limits.items()]

    @torch.no_grad()
    @silenced()
    def _words(self, labels: tuple[str, ...]) -> Words:
        if labels not in self._known_words:
            self._known_words.clear()
            context = self._condition([SENTENCE.format(label) for label in labels])["encoder_hidden_states"]
            self._known_words[labels] = read_words(labels, context, self._segments())
        return self._known_words[labels]

    @cached_property
    def _known_words(self) -> dict[tuple[str, ...], Words]:
        return {}

    def _use_scheduler(self, sampling: Sampling) -> None:
        import diffusers

        cls: Callable[..., Any] = getattr(diffusers, sampling.scheduler or "")
        self.pipe.scheduler = cls.from_config(self.pipe.scheduler.config, **sampling.changes)  # ty: ignore


def no_contrast(name: str, guidance: float) -> ConfigError:
    """The error of a negative prompt for a model that takes none at this guidance scale."""
    return ConfigError(
        f"a negative prompt has no effect on {name} at guidance {guidance:g}",
        expected="a model with classifier-free guidance, and a scale above 1",
        remedy="leave --negative out",
    )


_KNOWN_ORDER = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def _order(part: str) -> tuple[int, str]:
    """The order in which the parts' hashes enter an identity."""
    return (_KNOWN_ORDER.index(part) if part in _KNOWN_ORDER else len(_KNOWN_ORDER), part)
