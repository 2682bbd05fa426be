"""The throughput benchmark's own parts: explicit attention, floor, table. (It is not run here.)"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture()
def throughput() -> Any:
    from benchmarks import throughput

    return throughput


def test_explicit_attention_is_the_models_own(throughput: Any, tiny: Any, tmp_path: Path) -> None:
    from benchmarks.paper_loop import Explicit

    unet = tiny.pipe.unet
    x, context = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 32)
    own = dict(unet.attn_processors)
    layers = len(own)
    kept: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        expected = unet(x, 1, context).sample
        unet.set_attn_processor(Explicit(kept))
        found = unet(x, 1, context).sample
        once = {k: v.clone() for k, v in kept.items()}
        unet(x, 1, context)
    unet.set_attn_processor(own)
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(kept) == layers > 0, "every layer, of pictures and words"
    for key, value in kept.items():
        assert torch.allclose(once[key].sum(-1), torch.ones(())) and torch.allclose(value, 2 * once[key], atol=1e-6)


def test_the_floor_counts_every_step(throughput: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SimpleNamespace(plain_pipe=tiny.pipe, device=torch.device("cpu"), dtype=torch.float32)
    many = throughput.flops_per_image(bench)
    monkeypatch.setattr(throughput, "STEPS", 1)
    one = throughput.flops_per_image(bench)
    monkeypatch.setattr(throughput, "STEPS", 2)
    assert one < throughput.flops_per_image(bench) < many
    assert many - one == pytest.approx(24 * (throughput.flops_per_image(bench) - one))
    assert throughput.matrix_rate(bench, 64) > 0


def test_the_committed_table_is_the_scripts(throughput: Any) -> None:
    files = {d: ROOT / "benchmarks" / "results" / f"throughput-{d}.json" for d in throughput.TARGETS}
    found = {device: json.loads(path.read_text()) for device, path in files.items()}
    keys = (
        "plain_per_second ours_per_second paper_loop_per_second ours_to_plain ours_to_paper_loop share_of_floor peak_gb"
    )
    assert all({*keys.split(), "device", "versions"} <= own.keys() for own in found.values())
    assert (ROOT / "docs" / "throughput.md").read_text() == throughput.table(found)
    figures = found["cpu"]
    page = throughput.table({"cpu": figures, "cuda": None})
    assert page.count("not measured") == len(throughput.ROWS) and figures["device"] in page
    both = throughput.table({"cpu": figures, "cuda": figures})
    assert "not measured" not in both


def test_without_cuda_it_says_so(
    throughput: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cuda", "--json", str(tmp_path / "x.json")])
    with pytest.raises(SystemExit, match="no CUDA device"):
        throughput.main()
    assert not list(tmp_path.iterdir())
