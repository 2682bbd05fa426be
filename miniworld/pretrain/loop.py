"""What both training stages share: optimiser, averaged weights, clock, checkpoint.

A checkpoint is one file with the averaged weights (`average.*`), the ones that learn (`model.*`), the optimiser's
memory (`model.optimiser.*`), both of a helper (`helper.*`: a VAE's critic, a UNet's reader of words) and the counts.
The first alone is enough to go on. All random draws are a function of the seed and the step's number, so a stopped and
resumed training takes the same steps as one that never stopped.
"""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from . import PretrainError, hardware
from .files import below, load_numbers, load_tensors, save_tensors
from .work import Work

WARM_UP = 300
"""Steps in which the learning rate rises."""
DECAY = 0.25
"""Share of a final run in which the learning rate falls to zero."""
LOG_SECONDS, SAVE_SECONDS = 15, 300


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


class Learner:
    """A network with its optimiser."""

    def __init__(self, module: nn.Module, learning_rate: float, betas: tuple[float, float] = (0.9, 0.99)):
        self.module, self.learning_rate = module, learning_rate
        self.optimiser = torch.optim.AdamW(module.parameters(), learning_rate, betas, weight_decay=0.01, fused=True)

    def update(self, loss: Tensor, rate: float, clip: float = math.inf) -> None:
        """One step at `rate` times the learning rate; the gradient's norm is cut at `clip`."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if math.isfinite(clip):
            nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.optimiser.step()

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Weights as NAME.*, the optimiser's memory as NAME.optimiser.*."""
        tensors = {f"{name}.{key}": value for key, value in self.module.state_dict().items()}
        for number, memory in self.optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.optimiser.{number}.{key}": value for key, value in memory.items()}
        return tensors

    def load(self, name: str, tensors: dict[str, Tensor]) -> bool:
        """Takes up what `tensors` gave; whether it was there."""
        own = below(tensors, f"{name}.")
        if not own:
            return False
        memory: dict[int, dict[str, Tensor]] = {}
        for key, value in below(own, "optimiser.").items():
            number, part = key.split(".")
            memory.setdefault(int(number), {})[part] = value
        self.module.load_state_dict({k: v for k, v in own.items() if not k.startswith("optimiser.")})
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": memory})
        return True


class Average:
    """Exponential moving average of a network's weights."""

    def __init__(self, module: nn.Module):
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}
        floats = [name for name, value in self.tensors.items() if value.is_floating_point()]
        source = module.state_dict()
        self._pairs = [self.tensors[name] for name in floats], [source[name] for name in floats]

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up saved averages, whatever their precision."""
        shapes = [{name: value.shape for name, value in some.items()} for some in (tensors, self.tensors)]
        if shapes[0] != shapes[1]:
            raise PretrainError("the checkpoint holds another network: was the preset changed since?")
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def update(self, keep: float) -> None:
        """Keeps the share `keep` of what was, and takes the rest from the network."""
        torch._foreach_lerp_(*self._pairs, 1 - keep)


class Run:
    """One time-boxed run of a stage. Ask `alive`, draw from `generator`, call `step`; at the end `save`."""

    def __init__(
        self,
        stage: str,
        learner: Learner,
        work: Work,
        budget: Budget,
        *,
        ema: float,
        seed: int,
        mode: str = "",
        helper: Learner | None = None,
    ):
        self.stage, self.learner, self.helper, self.work = stage, learner, helper, work
        self.budget, self.ema, self.seed = budget, ema, seed
        self.average, self.state = Average(learner.module), State.load(work, stage)
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
        rate = self._rate()
        self.learner.update(loss, rate, clip=1.0)
        self.state.step += 1
        self.state.samples += count
        ramp = (1 + self.state.step) / (10 + self.state.step)  # forgets the random first weights
        self.average.update(self.ema if self.state.counted_from == "import" else min(self.ema, ramp))
        self.losses.append(loss.detach())
        now = time.monotonic()
        if now - self.logged > LOG_SECONDS:
            self._log(now, rate)
        if now - self.saved > SAVE_SECONDS:
            self.save()

    def save(self, **figures: float) -> None:
        """Writes the checkpoint; figures: what was measured on held-out pictures."""
        if self.losses:
            self._mean_loss()
        now = time.monotonic()
        self.state.seconds += now - self.saved
        self.saved = now
        self.state.figures |= figures
        tensors = {f"average.{name}": value for name, value in self.average.tensors.items()}
        tensors |= self.learner.tensors("model") | (self.helper.tensors("helper") if self.helper else {})
        save_tensors(self.work.checkpoint(self.stage), tensors, asdict(self.state))

    def summary(self) -> str:
        """What this run did and what lies behind the stage by now."""
        state, taken = self.state, time.monotonic() - self.began
        figures = "".join(f", {name} {value:.2f}" for name, value in state.figures.items())
        return (
            f"{self.stage}: {state.step - self.first} steps in {taken:.0f} s; in all {state.step} steps, "
            f"{state.samples} samples, {state.seconds / 60:.1f} minutes{figures}"
        )

    def _load(self) -> bool:
        """Takes up the checkpoint; whether the optimiser's memory was in it."""
        path = self.work.checkpoint(self.stage)
        if not path.is_file():
            return False
        tensors = load_tensors(path, str(hardware.device()))
        self.average.load(below(tensors, "average."))
        if self.helper and not self.helper.load("helper", tensors):
            self.state.critic_steps = 0
        if self.learner.load("model", tensors):
            return True
        self.learner.module.load_state_dict(self.average.tensors)
        return False

    def _done(self) -> float:
        """Share of the budget that is spent."""
        time_spent = (time.monotonic() - self.began) / (60 * self.budget.minutes)
        return max(time_spent, (self.state.step - self.first) / self.budget.steps if self.budget.steps else 0)

    def _rate(self) -> float:
        """The factor of the learning rate at this step."""
        rise = min(1.0, (self.state.step - self.state.warm_up_from + 1) / WARM_UP)
        return rise * (min(1.0, max(1 - self._done(), 0) / DECAY) if self.budget.final else 1.0)

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
        loss, rate = self._mean_loss(), rate * self.learner.learning_rate
        self.logged, self.logged_samples = now, self.state.samples
        counts = f"step {self.state.step} samples {self.state.samples} {speed:.0f}/s"
        print(f"{self.stage} {counts} loss {loss:.4f} rate {rate:.1e} left {left:.0f} s", flush=True)
