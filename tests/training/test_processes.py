"""Several processes that train one model: the same weights as one process, and one that writes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datasetdm.errors import ConfigError
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import iter_train
from datasetdm.records import Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from datasetdm.training.loop import Learner
from datasetdm.training.processes import ALONE, Processes, joined

LABELS = Labels(("dog",), skeletons={"dog": Skeleton(("nose", "tail"))})
STEPS = 4
FORK = multiprocessing.get_context("fork")  # with all imports done


def posed(number: int) -> Sample:
    """Noise with the same object everywhere, so that the loss of a part of a batch weighs as much as that of another."""
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 8:32, 8:32] = True
    return Sample(
        f"s{number}",
        np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8),
        LABELS,
        instances=Instances.from_masks(mask, [0]),
        keypoints=Keypoints(np.array([[[14, 14], [26, 24]]], np.float32), np.full((1, 2), 2), (("nose", "tail"),)),
    )


def train(store: Path, out: Path, steps: int | None = None, batch: int = 4) -> int:
    """Train up to a step; how many were made."""
    config = TrainConfig(
        student="vitpose", size=64, batch=batch, steps=STEPS, save_every=2, warm_up=1, augment=False, tensorboard=True
    )
    return len(list(islice(iter_train(Store(store), out, config=config, device="cpu"), steps)))


def train_as(rank: int, port: int, store: Path, out: Path, steps: int | None) -> None:
    """One of two processes, as torchrun starts them."""
    os.environ.update(
        RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}"
    )
    train(store, out, steps)


def train_with_two(store: Path, out: Path, steps: int | None) -> list[int | None]:
    """The exit codes of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [FORK.Process(target=train_as, args=(rank, port, store, out, steps)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        process.kill()  # one that hangs
    return [p.exitcode for p in both]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    write_store((posed(i) for i in range(4)), tmp_path / "store", LABELS)
    train(tmp_path / "store", tmp_path / "one")
    assert train_with_two(tmp_path / "store", tmp_path / "two", 2) == [0, 0]
    assert (tmp_path / "two" / "work" / "checkpoint.safetensors").exists()
    assert train_with_two(tmp_path / "store", tmp_path / "two", None) == [0, 0]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(value, two[name], atol=1e-6) for name, value in one.items())
    files = [sorted(p.name for p in (tmp_path / name).iterdir() if p.name[0] != ".") for name in ("one", "two")]
    assert files[0] == files[1] and "work" not in files[0]
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 1
    train(tmp_path / "store", tmp_path / "half", batch=2)
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert not all(torch.allclose(value, half[name], atol=1e-5) for name, value in one.items())


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as (processes, device):
        assert processes is ALONE and processes.first and device.type == "cpu"
        processes.wait()
    value = torch.ones(2)
    assert ALONE.mean(value) is value


def test_gradients_are_averaged_over_those_that_used_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is played: its gradient is 4 everywhere, and it used the second weight alone."""
    network = torch.nn.ParameterList([torch.zeros(2), torch.zeros(3), torch.zeros(1)])

    def reduce(own: torch.Tensor) -> None:
        own += torch.tensor([0.0, 1.0, 0.0]) if own.numel() == 3 else torch.tensor([0.0, 0.0, 4.0, 4.0, 4.0])

    monkeypatch.setattr("torch.distributed.all_reduce", reduce)
    Learner(network, torch.optim.SGD(network.parameters(), 1.0), processes=Processes(0, 2)).step(
        (2 * network[0]).sum(), 1.0
    )
    assert [p.tolist() for p in network] == [[-1, -1], [-2, -2, -2], [0]] and network[2].grad is None


def test_a_batch_that_cannot_be_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store([posed(0)], tmp_path / "store", LABELS)
    monkeypatch.setattr("datasetdm.pipelines.train.joined", _Joined)
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)
    with pytest.raises(ConfigError, match="4 images per step cannot be split over 3 processes"):
        train(tmp_path / "store", tmp_path / "out")


class _Joined:
    """Three processes, of which this is the first."""

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> tuple[Processes, torch.device]:
        return Processes(0, 3), self.device

    def __exit__(self, *_: object) -> None: ...
