"""Recipes from files, and running them: stage after stage, each once for the same inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from datasetdm.engines.progress import Outcome, Report
from datasetdm.errors import ConfigError, OutputError, unknown_name
from datasetdm.io.files import locked, occupied, writing
from datasetdm.recipe.estimate import written_bytes
from datasetdm.recipe.plan import MARK, Digests, Step, mark_path, plan, write_mark
from datasetdm.recipe.runners import CHECKS, RUNNERS
from datasetdm.recipe.schema import KINDS, RESUMABLE, Recipe
from datasetdm.store.writer import LOCK

SHIPPED = Path(__file__).parent / "recipes"
"""The recipes that come with the package."""


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package; those in a folder are called FOLDER/NAME."""
    found = sorted(SHIPPED.rglob("*.yaml"), key=lambda p: (len(p.relative_to(SHIPPED).parts), p))
    return {p.relative_to(SHIPPED).with_suffix("").as_posix(): p for p in found}


FOLDER_LOCK = ".recipe.lock"


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases, by which a short file becomes a huge one, and no key twice."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
        if twice := [n for i, n in enumerate(names) if n in names[:i]]:
            raise ConstructorError(None, None, f"{twice[0][:80]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def load_recipe(source: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a YAML file, or one that comes with the package, by name.

    Args:
        source: file or name.
        changes: "STAGE.SETTING" -> another value.

    Raises:
        ConfigError: no such recipe, a file that is none, an unknown stage or setting.
    """
    path = Path(source)
    if not _is_file(path):
        if str(source) not in shipped():
            raise unknown_name("recipe", str(source)[:200], shipped())
        path = shipped()[str(source)]
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        if not isinstance(content, dict):
            raise ValueError("it holds no settings by name")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        what = " ".join(str(e).split())
        raise ConfigError(f"the recipe cannot be read: {what}", where=path, expected="YAML with `stages`") from e
    for place, value in (changes or {}).items():
        name, dot, setting = place.partition(".")
        stages = content.get("stages")
        if not dot or not isinstance(stages, dict) or not isinstance(stages.get(name), dict):
            raise unknown_name("stage", name, stages if isinstance(stages, dict) else ())
        stages[name][setting] = value
    return make_recipe(content, path)


def make_recipe(content: Mapping[Any, Any], where: object = None) -> Recipe:
    """A recipe from plain values. Raises ConfigError for the first setting that is unknown or impossible."""
    try:
        return Recipe.model_validate(dict(content))
    except ValidationError as e:
        first = e.errors()[0]
        place = [str(p) for p in first["loc"]]
        if place[0] == "stages" and len(place) > 3:  # stages, name, kind, setting
            place = [place[1], *place[3:]]
        if first["type"] == "extra_forbidden":
            own = content.get("stages", {}).get(place[0], {})
            kind = own.get("kind") if isinstance(own, dict) else None
            model = next((m for m in KINDS if m.model_fields["kind"].default == kind), Recipe)
            error = unknown_name("setting", place[-1], model.model_fields)
            error.where = f"{where}, {'.'.join(place)}"
            raise error from e
        raise ConfigError(f"{'.'.join(place)}: {first['msg'][:500]}", where=where, expected=None) from e


def run_recipe(
    recipe: Recipe, out: Path | str, report: Report = lambda _: None
) -> Iterator[tuple[Step, Outcome | None]]:
    """Run all stages that are not there yet.

    Args:
        recipe: what to do.
        out: the folder in which every stage has a folder or file of its own.
        report: receives how far the present stage is.

    Yields:
        Every stage's step and what it made; None for one that is reused.

    Raises:
        OutputError: a stage would overwrite what no recipe made, or a store with reviews.
    """
    with closing(steps(recipe, out)) as todo:
        for step in todo:
            yield step, None if step.action == "reuse" else run_step(step, report)


def steps(recipe: Recipe, out: Path | str) -> Generator[Step]:
    """The steps one by one, each planned when the earlier ones are done; `run_step` runs one. The folder is locked meanwhile.

    Raises:
        OutputError: another process runs a recipe there.
    """
    digests: Digests = {}
    with locked(Path(out) / FOLDER_LOCK, "recipe's folder"):
        for number in range(len(recipe.stages)):
            yield plan(recipe, Path(out), digests=digests)[number]


def run_step(step: Step, report: Report) -> Outcome:
    """Run one stage and leave its mark. What an earlier run of the recipe made from other inputs is set aside first, under
    another name; it comes back if the stage ends before it wrote anything."""
    runner = RUNNERS.load(step.stage.kind)
    if step.stage.kind in CHECKS:
        CHECKS.load(step.stage.kind)(step.stage)
    aside = _set_aside(step) if step.action == "run again" else None
    began, unmarked = time.monotonic(), step.action != "continue" and step.stage.MAKES in RESUMABLE

    def marking(progress: Any) -> None:
        nonlocal unmarked
        if unmarked and step.out.is_dir():
            write_mark(step, done=False)
            unmarked = False
        report(progress)

    try:
        outcome = runner(step.stage, step.out, marking)
    except BaseException:
        if not occupied(step.out):
            if aside is not None:
                _put_back(step, aside)
        elif unmarked and step.out.is_dir():  # what it began is its own: the next run goes on with it
            write_mark(step, done=False)
        raise
    write_mark(step, done=outcome.complete, **_measured(step, outcome, time.monotonic() - began))
    if aside is not None:
        outcome = replace(outcome, notes=[*outcome.notes, f"what was there before is now {aside}"])
    return outcome


def _measured(step: Step, outcome: Outcome, seconds: float) -> dict[str, float]:
    """What later plans estimate by; a continued stage keeps its first run's rate."""
    count, size = outcome.count, written_bytes(step.out)
    if step.mark.get("done") and step.mark.get("count") and step.mark.get("seconds"):
        seconds = step.mark["seconds"] / step.mark["count"] * count
    return {"seconds": round(seconds, 2), "count": count, "bytes": size}


def _set_aside(step: Step) -> Path:
    """Rename what the stage made before, and return its new place. Raises OutputError while somebody writes it."""
    if (step.out / "reviews.jsonl").exists():
        raise OutputError(
            f"stage {step.name!r} must run again ({step.why}), but its store holds reviews",
            where=step.out,
            remedy="move the store away, or choose another --out",
        )
    moment = time.strftime("%Y%m%d-%H%M%S")
    base = f"{step.out.name}.before-{moment}"
    names = (base if n == 1 else f"{base}-{n}" for n in count_from(1))
    aside = next(p for name in names if not (p := step.out.with_name(name)).exists())
    lock = locked(step.out / LOCK, "store") if step.stage.MAKES == "store" else nullcontext()
    with writing(step.out), lock:
        step.out.rename(aside)
    if aside.is_file():
        mark_path(step.out).replace(_old_mark(aside))
    else:
        for left in ((aside / LOCK), (aside / LOCK).with_suffix(".holder")):  # they were renamed with it
            left.unlink(missing_ok=True)
    return aside


def _put_back(step: Step, aside: Path) -> None:
    if step.out.is_dir():
        shutil.rmtree(step.out)
    if aside.is_file():
        _old_mark(aside).replace(mark_path(step.out))
    aside.rename(step.out)


def _old_mark(aside: Path) -> Path:
    """Where the mark of a file that was set aside lies."""
    return aside.with_name(f".{aside.name}{MARK}")
