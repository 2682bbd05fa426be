"""What every training shares: schedules, averaged weights, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from datasetdm.decoder.tensor_files import load_numbers, load_tensors, save_tensors
from datasetdm.errors import ConfigError, DataError
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)


def network(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def learner(module: nn.Module, clip: float = float("inf")) -> Learner:
    return Learner(module, torch.optim.AdamW(module.parameters(), 0.1), clip)


def train(one: Learner, average: WeightAverage, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        one.step(one.module(x).square().mean(), 0.1 * warm_up(step, 4) * cosine(step / 10))
        average.update(average_decay(step + 1, 0.9))


def test_schedules() -> None:
    assert [warm_up(s, 4) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert cosine(0.0) == 1 and cosine(0.5) == pytest.approx(0.5) and cosine(1.0) == 0
    decays = [average_decay(s, 0.99) for s in range(2000)]
    assert decays == sorted(decays) and decays[0] == 0 and decays[-1] == 0.99


def test_an_average_is_the_weighted_mean_of_what_was() -> None:
    source = nn.Linear(1, 1, bias=False)
    average = WeightAverage(source)
    values, expected = [3.0, 5.0, -1.0], source.weight.item()
    for value in values:
        with torch.no_grad():
            source.weight.fill_(value)
        average.update(0.75)
        expected = 0.75 * expected + 0.25 * value
    assert average.module.get_parameter("weight").item() == pytest.approx(expected) and not average.module.training
    assert source.weight.item() == -1


def test_counts_are_copied_not_averaged() -> None:
    source = network()
    average = WeightAverage(source)
    source(torch.randn(4, 2))
    average.update(0.9)
    assert int(average.module.get_buffer("1.num_batches_tracked")) == 1


def test_gradients_are_clipped() -> None:
    module = nn.Linear(1, 1, bias=False)
    one = Learner(module, torch.optim.SGD(module.parameters(), 1.0), clip=0.5)
    start = module.weight.item()
    one.step(100 * module.weight.sum(), 0.1)
    assert module.weight.item() == pytest.approx(start - 0.05)


def test_stopped_and_resumed_is_never_stopped(tmp_path: Path) -> None:
    whole = learner(network())
    whole_average = WeightAverage(whole.module)
    train(whole, whole_average, 0, 9)
    first = learner(network())
    first_average = WeightAverage(first.module)
    train(first, first_average, 0, 5)
    save_checkpoint(tmp_path / "c.safetensors", first_average, {"model": first}, {"step": 5})
    again = learner(network())
    average = WeightAverage(again.module)
    found = load_checkpoint(tmp_path / "c.safetensors", average, {"model": again})
    assert found is not None and found.numbers == {"step": 5} and found.learners == {"model"}
    train(again, average, 5, 9)
    for a, b in ((whole.module, again.module), (whole_average.module, average.module)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_averaged_weights_alone_are_enough(tmp_path: Path) -> None:
    one = learner(network())
    average = WeightAverage(one.module)
    save_checkpoint(tmp_path / "c.safetensors", average, {}, {})
    found = load_checkpoint(tmp_path / "c.safetensors", average, {"model": one})
    assert found is not None and not found.learners
    assert load_checkpoint(tmp_path / "none.safetensors", average, {"model": one}) is None


def test_other_networks_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path, average = tmp_path / "c.safetensors", WeightAverage(network())
    save_checkpoint(path, average, {}, {})
    with pytest.raises(ConfigError, match="another network"):
        load_checkpoint(path, WeightAverage(network(5)), {})
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="no safetensors file"):
        load_checkpoint(path, average, {})


def test_a_killed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(2)}, {"step": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datasetdm.decoder.tensor_files.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"x": torch.zeros(2)}, {"step": 2})
    assert load_numbers(path) == {"step": 1} and load_tensors(path)["x"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
