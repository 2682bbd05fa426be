"""The training recipe of the embedded model (miniworld/pretrain), with a preset that learns nothing worth a look."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from miniworld.pretrain import PretrainError
from miniworld.pretrain.__main__ import main
from miniworld.pretrain.config import PRESETS
from miniworld.pretrain.data import mirrored, pack, read
from miniworld.pretrain.loop import State, linear_decay
from miniworld.pretrain.models import Conditional, build_tokenizer, build_vae
from miniworld.pretrain.pipeline import export
from miniworld.pretrain.restore import import_pipeline
from miniworld.pretrain.vae import colours, distance
from miniworld.pretrain.work import Work
from PIL import Image

from datasetdm.decoder.tensor_files import below, load_tensors

pytestmark = pytest.mark.slow

CAPTIONS = ("a red square to the left of a wall", "a green square", "a blue square on the grass", "a photo of a square")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen squares, as `miniworld.pack` would write them."""
    folder, rng, rows = tmp_path_factory.mktemp("renders"), np.random.default_rng(0), []
    for i in range(16):
        pixels = np.full((128, 128, 3), 200, np.uint8)
        top, left = rng.integers(0, 80, 2)
        pixels[top : top + 40, left : left + 40] = np.roll([220, 40, 40], i % 4)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append({"key": f"captioned-{i}", "image": buffer.getvalue(), "caption": CAPTIONS[i % 4]})
    pq.write_table(pa.Table.from_pylist(rows), folder / "captioned-000000.parquet")
    return folder


def run(*words: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers and torch warn about each other
        main([str(w) for w in words])


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which both stages have run for a few steps."""
    folder = tmp_path_factory.mktemp("work") / "w"
    run("vae", "--data", data, "--work", folder, "--preset", "smoke", "--steps", 30, "--no-compile")
    run("unet", "--data", data, "--work", folder, "--steps", 30, "--no-compile")
    return folder


def test_it_learns(data: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both losses fall: means over the first five and the last five of 35 steps."""
    for stage in ("vae", "unet"):
        means = []
        for steps in (5, 25, 5):
            run(stage, "--data", data, "--work", tmp_path / "w", "--preset", "smoke", "--steps", steps, "--no-compile")
            means.append(_loss(tmp_path / "w", stage, data))
        assert means[1] < 0.9 * means[0], stage
        assert State.load(Work.existing(tmp_path / "w"), stage).step == 35


def _loss(folder: Path, stage: str, data: Path) -> float:
    """The loss of the learnt (not averaged) weights on fixed draws."""
    from miniworld.pretrain import unet
    from miniworld.pretrain.latents import load_latents
    from miniworld.pretrain.models import encode_captions, signal_shares
    from miniworld.pretrain.vae import normal

    work, seed = Work.existing(folder), torch.Generator().manual_seed(1)
    weights = below(load_tensors(work.checkpoint(stage)), "model.")
    weights = {k: v for k, v in weights.items() if not k.startswith("optimiser.")}
    with torch.no_grad():
        if stage == "vae":
            vae = build_vae(work.preset.vae)
            vae.load_state_dict(weights)
            x = normal(read([data]).images())
            return float(distance(vae.decode(vae.encode(x).latent_dist.mean).sample, x))
        model, tokenizer = unet.load_conditional(work)
        model.load_state_dict(weights)
        z = load_latents(work, read([data])).float()[:16]
        t, noise = torch.randint(1000, (16,), generator=seed), torch.randn(z.shape, generator=seed)
        tokens = encode_captions(tokenizer, read([data]).captions)
        return float(unet.loss(model, z, tokens, t, noise, signal_shares()))


def test_stopped_and_resumed_is_never_stopped(data: Path, work: Path, tmp_path: Path) -> None:
    for name, parts in (("whole", (6,)), ("parts", (2, 4))):
        for steps in parts:
            run("vae", "--data", data, "--work", tmp_path / name, "--preset", "smoke", "--steps", steps, "--no-compile")
    whole, parts = (load_tensors(tmp_path / name / "vae.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any("optimiser" in k for k in whole)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_the_weights_alone_are_enough_to_go_on(data: Path, work: Path, tmp_path: Path) -> None:
    export(Work.existing(work), tmp_path / "model")
    note = json.loads((tmp_path / "model" / "training.json").read_text())
    assert note["preset"] == "smoke" and note["steps"] == 30 and note["samples_seen"] == 30 * 8
    again = import_pipeline(tmp_path / "model", tmp_path / "again")
    assert State.load(again, "unet").samples == 240
    before, after = (load_tensors(f / "unet.safetensors") for f in (work, tmp_path / "again"))
    weights = [k for k in after if before[k].is_floating_point()]
    assert weights and all(torch.allclose(before[k], after[k], rtol=2e-3, atol=1e-5) for k in weights)
    run("unet", "--data", data, "--work", tmp_path / "again", "--steps", 2, "--no-compile")
    assert State.load(again, "unet").step == 32
    with pytest.raises(PretrainError, match="already holds a training"):
        import_pipeline(tmp_path / "model", tmp_path / "again")


def test_a_stock_pipeline_draws(work: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    export(Work.existing(work), tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model").to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red square", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (128, 128)
    run("sheet", "--work", work, "--out", tmp_path / "sheet.png", "a red square", "a green square")
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size == (256, 128)


def test_half_size_and_other_noise_levels(data: Path, work: Path) -> None:
    before = State.load(Work.existing(work), "unet").samples
    run("unet", "--data", data, "--work", work, "--steps", 2, "--no-compile", "--half", "--timesteps", "logit-normal")
    assert State.load(Work.existing(work), "unet").samples == before + 2 * 4 * 8


def test_words_are_read_off_pictures(data: Path, work: Path) -> None:
    """Without a caption the UNet's features come to tell the colour that the caption names."""
    from miniworld.pretrain import unet
    from miniworld.pretrain.latents import load_latents
    from miniworld.pretrain.words import WordReader, said, vocabulary

    captions = read([data]).captions
    words = vocabulary(captions)
    assert {"red", "green", "blue"} <= set(words) and "a" not in words
    truth = said(captions, words)
    assert truth[:, words.index("red")].tolist() == [float("red" in c) for c in captions]
    torch.manual_seed(0)
    model, tokenizer = unet.load_conditional(Work.existing(work))
    reader = WordReader(model.unet, tokenizer, words, 64)
    z = load_latents(Work.existing(work), read([data])).float()[:16]
    nothing = unet.encode_captions(tokenizer, [""] * 16)
    rows = torch.arange(16) % 2 == 0
    both = torch.optim.Adam([*reader.parameters(), *model.unet.parameters()], 3e-3)
    losses = []
    for _ in range(40):
        model(z, torch.zeros(16, dtype=torch.long), nothing)
        mine, own = reader.losses(model.text, rows, truth[rows])
        assert torch.equal(mine, own)
        both.zero_grad()
        mine.backward()
        assert next(model.unet.down_blocks.parameters()).grad is not None
        both.step()
        losses.append(mine.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_that_reads_words_goes_on_from_one_that_did_not(data: Path, work: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "w")
    for _ in range(2):
        run("unet", "--data", data, "--work", tmp_path / "w", "--steps", 2, "--no-compile", "--words", 0.25)
    kept = load_tensors(tmp_path / "w" / "unet.safetensors")
    assert any(k.startswith("helper.looks.") for k in kept) and "helper.optimiser.0.exp_avg" in kept
    assert not any("shares" in k for k in kept), "which word has which pieces follows from the tokenizer"
    with pytest.raises(SystemExit):
        run("unet", "--data", data, "--work", tmp_path / "w", "--steps", 2, "--words", 1.5)


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_presets_fit_their_size(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        networks = (
            build_vae(preset.vae),
            Conditional(preset.unet, preset.vae.latent_channels, build_tokenizer(CAPTIONS)),
        )
    assert 2 * sum(p.numel() for n in networks for p in n.parameters()) <= 64e6


def test_the_gpu_preset_takes_a_step(data: Path, tmp_path: Path) -> None:
    run("vae", "--data", data, "--work", tmp_path / "v", "--preset", "gpu", "--steps", 1, "--no-compile", "--batch", 1)
    run("unet", "--data", data, "--work", tmp_path / "v", "--steps", 1, "--no-compile", "--batch", 2)
    assert State.load(Work.existing(tmp_path / "v"), "unet").step == 1


def test_pack_keeps_pictures_and_captions(data: Path, tmp_path: Path) -> None:
    pack(read([data]), tmp_path / "p.safetensors")
    given, packed = read([data]), read([tmp_path / "p.safetensors"])
    assert packed.captions == given.captions and torch.equal(packed.images(), given.images())
    assert packed.identity == given.identity


def test_mirrors_swap_left_and_right() -> None:
    told = "a dog to the left of a cat, to the right of a cow"
    assert mirrored(told) == "a dog to the right of a cat, to the left of a cow"
    assert mirrored(mirrored(told)) == told


def test_colours_tell_red_from_green() -> None:
    red, green = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    red[:, 0] = green[:, 1] = 1
    difference = (colours(red) - colours(green)).abs().amax((0, 2, 3))
    assert difference[0] < 1e-6 and difference[1] > 5, "as bright as each other, and far apart"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("vae", "--data", "nowhere", "--work", "w"), "no data"),
        (("vae", "--data", "DATA", "--work", "w", "--preset", "cpus"), "unknown preset 'cpus'"),
        (("unet", "--data", "DATA", "--work", "w", "--preset", "smoke"), "run stage vae first"),
        (("vae", "--data", "DATA", "--work", "w", "--minutes", "0"), "not positive"),
        (("export", "--work", "w", "--out", "m"), "no work folder"),
        (("import", "--model", "nowhere", "--work", "w"), "no folder of a StableDiffusionPipeline"),
    ],
)
def test_one_clear_error(
    words: tuple[str, ...],
    what: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([str(data) if w == "DATA" else w for w in words])
    assert stop.value.code == 2 and what in capsys.readouterr().err


def test_a_work_folder_belongs_to_one_preset(work: Path) -> None:
    with pytest.raises(PretrainError, match="begun with preset smoke"):
        Work.open(work, "cpu")


def test_the_learning_rate_of_a_final_run_falls_at_its_end() -> None:
    assert [linear_decay(p, 0.25) for p in (0.0, 0.75, 0.875, 1.0, 1.2)] == [1, 1, 0.5, 0, 0]
