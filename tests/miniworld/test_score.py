"""The judge of the embedded model (miniworld/score): its figures against references, and the committed oracle."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from miniworld.score import figures
from miniworld.score.__main__ import main
from miniworld.score.oracle import EMBEDDINGS, Oracle, load_oracle, look
from miniworld.score.renders import CATEGORIES, PLACES, Renders, read_renders
from miniworld.score.train import OracleConfig, train
from safetensors.torch import load_file

from datasetdm.decoder.tensor_files import load_numbers, load_tensors

RENDERS = Path(__file__).parent.parent.parent / "data" / "miniworld"


@pytest.fixture(scope="module")
def held() -> Renders:
    return read_renders(RENDERS, ["val"])


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return load_oracle()


def test_frechet_of_gaussians_known_in_closed_form() -> None:
    """With commuting covariances: |ma - mb|^2 + sum (sa - sb)^2, here from samples whose moments are exact."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    sa, sb, shift = np.array([1.0, 2, 3, 0.5]), np.array([2.0, 2, 1, 0.1]), np.array([0.3, 0, -1, 2])
    a, b = rows * sa @ turn.T, rows * sb @ turn.T + shift
    assert figures.frechet(a, b) == pytest.approx((shift**2).sum() + ((sa - sb) ** 2).sum(), rel=1e-6)
    assert figures.frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_colour_psnr_sees_what_brightness_hides() -> None:
    true = torch.full((1, 3, 8, 8), 0.5)
    made = true.clone()
    made[:, 0] += 0.1
    made[:, 1] -= 0.1
    assert figures.psnr(made, true) == pytest.approx(-10 * math.log10(0.02 / 3), rel=1e-4)
    difference = (figures.opponents(made) - figures.opponents(true))[0]
    assert torch.allclose(difference[0], torch.tensor(0.1)) and torch.allclose(
        difference[1], torch.tensor(0.0), atol=1e-6
    )


def test_copies_are_memorised_and_strangers_are_not() -> None:
    torch.manual_seed(0)
    training, held, others = torch.randn(3000, 8), torch.randn(800, 8), torch.randn(400, 8)
    assert figures.memorised(training[:400], held, training) == 1
    assert figures.memorised(others, held, training) < 0.03


def test_found_counts_all_that_was_asked_for() -> None:
    counts = torch.tensor([[1, 0, 0], [0, 2, 0], [1, 1, 0], [0, 0, 1]])
    presence = torch.tensor([[0.9, 0, 0], [0.9, 0.1, 0], [0.9, 0.2, 0], [0, 0, 0.6]])
    bar = torch.full((3,), 0.5)
    assert figures.found(presence, bar, counts, 1) == pytest.approx(2 / 3)
    assert figures.found(presence, bar, counts, 2) == 0
    assert figures.false_alarms(presence, bar, counts) == pytest.approx(1 / 7)


def test_thresholds_bound_false_alarms() -> None:
    torch.manual_seed(0)
    seen = (torch.rand(2000, 3) < 0.2).long()
    presence = (torch.rand(2000, 3) * 0.6 + 0.4 * seen).clamp(0, 1)
    bar = figures.choose_thresholds(presence, seen, 0.02)
    assert figures.false_alarms(presence, bar, seen) <= 0.021


def test_the_oracle_reads_renders(oracle: Oracle, held: Renders) -> None:
    """200 renders that it never saw; the bounds are a little below what was measured."""
    reading = look(oracle, held.images)
    assert float((reading.places.argmax(1) == held.places).float().mean()) > 0.9
    bar = torch.full((len(CATEGORIES),), 0.5)
    assert figures.found(reading.presence, bar, held.counts, 1) > 0.6
    assert figures.false_alarms(reading.presence, bar, held.seen) < 0.03


def test_embeddings_are_of_this_oracle(oracle: Oracle, held: Renders) -> None:
    """Features of the training renders spread as those of others do."""
    training = load_file(EMBEDDINGS)["features"].float()
    own = look(oracle, held.images).features
    assert training.shape == (14400, 64)
    ratio = figures.frechet(training.numpy(), own.numpy()) / float(training.var(0).sum())
    assert ratio < 0.2


def test_renders_know_what_is_asked_for(held: Renders) -> None:
    for caption, counts, place in zip(held.captions[:50], held.counts[:50], held.places[:50], strict=True):
        assert counts.sum() > 0 and 0 <= int(place) < len(PLACES)
        if "two boats" in caption:
            assert counts[CATEGORIES.index("boat")] == 2


@pytest.mark.slow
def test_a_quick_score_has_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniworld.score.__main__.STEPS", 2)
    monkeypatch.setattr("miniworld.score.__main__.read_renders", lambda folder, parts: read_renders(folder, parts)[:96])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers and torch warn about each other
        main(["--count", "32", "--json", str(tmp_path / "s.json"), "--sheet", str(tmp_path / "s.png")])
    value = json.loads((tmp_path / "s.json").read_text())
    keys = {
        "preset", "samples_seen", "vae_psnr", "colour_psnr", "category_found", "place_found", "two_categories_found",
        "frechet_ratio", "memorised", "weights_mb", "seconds_per_picture",
    }  # fmt: skip
    assert keys <= value.keys() and value["count"] == 32 and value["preset"] in ("cpu", "gpu")
    assert value["vae_psnr"] > 25 and value["weights_mb"] < 64


def test_a_model_without_its_story_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(tmp_path)])
    assert stop.value.code == 2 and "training.json is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_the_oracles_training_goes_on(tmp_path: Path, held: Renders) -> None:
    """Two calls: the second one starts at the first one's last step, with its weights."""
    few, config = held[:8], OracleConfig(batch=4)
    train(config, few, few.images[:2], 1e-3, tmp_path)
    first = load_numbers(tmp_path / "oracle.safetensors")["step"]
    oracle = train(config, few, few.images[:2], 1e-3, tmp_path)
    assert load_numbers(tmp_path / "oracle.safetensors")["step"] > first >= 1
    kept = load_tensors(tmp_path / "oracle.safetensors")
    assert all(torch.equal(kept[f"average.{k}"], v) for k, v in oracle.state_dict().items())
    assert any(k.startswith("model.optimiser.") for k in kept)
