"""One time-boxed run of a training stage: its clock, log and checkpoint, on the parts of `datasetdm.training.loop`.

A checkpoint holds the averaged weights (`average.*`), the learner's (`model.*`), its optimiser's state
(`model.optimiser.*`), both of a helper (`helper.*`: a VAE's critic, a UNet's reader of words) and the counts. The
averaged weights alone are enough to go on. All random numbers are a function of the seed and the step's number, so a
stopped and resumed training takes the same steps as one that never stopped.
"""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from datasetdm.decoder.tensor_files import load_numbers
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)
from torch import Tensor, nn

from . import PretrainError, hardware
from .work import Work

WARM_UP = 300
"""Steps in which the learning rate rises."""
DECAY = 0.25
"""Fraction of a final run in which the learning rate falls to zero."""
LOG_SECONDS, SAVE_SECONDS = 15, 300
WEIGHT_DECAY = 0.01
MAX_GRADIENT = 1.0
"""Norm at which gradients of the stage's network are clipped."""


@dataclass(frozen=True)
class Budget:
    """How long a run may take: minutes, and if given steps. final: let the learning rate fall to zero at the end."""

    minutes: float
    steps: int | None = None
    final: bool = False

    def __post_init__(self):
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise PretrainError("minutes and steps must be positive")


@dataclass
class State:
    """What lies behind a stage, over all its runs.

    counted_from: `import` where weights of unknown history were imported, so that the counts are of what came after.
    warm_up_from: step at which the present warm-up began. mode: what kind of run the last was. figures: held-out ones.
    """

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    counted_from: str = "start"
    warm_up_from: int = 0
    mode: str = ""
    critic_steps: int = 0
    data: str = ""
    hardware: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, work: Work, stage: str) -> State:
        """The state of a stage; a fresh one if it has not run."""
        path = work.checkpoint(stage)
        return cls(**load_numbers(path)) if path.is_file() else cls()


def make_learner(
    module: nn.Module, learning_rate: float, betas: tuple[float, float] = (0.9, 0.99), clip: float = math.inf
) -> Learner:
    """A network with AdamW."""
    optimiser = torch.optim.AdamW(module.parameters(), learning_rate, betas, weight_decay=WEIGHT_DECAY, fused=True)
    return Learner(module, optimiser, clip)


class Run:
    """One time-boxed run of a stage. Ask `alive`, sample from `generator`, call `step`; at the end `save`.

    Args:
        stage: name of the checkpoint.
        module: what learns.
        learning_rate: its peak.
        ema: the most that the averaged weights keep per step.
        mode: what kind of run it is; another kind than the last one's warms up anew.
        helper: what learns beside it, by steps of its own.
    """

    def __init__(
        self,
        stage: str,
        module: nn.Module,
        learning_rate: float,
        work: Work,
        budget: Budget,
        *,
        ema: float,
        seed: int,
        mode: str = "",
        helper: Learner | None = None,
    ):
        self.stage, self.helper, self.work, self.budget = stage, helper, work, budget
        self.learner, self.learning_rate = make_learner(module, learning_rate, clip=MAX_GRADIENT), learning_rate
        self.ema, self.seed = ema, seed
        self.average, self.state = WeightAverage(module), State.load(work, stage)
        goes_on = self._load() and self.state.mode == mode and not budget.final
        self.state.mode = "final" if budget.final else mode
        if not goes_on:
            self.state.warm_up_from = self.state.step
        if hardware.describe() not in self.state.hardware:
            self.state.hardware.append(hardware.describe())
        self.began = self.saved = self.logged = time.monotonic()
        self.first, self.logged_samples = self.state.step, self.state.samples
        self.losses: list[Tensor] = []

    def alive(self) -> bool:
        """Whether there is time for another step."""
        return self._done() < 1

    def generator(self) -> torch.Generator:
        """Random numbers for this step, which depend on nothing but seed, stage and the step's number."""
        words = [self.seed, zlib.crc32(self.stage.encode()), self.state.step]
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        return torch.Generator(hardware.device()).manual_seed(seed)

    def step(self, loss: Tensor, count: int) -> None:
        """Learns from a loss over `count` samples; now and then says how it goes, and saves."""
        rate = self.learning_rate * self._rate()
        self.learner.step(loss, rate)
        self.state.step += 1
        self.state.samples += count
        imported = self.state.counted_from == "import"
        self.average.update(self.ema if imported else average_decay(self.state.step, self.ema))
        self.losses.append(loss.detach())
        now = time.monotonic()
        if now - self.logged > LOG_SECONDS:
            self._log(now, rate)
        if now - self.saved > SAVE_SECONDS:
            self.save()

    def save(self, **figures: float) -> None:
        """Writes the checkpoint; figures: what was measured on held-out images."""
        if self.losses:
            self._mean_loss()
        now = time.monotonic()
        self.state.seconds += now - self.saved
        self.saved = now
        self.state.figures |= figures
        save_checkpoint(self.work.checkpoint(self.stage), self.average, self._learners(), asdict(self.state))

    def summary(self) -> str:
        """What this run did and what lies behind the stage by now."""
        state, taken = self.state, time.monotonic() - self.began
        figures = "".join(f", {name} {value:.2f}" for name, value in state.figures.items())
        return (
            f"{self.stage}: {state.step - self.first} steps in {taken:.0f} s; in all {state.step} steps, "
            f"{state.samples} samples, {state.seconds / 60:.1f} minutes{figures}"
        )

    def _learners(self) -> dict[str, Learner]:
        return {"model": self.learner} | ({"helper": self.helper} if self.helper else {})

    def _load(self) -> bool:
        """Take up the checkpoint; whether the optimiser's state was in it."""
        found = load_checkpoint(
            self.work.checkpoint(self.stage), self.average, self._learners(), device=hardware.device()
        )
        if found is None:
            return False
        if self.helper and "helper" not in found.learners:
            self.state.critic_steps = 0
        if "model" not in found.learners:
            self.learner.module.load_state_dict(self.average.module.state_dict())
        return "model" in found.learners

    def _done(self) -> float:
        """Fraction of the budget that is spent."""
        time_spent = (time.monotonic() - self.began) / (60 * self.budget.minutes)
        return max(time_spent, (self.state.step - self.first) / self.budget.steps if self.budget.steps else 0)

    def _rate(self) -> float:
        """The factor of the learning rate at this step."""
        rise = warm_up(self.state.step - self.state.warm_up_from, WARM_UP)
        return rise * (linear_decay(self._done(), DECAY) if self.budget.final else 1.0)

    def _mean_loss(self) -> float:
        """The mean since the last call; broken weights are not kept."""
        mean = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not math.isfinite(mean):
            raise PretrainError(f"the loss of {self.stage} is no number by step {self.state.step}; nothing is saved")
        return mean

    def _log(self, now: float, rate: float) -> None:
        speed = (self.state.samples - self.logged_samples) / (now - self.logged)
        left = 60 * self.budget.minutes - (now - self.began)
        loss = self._mean_loss()
        self.logged, self.logged_samples = now, self.state.samples
        counts = f"step {self.state.step} samples {self.state.samples} {speed:.0f}/s"
        print(f"{self.stage} {counts} loss {loss:.4f} rate {rate:.1e} left {left:.0f} s", flush=True)


def linear_decay(progress: float, fraction: float) -> float:
    """Factor of the learning rate at a fraction of the run: 1 until its last `fraction`, then linear to 0."""
    return min(1.0, max(1 - progress, 0) / fraction)
