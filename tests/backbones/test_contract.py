"""What every backbone promises, on tiny random weights of the real classes of every family and on the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasetdm.backbones import FAMILIES, Backbone, FeatureConfig, RunOptions, load_backbone
from datasetdm.backbones.blending import Kept
from datasetdm.backbones.hub import read_model_index
from datasetdm.backbones.pipeline import PipelineBackbone
from datasetdm.errors import BackboneError, ConfigError
from datasetdm.records import Prompt
from pipelines import PIPELINES

PROMPTS = [Prompt(t, (), s) for t, s in (("a dog", 3), ("a red bus on a road", 5), ("", 7), ("a dog", 9))]
TEXTS = [p.text for p in PROMPTS]
LABELS = ("dog", "potted plant", "sky")
SCALE = 3.0


def load(name: str, folders: dict[str, Path], dtype: torch.dtype | None = torch.float32, **more: Any) -> Any:
    """A tiny pipeline; FLUX knows no native size below 1024 pixels."""
    if name == "mini":
        return load_backbone("mini", device="cpu")
    config = FeatureConfig(**({"size": 32} if name == "flux" else {}) | more.pop("config", {}))
    return load_backbone(str(folders[name]), device="cpu", dtype=dtype, config=config, **more)


@pytest.fixture(scope="module")
def loaded(pipeline_folders: dict[str, Path]) -> dict[str, PipelineBackbone]:
    return {name: load(name, pipeline_folders) for name in ("mini", *PIPELINES)}


DISTINCT = ["mini", "sd1", "sdxl", "sd3", "flux", "pixart"]
EVERY = pytest.mark.parametrize("backbone", ["mini", *PIPELINES], indirect=True)
"""Also those that differ by prediction, schedule or embedded guidance alone."""


@pytest.fixture(params=DISTINCT)
def backbone(request: pytest.FixtureRequest, loaded: dict[str, PipelineBackbone]) -> PipelineBackbone:
    return loaded[request.param]


@pytest.fixture(params=DISTINCT[1:])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def latents_of(backbone: PipelineBackbone, count: int = 1) -> torch.Tensor:
    channels = backbone.pipe.vae.config.latent_channels
    shape = (count, channels, *(s // backbone.stride for s in backbone.size))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def close(a: torch.Tensor, b: torch.Tensor, exact: bool | None = None) -> None:
    exact = a.dtype == torch.float32 if exact is None else exact
    scale = float(b.float().abs().max()) + 1e-6
    assert float((a.float() - b.float()).abs().max()) <= (1e-3 if exact else 0.08) * scale


def test_every_family_is_under_this_contract(pipeline_folders: dict[str, Path]) -> None:
    assert {read_model_index(f)["_class_name"] for f in pipeline_folders.values()} == set(FAMILIES)


def test_it_is_a_backbone(backbone: PipelineBackbone) -> None:
    assert isinstance(backbone, Backbone)
    assert len(backbone.identity) == 64
    assert backbone.config.timesteps == type(backbone).timesteps
    assert backbone.steps >= 1 and backbone.guidance >= 1


@EVERY
def test_specs_are_what_arrives(backbone: PipelineBackbone) -> None:
    latents = latents_of(backbone, 2)
    features = backbone.features(latents, ["a dog", ""], LABELS)
    assert set(features.maps) == {s.name for s in backbone.specs}
    for spec in backbone.specs:
        side = [s // spec.stride for s in backbone.size]
        lead = (2, len(LABELS)) if spec.kind == "attention" else (2,)
        assert features.maps[spec.name].shape == (*lead, spec.channels, *side)
        assert features.maps[spec.name].isfinite().all()
        assert float(features.maps[spec.name].float().std()) > 1e-4, "no map is flat"
    assert {s.kind for s in backbone.specs} == {"hidden", "attention", "vae"}
    assert features.text.shape == (3, backbone.text_width)
    assert features.images.shape == (2, 3, *backbone.size)


@EVERY
def test_the_image_is_the_plain_pipelines_with_and_without_capture(backbone: PipelineBackbone) -> None:
    """Bit for bit: diffusers' own call, our latents decoded, and our features pass."""
    told = dict(num_inference_steps=2, guidance_scale=SCALE, height=backbone.size[0], width=backbone.size[1])
    given, plain = (
        backbone.pipe(
            [PROMPTS[0].text], **told, **backbone._call_arguments, generator=[torch.Generator().manual_seed(3)],
            output_type=kind,
        ).images for kind in ("latent", "pt")
    )  # fmt: skip
    for _ in range(2):
        latents = backbone.sample(PROMPTS[:1], 2, SCALE)
        assert torch.equal(latents, backbone._unpack(given))
        image = backbone.decode(latents)
        assert torch.equal(image.to(plain.dtype), plain) or backbone.dtype != torch.float32
        assert float((image - plain.float()).abs().max()) < 0.01, "diffusers rounds to bfloat16 before it scales"
        assert torch.equal(backbone.features(latents, ["a dog"], LABELS).images, image)


def test_a_batch_of_four_is_four_of_one(backbone: PipelineBackbone) -> None:
    together = backbone.sample(PROMPTS, 1, SCALE)
    alone = torch.cat([backbone.sample([p], 1, SCALE) for p in PROMPTS])
    close(together, alone)
    assert not torch.allclose(together[0], together[3])
    all_four = backbone.features(alone, TEXTS, LABELS)
    for i in range(4):
        own = backbone.features(alone[i : i + 1], TEXTS[i : i + 1], LABELS)
        for name, x in all_four.maps.items():
            close(x[i : i + 1], own.maps[name])


def test_same_seed_same_bytes_other_seed_other_bytes(backbone: PipelineBackbone) -> None:
    a, b = (backbone.sample(PROMPTS[:2], 1, SCALE) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a[0], backbone.sample([replace(PROMPTS[0], seed=4)], 1, SCALE)[0])


def test_captions_and_labels_are_read(backbone: PipelineBackbone) -> None:
    latents = latents_of(backbone)
    dog, bus = (backbone.features(latents, [t], LABELS).maps for t in TEXTS[:2])
    hidden = [s.name for s in backbone.specs if s.kind == "hidden"][-1]
    assert not torch.equal(dog[hidden], bus[hidden])
    for spec in backbone.specs:
        if spec.kind == "attention":
            maps = dog[spec.name].float()
            assert not torch.allclose(maps[:, 0], maps[:, 2])


def test_labels_do_not_depend_on_each_other(backbone: PipelineBackbone) -> None:
    latents = latents_of(backbone)
    many = ("a long label of words", "sky", "dog")
    few, more = (backbone.features(latents, ["a dog"], names) for names in (("sky",), many))
    close(few.text[0], more.text[1])
    for spec in backbone.specs:
        if spec.kind == "attention":
            close(few.maps[spec.name][:, 0], more.maps[spec.name][:, 1])
        elif spec.kind == "hidden":
            close(few.maps[spec.name], more.maps[spec.name])


def test_attention_is_a_share_of_rows_that_sum_to_one(
    backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of a label get between nothing and all of a row; all tokens of its sentence get more. Where the row holds
    nothing else (cross-attention) they get one; in joint attention the rest is the image's (tested in test_dit)."""
    latents = latents_of(backbone)
    words = backbone._words(LABELS)
    own = backbone.features(latents, ["a dog"], LABELS).maps
    monkeypatch.setattr(type(backbone), "_words", lambda *_: replace(words, own=words.used))
    whole = backbone.features(latents, ["a dog"], LABELS).maps
    for spec in backbone.specs:
        if spec.kind == "attention":
            part, all_tokens = own[spec.name].float(), whole[spec.name].float()
            assert (part > 0).all() and (part < all_tokens).all() and (all_tokens <= 1 + 1e-5).all()
            if not hasattr(backbone, "image_first"):
                assert torch.allclose(all_tokens, torch.ones_like(all_tokens), atol=1e-5)


def test_a_label_of_several_words_has_several_tokens(backbone: PipelineBackbone) -> None:
    words = backbone._words(LABELS)
    assert words.own[1].sum() > words.own[0].sum() >= 1
    assert (words.own <= words.used).all() and (words.own.sum(1) < words.used.sum(1)).all()


def test_labels_without_words_are_refused(backbone: PipelineBackbone) -> None:
    with pytest.raises(ConfigError, match="no words"):
        backbone.features(latents_of(backbone), [""], (" ",))


def test_prompts_and_labels_longer_than_the_text_encoder(backbone: PipelineBackbone) -> None:
    long = "a dog on a red bus " * 120
    assert backbone.sample([Prompt(long)], 1, SCALE).isfinite().all()
    features = backbone.features(latents_of(backbone), [long], ("dog", "potted " * 30))
    assert all(x.isfinite().all() for x in features.maps.values())


def test_encode_undoes_decode_up_to_the_vae(backbone: PipelineBackbone) -> None:
    """Scale and shift are the pipeline's own: what its VAE decodes from latents is what `decode` gives."""
    config = backbone.pipe.vae.config
    latents = latents_of(backbone).to(backbone.dtype)
    raw = latents / config.scaling_factor + (config.get("shift_factor") or 0)
    with torch.no_grad():
        image = backbone.pipe.vae.decode(raw).sample
        mean = backbone.pipe.vae.encode(image).latent_dist.mean
    assert torch.equal(backbone.decode(latents), (image.float() / 2 + 0.5).clamp(0, 1))
    backbone_mean = backbone.encode(image / 2 + 0.5)
    assert backbone_mean.shape == latents.shape
    close(backbone_mean / config.scaling_factor + (config.get("shift_factor") or 0), mean)


def test_a_map_that_does_not_arrive_is_an_error(backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbone._vae_modules, "silent", torch.nn.Identity())
    with pytest.raises(BackboneError, match="no feature arrived from silent"):
        backbone.features(latents_of(backbone), [""], LABELS)


def test_tiled_vaes_are_not_read_in_parts(backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = backbone.pipe.vae
    for name, value in dict(use_tiling=True, tile_latent_min_size=2, tile_sample_min_size=8).items():
        monkeypatch.setattr(vae, name, value)
    with pytest.raises(BackboneError, match="ran twice"):
        backbone.features(latents_of(backbone), [""], LABELS)


@pytest.mark.parametrize("backbone", ["sdxl", "sd3"], indirect=True)
def test_too_little_memory_halves_the_batch(backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = latents_of(backbone, 3)
    expected = backbone.features(latents, TEXTS[:3], LABELS)
    samples = backbone.sample(PROMPTS[:3], 1, SCALE)
    real, sizes = type(backbone)._denoise, []
    sampled = type(backbone)._sample

    def denoise(self: Any, noisy: torch.Tensor, *more: Any) -> torch.Tensor:
        sizes.append(len(noisy))
        if len(noisy) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, noisy, *more)

    def sample(self: Any, prompts: Any, *more: Any) -> torch.Tensor:
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sampled(self, prompts, *more)

    monkeypatch.setattr(type(backbone), "_denoise", denoise)
    monkeypatch.setattr(type(backbone), "_sample", sample)
    again = backbone.features(latents, TEXTS[:3], LABELS)
    assert sizes[:2] == [3, 1] and max(sizes[1:]) == 2
    close(again.images, expected.images, backbone.dtype == torch.float32)
    for name, x in expected.maps.items():
        close(again.maps[name], x)
    close(backbone.sample(PROMPTS[:3], 1, SCALE), samples)
    monkeypatch.setattr(type(backbone), "_denoise", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("all")))
    with pytest.raises(BackboneError, match="not even one image") as caught:
        backbone.features(latents, TEXTS[:3], LABELS)
    assert "--low-memory" in str(caught.value)


@EVERY
def test_a_negative_prompt_counts_or_is_refused(backbone: PipelineBackbone) -> None:
    assert not backbone.contrasts(1.0)
    if backbone.contrasts(SCALE):
        plain = backbone.sample(PROMPTS[:2], 1, SCALE)
        mixed = backbone.sample(PROMPTS[:2], 1, SCALE, ["", "a red bus"])
        close(mixed[0], plain[0])
        assert not torch.allclose(mixed[1], plain[1])
        close(mixed[1], backbone.sample(PROMPTS[1:2], 1, SCALE, ["a red bus"])[0])
    scale = 1.0 if backbone.contrasts(SCALE) else SCALE
    with pytest.raises(ConfigError, match="negative prompt has no effect"):
        backbone.sample(PROMPTS[:1], 1, scale, ["a red bus"])


def test_words_that_every_text_encoder_kept(backbone: PipelineBackbone, caplog: pytest.LogCaptureFixture) -> None:
    """Texts that differ after them are the same to one of them; long texts are no reason for messages."""
    filler, first = "a red bus on a road " * 120, "dog, " + "sky " * 3
    kept, short, none = backbone.kept_texts([filler, "a dog", ""])
    assert (short, none) == ("a dog", "") and filler.startswith(kept) and 0 < len(kept) < len(filler)
    again = backbone.kept_texts([kept, f"{kept} dog", first + filler])
    assert again[:2] == [kept, kept] and again[2].startswith("dog, sky")
    tokenizer, limit = min(backbone._tokenizers, key=lambda pair: pair[1])
    assert len(tokenizer(kept).input_ids) == limit, "not one more word would have been kept"
    one, other = (tokenizer(kept + end, truncation=True, max_length=limit).input_ids for end in (" dog", " sky"))
    assert one == other
    with caplog.at_level("WARNING"):
        backbone.features(latents_of(backbone), [filler], ("dog",))
        backbone.sample([Prompt(filler)], 1, SCALE)
    assert not caplog.records


@EVERY
def test_inversion_is_undone_by_going_back(backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renoising mixes in one and the same noise; the sampler run backwards changes latents smoothly."""
    latents = latents_of(backbone, 2) * 0.1
    condition = backbone._condition(["a dog", ""])
    noisy = backbone._invert(latents.to(backbone.dtype), 500, condition)
    difference = (noisy[0] - noisy[1]).float(), (latents[0] - latents[1])
    ratio = difference[0] / difference[1]
    assert ratio.isfinite().all() and float(ratio.median()) < 1, "less image, the noise is shared"
    close(difference[0], ratio.median() * difference[1], backbone.dtype == torch.float32)
    monkeypatch.setattr(backbone, "config", replace(backbone.config, inversion="ddim", inversion_steps=20))
    a, b = (backbone._invert(latents.to(backbone.dtype), t, condition).float() for t in (100, 300))
    assert 0 < float((a - latents).abs().mean()) < float((b - latents).abs().mean())


def test_half_precision_stays_close(family: str, loaded: dict[str, Any], pipeline_folders: dict[str, Path]) -> None:
    """float16 for SDXL and FLUX, whose VAEs then run in float32; bfloat16 for the others."""
    dtype = torch.float16 if family in ("sdxl", "flux") else torch.bfloat16
    exact, half = loaded[family], load(family, pipeline_folders, dtype)
    assert exact.identity == half.identity
    latents = latents_of(exact)
    a, b = (m.features(latents, ["a dog"], LABELS) for m in (exact, half))
    for spec in exact.specs:
        x, y = a.maps[spec.name].float(), b.maps[spec.name].float()
        assert float((x - y).abs().mean()) < 0.05 * float(x.abs().mean()) + 1e-3
    assert half.sample(PROMPTS[:1], 1, SCALE).isfinite().all()
    assert half.encode(half.decode(latents)).dtype == dtype
    assert half.pipe.vae.dtype == (torch.float32 if dtype == torch.float16 else dtype)


def test_options_change_nothing_but_rounding(
    family: str, loaded: dict[str, Any], pipeline_folders: dict[str, Path]
) -> None:
    """Slices, offload (nothing to do on a CPU), layout."""
    options = RunOptions(slices=True, offload=True, channels_last=True)
    plain, other = loaded[family], load(family, pipeline_folders, options=options)
    latents = plain.sample(PROMPTS[:2], 1, SCALE)
    close(other.sample(PROMPTS[:2], 1, SCALE), latents)
    a, b = (m.features(latents, TEXTS[:2], LABELS) for m in (plain, other))
    assert a.maps.keys() == b.maps.keys()
    for name in a.maps:
        close(b.maps[name], a.maps[name])
    close(b.images, a.images)


def test_sampling_is_compiled_and_reading_is_not(
    family: str, pipeline_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that counts instead of compiling, which would take minutes."""
    calls: list[str] = []

    def compile(module: torch.nn.Module, *, backend: str) -> None:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(backend)
            return module._call_impl(*args, **kwargs)

        module._compiled_call_impl = counted

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    backbone = load(family, pipeline_folders, options=RunOptions(compile="inductor"))
    latents = backbone.sample(PROMPTS[:1], 1, SCALE)
    assert set(calls) == {"inductor"}
    calls.clear()
    assert backbone.features(latents, [""], LABELS).maps and not calls


def test_tiles_leave_the_vaes_maps_out(family: str, pipeline_folders: dict[str, Path]) -> None:
    tiled = load(family, pipeline_folders, options=RunOptions(tiles=True))
    assert tiled.pipe.vae.use_tiling and {s.kind for s in tiled.specs} == {"hidden", "attention"}


def test_several_timesteps_give_all_their_maps(family: str, pipeline_folders: dict[str, Path]) -> None:
    config = dict(timesteps=(1, 100), inversion="ddim", inversion_steps=50)
    backbone = load(family, pipeline_folders, config=config)
    names = [s.name for s in backbone.specs]
    assert len(set(names)) == len(names)
    assert sum(n.endswith("@1") for n in names) == sum(n.endswith("@100") for n in names) > 2
    features = backbone.features(latents_of(backbone), ["a dog"], LABELS)
    first = next(n for n in names if n.endswith("@1"))
    assert not torch.allclose(features.maps[first], features.maps[f"{first}00"])


@pytest.mark.parametrize("family", ["sd1", "flux"])
def test_sizes_and_timesteps_are_checked(family: str, pipeline_folders: dict[str, Path]) -> None:
    for config in (dict(size=33), dict(size=0), dict(timesteps=()), dict(timesteps=(1000,)), dict(timesteps=(-1,))):
        with pytest.raises(ConfigError, match="timesteps|multiple"):
            load(family, pipeline_folders, config={"size": 32, **config})
    other = load(family, pipeline_folders, config={"size": 48})
    assert other.size == (48, 48) and other.sample(PROMPTS[:1], 1, SCALE).shape[-1] == 48 // other.stride


def test_an_unknown_compiler_is_refused(pipeline_folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no compiler 'gcc'"):
        load("sd1", pipeline_folders, options=RunOptions(compile="gcc"))


def test_what_is_kept_stays_and_the_rest_is_sampled(backbone: PipelineBackbone) -> None:
    """Masked latent blending: half of existing latents stays to the bit; with nothing to keep it is sampling as usual."""
    prompts, existing = PROMPTS[:2], latents_of(backbone, 2)
    where = torch.zeros(2, 1, *existing.shape[-2:], dtype=torch.bool)
    plain = backbone.sample(prompts, 3, SCALE)
    close(backbone.sample(prompts, 3, SCALE, kept=Kept(existing, where)), plain)
    where[..., : where.shape[-1] // 2] = True
    half = backbone.sample(prompts, 3, SCALE, kept=Kept(existing, where))
    stays = where.expand_as(half)
    assert torch.equal(half[stays].float(), existing.to(half)[stays].float())
    assert not torch.allclose(half[~stays], existing.to(half)[~stays]) and half.isfinite().all()
    one = backbone.sample(prompts[1:], 3, SCALE, kept=Kept(existing, where)[[1]])
    close(one[0], half[1])
