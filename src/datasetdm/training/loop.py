"""What every training shares: schedules of the learning rate, one optimiser step, averaged weights, checkpoints.

A checkpoint is one safetensors file with the averaged weights (`average.*`), every learner's weights (`NAME.*`) and its
optimiser's state (`NAME.optimiser.*`), and counts in the header.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasetdm.decoder.tensor_files import below, load_numbers, load_tensors, save_tensors
from datasetdm.errors import ConfigError
from datasetdm.training.processes import ALONE, Processes

AVERAGE_DELAY = 10
"""Steps after which averaged weights have forgotten half of the random first ones."""


def warm_up(step: int, steps: int) -> float:
    """Factor of the learning rate at `step` (from 0): rises linearly and is 1 from step `steps - 1` on."""
    return min(1.0, (step + 1) / steps)


def cosine(progress: float) -> float:
    """Factor of the learning rate at a fraction of the run: 1 at 0, 0 at 1 (Loshchilov & Hutter 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def average_decay(steps: int, most: float) -> float:
    """Decay of averaged weights after `steps` steps: it grows to `most`, so that the random first weights are forgotten."""
    return min(most, steps / (AVERAGE_DELAY + steps))


class WeightAverage:
    """Exponential moving average of a network's weights, held in a copy of the network: `module`, in evaluation mode."""

    def __init__(self, source: nn.Module):
        self.module = copy.deepcopy(source).eval()
        pairs = list(zip(self.module.state_dict().values(), source.state_dict().values(), strict=True))
        self._floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        self._counts = [(a, b) for a, b in pairs if not a.is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Keep `decay` of what was and take the rest from the network; integer buffers are copied."""
        averages, sources = ([p[i] for p in self._floats] for i in range(2))
        torch._foreach_lerp_(averages, sources, 1 - decay)
        for average, source in self._counts:
            average.copy_(source)


class Learner:
    """A network with its optimiser.

    Args:
        clip: the most that the gradient's norm may be.
        processes: those that train it together.
    """

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        clip: float = math.inf,
        processes: Processes = ALONE,
    ):
        self.module, self.optimiser, self.clip, self.processes = module, optimiser, clip, processes

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """One step down the loss' gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.module)
        if math.isfinite(self.clip):
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimiser.step()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Weights as NAME.*, the optimiser's state as NAME.optimiser.*."""
        tensors = {f"{name}.{key}": value for key, value in self.module.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.optimiser.{number}.{key}": value for key, value in state.items()}
        return tensors

    def load(self, name: str, tensors: Mapping[str, Tensor]) -> bool:
        """Take up what `tensors` gave; whether it was there."""
        own = below(tensors, f"{name}.")
        if not own:
            return False
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in below(own, "optimiser.").items():
            number, part = key.split(".")
            state.setdefault(int(number), {})[part] = value
        self.module.load_state_dict({k: v for k, v in own.items() if not k.startswith("optimiser.")})
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        return True


@dataclass(frozen=True)
class Resumed:
    """What a checkpoint held beside weights: its counts, and the names of the learners that go on from it."""

    numbers: Mapping[str, Any]
    learners: frozenset[str]


def save_checkpoint(
    path: Path, average: WeightAverage, learners: Mapping[str, Learner], numbers: Mapping[str, Any]
) -> None:
    """Write all that a resumed training needs, whole or not at all. `numbers`: JSON-ready counts."""
    tensors = {f"average.{key}": value for key, value in average.module.state_dict().items()}
    for name, learner in learners.items():
        tensors |= learner.tensors(name)
    save_tensors(path, tensors, numbers)


def load_checkpoint(
    path: Path, average: WeightAverage, learners: Mapping[str, Learner], device: torch.device | str = "cpu"
) -> Resumed | None:
    """Take up a checkpoint, or do nothing and return None where there is none.

    The averaged weights alone are enough: learners that the file does not hold stay as they are.

    Raises:
        DataError: no safetensors file.
        ConfigError: the weights of another network.
    """
    if not path.is_file():
        return None
    tensors = load_tensors(path, str(device))
    try:
        average.module.load_state_dict(below(tensors, "average."))
        found = frozenset(name for name, learner in learners.items() if learner.load(name, tensors))
    except RuntimeError as e:
        raise ConfigError(
            "the checkpoint holds another network",
            where=path,
            expected="the settings that it was begun with",
            remedy="use those settings, or another folder",
        ) from e
    return Resumed(load_numbers(path), found)
