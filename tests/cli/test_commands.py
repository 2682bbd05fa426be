"""What commands say at their end, what stops them, and what they refuse before a model is loaded."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from commands import run
from datasetdm.engines.progress import Progress
from datasetdm.prompts import PromptRow
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from sources import save_decoder


def test_one_note_for_every_kind_of_prompt_that_cannot_be_followed(
    decoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        PromptRow(prompt="a labrador", labels=("Puppy", "cow"), negative="sky", seed=3),
        PromptRow(prompt="the sky " + "and more sky " * 40 + "with a dog"),
        PromptRow(prompt="a spaceship " * 40),
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(row.to_json() for row in rows))
    words = ["--count", "4", "--decoder", str(decoder), "--out", str(tmp_path / "s"), "--steps", "1", "--guidance", "1"]
    assert run("generate", "--prompts", str(tmp_path / "p.jsonl"), "--device", "cpu", *words) == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [n[6:40] for n in notes] == [
        "1 of 3 prompts name no label, firs", "labels of prompts that are not ann", "negative prompts have no effect on",
        "2 of 4 prompts are longer than the",
    ]  # fmt: skip
    assert all(len(n) < 500 for n in notes) and "cow" in notes[1] and "the sky and more sky" in notes[3]
    prompts = [s.prompt for s in Store(tmp_path / "s") if s.prompt]
    assert [p.labels for p in prompts] == [("dog",), ("sky",), (), ("dog",)]
    assert prompts[0].seed == 3 != prompts[3].seed


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store([make_sample(f"s{i}", seed=i) for i in range(4)], tmp_path / "given", LABELS)
    return tmp_path / "given"


@pytest.fixture(scope="module")
def decoder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder") / "d", tiny_folder)


def generate(decoder: Path, out: Path | str, count: int) -> int:
    words = ("--steps", "1", "--device", "cpu", "--batch", "2")
    return run(
        "generate",
        "--prompts",
        "a dog",
        "the sky",
        "--count",
        str(count),
        "--decoder",
        str(decoder),
        "--out",
        str(out),
        *words,
    )


def test_a_summary_says_what_was_made_and_what_to_do_next(
    decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(decoder, tmp_path / "s", 2) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 's'}\n"
    assert "2 annotated images" in said.err and "images per label:" in said.err
    assert f"next: datasetdm view {tmp_path / 's'}" in said.err.replace("\n", " ").replace("  ", " ")
    assert generate(decoder, tmp_path / "s", 3) == 0
    assert "3 annotated images, 1 of them new" in capsys.readouterr().err
    assert generate(decoder, tmp_path / "s", 2) == 2
    assert "holds 3 samples, more than the count of 2" in capsys.readouterr().err
    assert [s.prompt.origin for s in Store(tmp_path / "s") if s.prompt] == ["user"] * 3


def test_prompts_that_name_no_label_are_noted(
    decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", "--prompts", "a dog", "a cow", "--count", "2", "--decoder", str(decoder), "--steps", "1",
               "--device", "cpu", "--out", str(tmp_path / "s")) == 0  # fmt: skip
    assert "1 of 2 prompts name no label, first: 'a cow'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_all_finished_work(
    number: signal.Signals, code: int, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import datasetdm.cli.work as work

    @contextlib.contextmanager
    def bars() -> Generator[Callable[[Progress], None]]:
        yield lambda p: signal.raise_signal(number) if p.done == 3 else None

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        patched.setattr(work, "bars", bars)
        assert generate(decoder, tmp_path / "s", 9) == code
    assert "goes on where it stopped" in capfd.readouterr().err
    assert len(Store(tmp_path / "s")) == 3
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert generate(decoder, tmp_path / "s", 4) == 0 and len(Store(tmp_path / "s")) == 4


REFUSED = {
    "store in a file": (["generate", "--prompts", "x", "--count", "1", "--out", "FILE"], "is a file"),
    "store below a file": (["generate", "--prompts", "x", "--count", "1", "--out", "FILE/s"], "is a file"),
    "store in another folder": (["generate", "--prompts", "x", "--count", "1", "--out", "."], "not empty"),
    "missing prompts": (["generate", "--prompts", "x.txt", "--count", "1", "--out", "o"], "no such prompt file"),
    "generate how many": (["generate", "--prompts", "x", "--out", "o"], "neither --count nor --target is given"),
    "count and target": (["generate", "--prompts", "x", "--count", "1", "--target", "1", "--out", "o"], "both given"),
    "annotate nothing": (["annotate", "--data", "images:nowhere", "--out", "o"], "no such folder"),
    "annotate into a file": (["annotate", "--data", "images:.", "--out", "FILE"], "is a file"),
    "edit nothing": (["edit", "--data", "mini:test", "--out", "o"], "nothing to edit"),
    "edit labels that are not there": (
        ["edit", "--data", "mini:test", "--remove", "whale", "--out", "o"],
        "no label whale",
    ),
    "edit what no image shows": (
        ["edit", "--data", "mini:test", "--limit", "2", "--remove", "cat", "--min-region", "1", "--out", "o"],
        "no image shows what is to be edited",
    ),
    "fit into a full folder": (["fit", "--data", "mini:train", "--out", "."], "not empty"),
    "fit on nothing": (["fit", "--data", "coco:x.json", "--out", "o"], "no such file"),
    "evaluate nothing": (["evaluate", "--data", "coco:x.json"], "no such file"),
    "figures into a folder": (["evaluate", "--data", "mini:test", "--json", "."], "is a folder"),
    "run into a file": (["run", "demo", "--out", "FILE/x"], "is a file"),
    "run nothing": (["run", "demi", "--out", "o"], "did you mean 'demo'?"),
    "set nothing": (["run", "demo", "--out", "o", "--set", "store.count"], "STAGE.SETTING=VALUE"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_bad_places_and_missing_data_are_refused_before_a_model_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasetdm.pipelines.annotate as annotate
    import datasetdm.pipelines.generate as generate_module
    import datasetdm.recipe.evaluating as evaluating
    import datasetdm.recipe.sources as sources

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    for module, name in (
        (sources, "load_backbone"),
        (evaluating, "load_pair"),
        (generate_module, "load_pair"),
        (annotate, "load_pair"),
    ):
        monkeypatch.setattr(module, name, load)
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("mine")
    arguments, hint = REFUSED[case]
    assert run(*arguments) == 2 and hint in " ".join(capfd.readouterr().err.split())
    assert [p.name for p in Path().iterdir()] == ["FILE"]


def test_a_part_is_inspected_and_exported(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(store), "--limit", "2") == 0 and "2 images" in capsys.readouterr().out
    assert run("export", str(store), "--limit", "3", "--out", str(tmp_path / "o")) == 0
    assert "3 images as coco" in capsys.readouterr().err


def test_stores_are_merged(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store([make_sample("other")], tmp_path / "second", LABELS)
    assert run("merge", str(store), str(tmp_path / "second"), "--out", str(tmp_path / "all")) == 0
    assert "5 samples of 2 stores" in capsys.readouterr().err and len(Store(tmp_path / "all")) == 5


def test_stores_behind_a_url(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"memory://{tmp_path.name}"
    assert run("merge", str(store), "--out", url) == 0 and capsys.readouterr().out.strip() == url
    assert run("filter", url, "--min-area", "0.99") == 0
    assert run("filter", url, "--clear") == 0 and run("view", url, "--out", str(tmp_path / "page.html")) == 0
    assert run("export", "--data", url, "--out", str(tmp_path / "coco")) == 0 and run("inspect", url) == 0
    assert "4 images" in capsys.readouterr().err
    assert run("export", "--data", url, "--out", f"{url}/coco") == 2
    assert "must lie on this machine" in capsys.readouterr().err


def test_what_is_generated_behind_a_url_is_what_is_generated_here(decoder: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}-generated"
    assert [generate(decoder, out, count) for out in (url, str(tmp_path / "s")) for count in (2, 3)] == [0] * 4
    assert [s.digest() for s in Store(url)] == [s.digest() for s in Store(tmp_path / "s")]


def test_formats_are_listed_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    from datasetdm.exporters import EXPORTERS
    from datasetdm.readers import READERS

    assert run("formats") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(n in lines[0] for n in READERS) and all(n in lines[1] for n in EXPORTERS)
    assert run("formats", "yolo") == 0 and "data.yaml" in capsys.readouterr().out
    assert run("formats", "yol") == 2


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"stages:\n  coco: {{kind: export, data: '{store}'}}\n  page: {{kind: page, data: '{store}'}}\n")
    out = tmp_path / "out"
    assert run("run", str(recipe), "--out", str(out), "--dry-run") == 0
    plan = capsys.readouterr().out
    assert "coco" in plan and "export" in plan and " 4 " in plan and "run" in plan and not out.exists()
    assert run("run", str(recipe), "--out", str(out)) == 0
    assert "4 images as coco" in capsys.readouterr().err
    assert run("run", str(recipe), "--out", str(out), "--set", "page.limit=1") == 0
    said = capsys.readouterr().err
    assert f"coco: {out / 'coco'} is reused" in said and "limit was 200, is 1" in said
    assert (out / "page.html").read_text().count("<figure") == 1


@pytest.mark.slow
def test_an_export_needs_no_torch(tmp_path: Path) -> None:
    """It would take seconds and 200 MB."""
    write_store([make_sample("a")], tmp_path / "s", LABELS)
    code = (
        "import sys\nfrom datasetdm.cli import main\n"
        f"try: main(['export', {str(tmp_path / 's')!r}, '--out', {str(tmp_path / 'coco')!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and (tmp_path / "coco" / "annotations").is_dir()


# ---------------------------------------------------------------------- filters
def test_filters_show_first_what_they_would_reject(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = [p.read_bytes() for p in sorted((store / "data").iterdir())]
    words = ("filter", str(store), "--min-confidence", "0.499", "--duplicates", "0.02")
    assert run(*words, "--dry-run") == 0
    shown = capsys.readouterr()
    assert shown.out == f"{store}\n" and "nothing was written" in shown.err and "uncertain labels" in shown.err
    assert all(s.accepted for s in Store(store)), "a dry run writes nothing"
    assert run(*words) == 0
    rejected = [s.key for s in Store(store) if not s.accepted]
    assert 0 < len(rejected) < 4 and f"{4 - len(rejected)} of 4 samples are accepted" in capsys.readouterr().err
    assert [p.read_bytes() for p in sorted((store / "data").iterdir())] == shards
    assert run("export", str(store), "--out", str(store.parent / "coco")) == 0
    assert len(list((store.parent / "coco" / "images").iterdir())) == 4 - len(rejected)


def test_a_later_run_of_a_filter_replaces_the_earlier_one(store: Path) -> None:
    assert run("filter", str(store), "--min-contrast", "1", "--min-area", "0.05") == 0
    assert {s.quality.reasons for s in Store(store)} == {("filter-by-contrast: blank image",)}
    written = (store / "quality.jsonl").read_bytes()
    assert run("filter", str(store), "--min-contrast", "1") == 0
    assert (store / "quality.jsonl").read_bytes() == written, "what is known already is not written again"
    assert run("filter", str(store), "--min-contrast", "0.01") == 0
    found = list(Store(store))
    assert all(s.accepted and [*s.quality.scores] == ["filter-by-area", "filter-by-contrast"] for s in found)
    assert run("filter", str(store), "--clear") == 0
    assert all(not s.quality.scores for s in Store(store))


def test_filters_that_cannot_be(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("filter", str(store)) == 2 and "no filter was chosen" in capsys.readouterr().err
    assert run("filter", str(store), "--min-area", "2") == 2 and "--min-area 2" in capsys.readouterr().err
    assert run("filter", str(store), "--limbs-of", "nothing:x") == 2 and "nothing" in capsys.readouterr().err
    assert run("filter", str(store / "no"), "--min-area", "0.1") == 2
    assert not (store / "quality.jsonl").exists()


# ---------------------------------------------------------------------- filters while samples are made
def test_a_target_counts_what_passes_the_filters(
    decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same options as those of `filter`, and the same table at the end; the same command goes on."""
    asked = ["generate", "--prompts", "a dog", "the sky", "a dog on the grass", "--decoder", str(decoder), "--steps", "1",
             "--device", "cpu", "--batch", "2", "--round", "3", "--min-yield", "0", "--min-prompted", "1"]  # fmt: skip
    for target in ("1", "2"):
        assert run(*asked, "--target", target, "--out", str(tmp_path / "s")) == 0
        store = Store(tmp_path / "s")
        assert sum(s.accepted for s in store) == int(target)
        said = " ".join(capsys.readouterr().err.split())
        assert f"{target} of {len(store)} samples are accepted" in said
    assert store.stream["prompts"]["round"] == 4, "whole batches"
    assert store.stream["transforms"][0]["name"] == "filter-by-prompt"
    assert run(*asked, "--count", "9", "--out", str(tmp_path / "s")) == 2
    assert "prompts.round differs" in capsys.readouterr().err


def test_annotated_images_are_filtered_too(
    decoder: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["annotate", "--data", f"store:{store}", "--decoder", str(decoder), "--device", "cpu"]
    assert run(*asked, "--min-contrast", "1", "--out", str(tmp_path / "s")) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "0 of 4 samples are accepted" in said and "filter-by-contrast" in said
    assert run(*asked, "--out", str(tmp_path / "plain")) == 0
    assert "accepted" not in capsys.readouterr().err, "nothing was filtered"
