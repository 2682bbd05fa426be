"""What a training writes of its steps: `log.jsonl`, and events for TensorBoard where they are asked for."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError
from datasetdm.io.files import write_text

LOG = "log.jsonl"
"""One line per logged step: step, loss, learning rate, seconds since the command began."""
EVENTS = "tensorboard"
"""The folder of TensorBoard's events."""


def require_tensorboard() -> None:
    """Raises ConfigError if the package is missing."""
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "events for TensorBoard need the package tensorboard, which is not there",
            remedy="pip install 'datasetdm[tensorboard]', or leave --tensorboard out",
        )


class TrainingLog:
    """The log of a training that goes on after `step`; what an earlier run logged of later steps is dropped.

    Args:
        out: the training's folder.
        images: per step.
        events: whether TensorBoard's are written, too.
    """

    def __init__(self, out: Path, step: int, images: int, events: bool):
        self.path, self.images, self.began = out / LOG, images, time.monotonic()
        self._last = (step, self.began)
        if self.path.exists():
            rows = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            write_text(self.path, "".join(f"{line}\n" for line in rows))
        self._writer: Any = None
        if events:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(out / EVENTS), purge_step=step + 1)

    def add(self, step: int, loss: float, learning_rate: float) -> None:
        """Log one step."""
        now = time.monotonic()
        row = {
            "step": step,
            "loss": round(loss, 5),
            "learning_rate": learning_rate,
            "seconds": round(now - self.began, 2),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer is not None:
            last, before = self._last
            speed = (step - last) * self.images / max(now - before, 1e-9)
            values = {"loss": loss, "learning_rate": learning_rate, "images_per_second": speed}
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        self._last = step, now

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a kill cut off
        return float("inf")
