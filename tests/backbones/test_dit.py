"""Joint attention against an explicit softmax, labels that the image does not see, outlier channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from datasetdm.backbones import FeatureConfig, load_backbone
from datasetdm.backbones.attention import LabelsBeside, joint_shares
from datasetdm.backbones.families.dit import JointBackbone, normalise_outlier_channels
from datasetdm.backbones.quiet import quiet
from datasetdm.backbones.words import Words
from datasetdm.errors import BackboneError
from datasetdm.records import Prompt
from pipelines import flux, sd3


@pytest.fixture(scope="module", params=["sd3", "flux"])
def joint(request: pytest.FixtureRequest, pipeline_folders: dict[str, Path]) -> Any:
    config = FeatureConfig(size=32)
    return load_backbone(str(pipeline_folders[request.param]), config=config, device="cpu", dtype=torch.float32)


def words_of(*lengths: int, width: int = 8) -> Words:
    """Labels of so many tokens; all but the first and last token are their own words."""
    n = max(lengths)
    place, length = torch.arange(n)[None], torch.tensor(lengths)[:, None]
    used = place < length
    return Words(torch.randn(len(lengths), n, width), used, (place > 0) & (place < length - 1), torch.zeros(2, 1))


def test_shares_are_those_of_a_joint_softmax_a_label() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 10, 8), torch.randn(2, 3, 10, 8)
    words = words_of(4, 6)
    group, own = words.used.nonzero()[:, 0], words.own[words.used]
    w = 3 * torch.randn(2, 3, len(group), 8)
    shares = joint_shares(q, k, w, group, own)
    for label in range(2):
        mine = group == label
        p = (q @ torch.cat([k, w[:, :, mine]], 2).mT).softmax(-1)
        assert torch.allclose(p.sum(-1), torch.ones(2, 3, 10))
        expected = (p[..., 10:] * own[mine]).sum(-1).mean(1)
        assert torch.allclose(shares[:, label], expected, atol=1e-6)


@pytest.mark.parametrize("image_first", [True, False])
def test_labels_are_carried_beside(image_first: bool) -> None:
    """One call on [image, caption, labels] gives what separate calls give, in either order."""
    torch.manual_seed(0)
    words = words_of(3, 5)
    n, c, m = 6, 4, int(words.used.sum())
    parts = {name: torch.randn(3, 1, 2, size, 8) for name, size in (("image", n), ("caption", c), ("labels", m))}
    order = ["image", "caption", "labels"] if image_first else ["caption", "labels", "image"]
    q, k, v = torch.cat([parts[name] for name in order], 3)
    with LabelsBeside(n, c, words, image_first=image_first, wanted=[0]) as beside:
        out = F.scaled_dot_product_attention(q, k, v)
        other = F.scaled_dot_product_attention(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    assert torch.equal(other, F.scaled_dot_product_attention(q[:, :, :3], k[:, :, :3], v[:, :, :3])), "left alone"
    got = dict(zip(order, out.split([parts[name].shape[3] for name in order], 2), strict=True))
    keep = [name for name in order if name != "labels"]
    plain = F.scaled_dot_product_attention(*torch.cat([parts[name] for name in keep], 3))
    for name, x in zip(keep, plain.split([parts[name].shape[3] for name in keep], 2), strict=True):
        assert torch.equal(got[name], x), "image and caption do not see the labels"
    group = words.used.nonzero()[:, 0]
    for label in range(2):
        mine = group == label
        own = parts["labels"][..., mine, :]
        keys = torch.cat([parts["image"], own], 3)
        expected = F.scaled_dot_product_attention(own[0], keys[1], keys[2])
        assert torch.allclose(got["labels"][..., mine, :], expected, atol=1e-6)
    assert beside.maps[0].shape == (1, 2, n)


def test_the_denoiser_says_the_same_with_labels_beside(joint: JointBackbone) -> None:
    latents = torch.randn(2, joint.pipe.vae.config.latent_channels, 8, 8)
    condition, words = joint._condition(["a dog", "a red bus"]), joint._words(("dog", "potted plant"))
    caption = condition["encoder_hidden_states"]
    beside = LabelsBeside(16, caption.shape[1], words, image_first=joint.image_first, wanted=joint._blocks)
    longer = torch.cat([caption, beside.tokens.expand(2, -1, -1)], 1)
    with torch.no_grad():
        plain = joint._denoise(latents, 100, condition)
        with beside:
            carried = joint._denoise(latents, 100, condition | {"encoder_hidden_states": longer})
        seen = joint._denoise(latents, 100, condition | {"encoder_hidden_states": longer})
    assert torch.allclose(plain, carried, atol=1e-5)
    assert not torch.allclose(plain, seen, atol=1e-5), "without the mode the image would see them"


def test_an_attention_that_is_not_seen_is_an_error(joint: JointBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a backend that does not call scaled_dot_product_attention."""
    monkeypatch.setattr(
        LabelsBeside,
        "__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **(kwargs or {})),
    )
    latents = torch.randn(1, joint.pipe.vae.config.latent_channels, 8, 8)
    with pytest.raises(BackboneError, match="no attention map arrived") as caught:
        joint.features(latents, [""], ("dog",))
    assert "backend" in str(caught.value)


def test_outlier_channels_count_like_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, 6)
    loud = x.clone()
    loud[:, 2] *= 1e3
    loud[0, 3, 0, 0] = 1e4
    y = normalise_outlier_channels(loud)
    assert torch.allclose(y[:, 2], normalise_outlier_channels(x)[:, 2], atol=1e-5) and float(y.abs().max()) <= 6
    assert normalise_outlier_channels(torch.zeros(1, 2, 3, 3)).isfinite().all()
    assert torch.allclose(normalise_outlier_channels(loud)[1:], normalise_outlier_channels(loud[1:])), (
        "each image by itself"
    )


def test_flow_inversion_is_undone_by_the_sampler(joint: JointBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Euler backwards and forwards again, with steps of the same length."""
    monkeypatch.setattr(joint, "config", FeatureConfig((300,), "ddim", 100, 32))
    latents = torch.randn(1, joint.pipe.vae.config.latent_channels, 8, 8)
    condition = joint._condition(["a dog"])
    with torch.no_grad():
        there = joint._invert(latents, 300, condition)
        x = there
        for t in range(300, 0, -10):
            x = x - 0.01 * joint._denoise(x, t, condition)
        assert torch.equal(joint._invert(latents, 0, condition), latents)
    assert float((x - latents).abs().mean()) < 0.1 * float((there - latents).abs().mean())


@pytest.mark.slow
def test_stable_diffusion_3_without_its_largest_encoder(tmp_path: Path) -> None:
    """Its authors allow to leave T5 out; labels are then read by CLIP alone."""
    backbone = without(sd3(), tmp_path, text_encoder_3=None, tokenizer_3=None)
    features = backbone.features(torch.randn(1, 8, 8, 8), ["a dog"], ("dog", "potted plant"))
    assert {s.kind for s in backbone.specs} == {"hidden", "attention", "vae"}
    assert features.text.shape == (2, 32 + 64) and backbone._words(("dog",)).used.sum() == 7


def test_flux_schnell_takes_no_guidance(tmp_path: Path) -> None:
    backbone = without(flux(guidance_embeds=False), tmp_path)
    assert (backbone.steps, backbone.guidance) == (4, 1.0)
    latents = backbone.sample([Prompt("a dog", (), 1)], 1, 1.0)
    assert backbone.features(latents, [""], ("dog",)).maps["block1@100"].isfinite().all()


def without(pipe: Any, folder: Path, **parts: None) -> Any:
    """A pipeline saved and loaded without some of its parts."""
    pipe.register_modules(**parts)
    quiet(lambda: pipe.save_pretrained(folder, safe_serialization=True))
    return load_backbone(str(folder), config=FeatureConfig(size=32), device="cpu", dtype=torch.float32)
