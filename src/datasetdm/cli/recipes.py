"""Commands on whole recipes: run, recipes, demo."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, Field

from datasetdm.cli.bars import bars, say
from datasetdm.cli.tables import show_figures, show_measured, show_outcome, show_plan
from datasetdm.errors import ConfigError
from datasetdm.io.settings import Texts
from datasetdm.recipe.schema import GRAMMAR, GenerateStage, Recipe

_GENERATE = GenerateStage.model_fields


def run(
    recipe: Annotated[
        str,
        Parameter(help="A YAML file, or a recipe that comes with the package, which `datasetdm recipes` lists."),
    ],
    *,
    out: Annotated[Path, Parameter(help="The folder in which every stage writes a folder or file of its own.")],
    changes: Annotated[
        tuple[str, ...],
        Parameter(name="--set", consume_multiple=True, negative=(), help="Other settings: STAGE.SETTING=VALUE."),
    ] = (),
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Only print the plan: what is reused, time, disk, data that are not there.")
    ] = False,
    calibrate: Annotated[
        bool,
        Parameter(
            negative=(),
            help="With --dry-run: let the stages' own models make a few samples, and reckon time, GPU or processor hours and "
            "disk from them.",
        ),
    ] = False,
    smoke: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Run every stage in small, in OUT/smoke: the embedded model, a few steps, four images made on the spot.",
        ),
    ] = False,
) -> None:
    """Run the stages of a recipe; those whose inputs are the same as before are reused."""
    pairs = [c.partition("=") for c in changes]
    if wrong := [c for c, equals, _ in pairs if not equals]:
        raise ConfigError(
            f"--set {wrong[0]!r} cannot be read", expected="STAGE.SETTING=VALUE, for instance store.count=8"
        )
    if calibrate and not dry_run:
        raise ConfigError("--calibrate without --dry-run", expected="both: a plan whose figures are measured")
    _run(recipe, out, {place: value for place, _, value in pairs}, dry_run, smoke, calibrate)


def recipes(
    name: Annotated[
        str | None, Parameter(help="Show this recipe: its file, whose head says what it needs and gives.")
    ] = None,
    *,
    names: Annotated[bool, Parameter(negative=(), help="Only the names, one per line.")] = False,
) -> None:
    """List the recipes that come with the package, or show one."""
    from datasetdm.cli.tables import show_recipes
    from datasetdm.errors import unknown_name
    from datasetdm.recipe.run import load_recipe, shipped

    if names:
        print("\n".join(shipped()))
    elif name is None:
        show_recipes({n: load_recipe(n) for n in shipped()})
    elif name in shipped():
        print(shipped()[name].read_text(encoding="utf-8"), end="")
    else:
        raise unknown_name("recipe", name, shipped())


class DemoOptions(BaseModel):
    """What of the demo can be chosen."""

    fit: bool = Field(
        False, description="Fit the P-Decoder on the 100 packaged images first, instead of loading the shipped one."
    )
    count: int = Field(64, ge=1, description=_GENERATE["count"].description)
    seed: int = Field(0, ge=0, description="Another seed gives other prompts and other images.")
    prompts: Texts = Field((GRAMMAR,), min_length=1, description=_GENERATE["prompts"].description)
    device: str = Field("auto", description=_GENERATE["device"].description)


def demo(
    *,
    options: Annotated[DemoOptions | None, Parameter(name="*")] = None,
    out: Annotated[Path | None, Parameter(help="The folder; default `demo`, with --fit `demo-fit`.")] = None,
) -> None:
    """Everything once, with the embedded model: generate, store, export to COCO, page. The same as `run demo`."""
    options = options or DemoOptions()
    name = "demo-fit" if options.fit else "demo"
    changes = {f"store.{f}": getattr(options, f) for f in ("count", "seed", "prompts", "device")}
    changes |= {"gallery.limit": options.count, **({"decoder.device": options.device} if options.fit else {})}
    folder = out or Path(name)
    say("P-Decoder: " + ("fitted on mini:train" if options.fit else "the shipped one (--fit fits it on mini:train)"))
    _run(name, folder, changes)
    print((folder / "gallery.html").resolve())


def _run(
    recipe: str,
    out: Path,
    changes: Mapping[str, Any],
    dry_run: bool = False,
    smoke: bool = False,
    calibrate: bool = False,
) -> None:
    from datasetdm.recipe.places import require_writable
    from datasetdm.recipe.run import load_recipe, run_step, steps

    began = time.monotonic()
    chosen = load_recipe(recipe, changes)
    require_writable(out)
    if smoke:
        from datasetdm.recipe.smoke import smoke as in_small

        out = out / "smoke"
        chosen = in_small(chosen, out, write=not dry_run)
    if dry_run:
        _plan(chosen, out, calibrate)
        return
    with closing(steps(chosen, out)) as todo:
        for step in todo:
            if step.action == "reuse":
                say(f"{step.name}: {step.out} is reused")
                continue
            say(f"{step.name}: {step.action}" + (f" ({step.why})" if step.why else ""))
            started = time.monotonic()
            with bars() as report:
                outcome = run_step(step, report)
            show_outcome(outcome, time.monotonic() - started)
            show_figures(outcome.figures)
    per_unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_unit / 1024
    say(f"recipe {recipe} done in {time.monotonic() - began:.0f} s, peak memory {peak:.1f} GB")


def _plan(recipe: Recipe, out: Path, calibrate: bool) -> None:
    """Print the plan; its figures are measured first if that is asked for."""
    from datasetdm.recipe.calibration import calibrate as measure
    from datasetdm.recipe.plan import plan

    steps = plan(recipe, out, without_data=True)
    found = []
    if calibrate:
        with bars() as report:
            found = measure(steps, report)
    measured = {step.name: step for step, _ in found}
    show_plan(
        [
            (s.name, s.stage.kind, s.count, s.action + (f": {s.why}" if s.why else ""), s.seconds, s.bytes, str(s.out))
            for s in (measured.get(s.name, s) for s in steps)
        ]
    )
    show_measured({step.name: one for step, one in found})
