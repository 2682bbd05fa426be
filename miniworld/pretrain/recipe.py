"""All stages in a row: data in, a pipeline folder out."""

from __future__ import annotations

from pathlib import Path

from .data import Captioned
from .loop import Budget, State
from .pipeline import export
from .sheet import sheet
from .unet import train_unet
from .vae import train_vae
from .work import Work


def train_all(
    work: Work,
    data: Captioned,
    out: Path,
    *,
    vae_minutes: float,
    unet_minutes: float,
    steps: int | None = None,
    seed: int = 0,
    compiled: bool = True,
) -> None:
    """Trains both stages, exports to `out` and draws a sheet in the work folder.

    The minutes are totals: what the work folder has behind it counts, so the same call goes on after an interruption.
    steps: a limit for each stage.
    """
    for stage, train, minutes in (("vae", train_vae, vae_minutes), ("unet", train_unet, unet_minutes)):
        total = Budget(minutes, steps, final=True)
        left = total.minutes - State.load(work, stage).seconds / 60
        if left > 0:
            run = train(work, data, Budget(left, steps, final=True), seed=seed, compiled=compiled)
            print(run.summary(), flush=True)
    print(f"{out}: {export(work, out) / 1e6:.1f} MB of weights", flush=True)
    sheet(work, work.folder / "sheet.png")
