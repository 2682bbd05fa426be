from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from commands import run
from datasetdm.readers import read
from datasetdm.store import Store
from labelled import coco_folder

ENTRY = str(Path(sys.executable).parent / "datasetdm")


def test_help_answers_at_once() -> None:
    """Processor time, best of a few: the machine may be busy."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([ENTRY, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5
    assert all(c in done.stdout for c in ("demo", "fit", "generate", "evaluate", "export", "view"))


def test_neither_help_nor_the_package_imports_torch() -> None:
    code = "import sys, datasetdm, datasetdm.cli; print([m for m in ('torch', 'diffusers', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_whole_way_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """generate -> export -> view, with the shipped decoder; another seed and prompt give other bytes."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red bus on a city street\na photo of a white boat on the water\n")
    for name, seed, words in (
        ("a", "1", str(prompts)),
        ("b", "2", str(prompts)),
        ("c", "1", "a black cat in a studio"),
    ):
        common = ["--count", "2", "--steps", "6", "--seed", seed, "--device", "cpu", "--out", str(tmp_path / name)]
        assert run("generate", "--prompts", words, *common) == 0
    a, b, c = (list(Store(tmp_path / n)) for n in "abc")
    assert len(a) == 2 and a[0].prompt is not None and a[0].prompt.labels == ("bus", "road")
    for other in (b, c):
        assert a[0].image.tobytes() != other[0].image.tobytes()
        assert a[0].semantic.ids.tobytes() != other[0].semantic.ids.tobytes()
    assert run("export", str(tmp_path / "a"), "--format", "coco", "--out", str(tmp_path / "coco")) == 0
    assert len(json.loads((tmp_path / "coco/annotations/instances.json").read_text())["images"]) == 2
    assert run("export", str(tmp_path / "a"), "--format", "yolo-seg", "--out", str(tmp_path / "yolo")) == 0
    capsys.readouterr()
    assert run("inspect", f"yolo:{tmp_path / 'yolo' / 'data.yaml'}") == 0
    assert "bus" in capsys.readouterr().out
    assert run("view", str(tmp_path / "a"), "--out", str(tmp_path / "page.html")) == 0
    page = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert page == (tmp_path / "page.html").resolve() and page.read_text().count("<figure") == 2


@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # a second run finds everything and ends well
        assert run("demo", "--count", "3", "--out", str(out), "--device", "cpu") == 0
        captured = capsys.readouterr()
        assert captured.out.strip().splitlines()[-1] == str((out / "gallery.html").resolve())
        assert "peak memory" in captured.err and "shipped" in captured.err
    assert len(Store(out / "store")) == 3
    assert sorted(p.name for p in (out / "coco" / "images").iterdir()) == [f"{i:08d}.png" for i in range(3)]


def test_fit_and_evaluate_own_pictures(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco_folder(tmp_path / "own")
    out = tmp_path / "decoder"
    few = [
        "--steps",
        "2",
        "--variants",
        "1",
        "--caption-dropout",
        "1",
        "--backbone",
        str(tiny_folder),
        "--device",
        "cpu",
    ]
    assert run("fit", "--data", f"coco:{path}", "--tasks", "semantic", "--out", str(out), *few) == 0
    again = ["--data", f"coco:{path}", "--decoder", str(out), "--device", "cpu", "--json", str(tmp_path / "f.json")]
    assert run("evaluate", *again) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert 0 <= figures["semantic"]["miou"] <= 1
    assert figures["under_composed_captions"].keys() == figures.keys() - {"under_composed_captions"}
    notes = capsys.readouterr().err
    assert "caption dropout 1" in notes and "The figures on new images are those without it" in " ".join(notes.split())
    assert run("evaluate", *again, "--no-captions") == 0
    assert "under_composed_captions" not in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["labels"]["names"] == ["background", "dog", "cat"]
    assert config["fitted"]["config"]["caption_dropout"] == 1


MISTAKES = {
    "unknown command": (["generat"], "generate"),
    "missing option": (["generate", "--count", "2"], "--prompts"),
    "unknown option": (["view", "x", "--limitt", "3"], "limitt"),
    "wrong type": (["view", "x", "--limit", "many"], "many"),
    "no format": (["fit", "--data", "x.json", "--out", "o"], "FORMAT:PATH"),
    "unknown format": (["fit", "--data", "cocoo:x", "--out", "o"], "did you mean 'coco'?"),
    "unknown task": (["fit", "--data", "mini:train", "--tasks", "semantik", "--out", "o"], "did you mean 'semantic'?"),
    "unknown backbone": (["fit", "--data", "mini:train", "--backbone", "mimi", "--out", "o"], "did you mean 'mini'?"),
    "no pipeline": (["fit", "--data", "mini:train", "--backbone", ".", "--out", "o"], "no model_index.json"),
    "no decoder": (
        ["generate", "--prompts", "x", "--count", "1", "--out", "o", "--decoder", "nope"],
        "no decoder here",
    ),
    "no store": (["view", "nope"], "no store here"),
    "no such port": (["view", "STORE", "--port", "99999"], "--port 99999"),
    "page is a folder": (["view", "STORE", "--out", "STORE"], "is a folder"),
    "unknown export": (["export", "STORE", "--format", "coca", "--out", "o"], "did you mean 'coco'?"),
    "count 0": (["demo", "--count", "0"], "--count 0"),
    "seed": (["demo", "--seed", "-1"], "--seed -1"),
    "batch 0": (["generate", "--prompts", "x", "--count", "1", "--out", "o", "--batch", "0"], "batch"),
    "timesteps": (["fit", "--data", "mini:train", "--timesteps", "x", "--out", "o"], "valid integer"),
    "device": (["demo", "--device", "tpu9"], "device 'tpu9'"),
    "share": (["fit", "--data", "mini:train", "--caption-dropout", "2", "--out", "o"], "--caption-dropout 2"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_mistakes_give_one_clear_error(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from datasetdm.store import write_store
    from factory import LABELS, make_sample

    monkeypatch.chdir(tmp_path)
    write_store([make_sample()], "STORE", LABELS)
    arguments, hint = MISTAKES[case]
    assert run(*arguments) == 2
    captured = capfd.readouterr()
    said = captured.err + captured.out
    assert hint in " ".join(said.replace("│", " ").split()) and "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["STORE"], "nothing half-written"


def test_an_empty_store_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from datasetdm.store import write_store
    from factory import LABELS

    write_store([], tmp_path / "s", LABELS)
    for arguments in (["view", str(tmp_path / "s")], ["export", str(tmp_path / "s"), "--out", str(tmp_path / "o")]):
        assert run(*arguments) == 2 and "holds no samples" in capfd.readouterr().err
    assert not (tmp_path / "o").exists()


def test_settings_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("datasetdm.toml").write_text("[view]\nlimit = 0\n")
    assert run("view", "x") == 2 and "--limit 0" in capfd.readouterr().err
    monkeypatch.setenv("DATASETDM_VIEW_LIMIT", "-7")
    assert run("view", "x") == 2 and "--limit -7" in capfd.readouterr().err
    assert run("view", "x", "--limit", "-9") == 2 and "--limit -9" in capfd.readouterr().err
    monkeypatch.delenv("DATASETDM_VIEW_LIMIT")
    Path("datasetdm.toml").write_text("[view]\nlimitt = 3\n")
    assert run("view", "x") == 2 and "limitt" in "".join(capfd.readouterr())


def test_interrupt_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import datasetdm.store.store as store

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "read_meta", interrupt)
    assert run("view", str(tmp_path)) == 130 and "goes on where it stopped" in capfd.readouterr().err


def test_demo_leaves_a_users_coco_folder_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "coco" / "annotations" / "instances.json"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"info": {"description": "COCO 2017"}}')
    assert run("demo", "--count", "1", "--out", str(tmp_path), "--device", "cpu") == 2
    assert "where something is already" in capfd.readouterr().err and "COCO 2017" in mine.read_text()
    assert not (tmp_path / "store").exists(), "refused before any work"


@pytest.mark.slow
def test_existing_pictures_are_annotated(tmp_path: Path) -> None:
    """Of any size; the same command again changes nothing, and other pictures in the same store are refused."""
    for i, sample in zip(range(3), read("mini:test"), strict=False):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(sample.image).resize((150, 100 + i)).save(tmp_path / "pictures" / f"{i}.png")
    words = ("annotate", "--data", f"images:{tmp_path / 'pictures'}", "--out", str(tmp_path / "s"), "--device", "cpu")
    assert run(*words) == 0
    first = [s.digest() for s in Store(tmp_path / "s")]
    assert run(*words) == 0
    store = Store(tmp_path / "s")
    assert [s.digest() for s in store] == first and len(first) == 3
    assert store[1].size == (101, 150) and store[1].semantic is not None and store[1].depth is not None
    (tmp_path / "others").mkdir()
    (tmp_path / "pictures" / "0.png").rename(tmp_path / "others" / "0.png")
    assert run("annotate", "--data", f"images:{tmp_path / 'others'}", "--out", str(tmp_path / "s")) == 2


@pytest.mark.slow
def test_a_part_of_the_data_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", "mini:train", "--out", str(tmp_path / "d"), "--steps", "1", "--variants", "1")
    assert run("fit", *words, "--limit", "0") == 2
    assert "--limit 0" in capsys.readouterr().err
    assert run("fit", *words, "--limit", "12", "--balance", "--tasks", "instance", "--device", "cpu") == 0
    assert json.loads((tmp_path / "d" / "config.json").read_text())["fitted"]["images"] == 11
