"""The log of a training: lines and TensorBoard's events, without the steps that are taken again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datasetdm.errors import ConfigError
from datasetdm.training import log
from datasetdm.training.log import EVENTS, LOG, TrainingLog, require_tensorboard


def test_a_log_goes_on_where_its_training_goes_on(tmp_path: Path) -> None:
    first = TrainingLog(tmp_path, 0, 16, events=True)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 9.0)):
        first.add(step, loss, step / 100)
    first.close()
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 40, "lo')  # a kill
    second = TrainingLog(tmp_path, 20, 16, events=True)
    second.add(30, 1.0, 0.3)
    second.close()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [(r["step"], r["loss"], r["learning_rate"]) for r in rows] == [(10, 3, 0.1), (20, 2, 0.2), (30, 1, 0.3)]
    events = EventAccumulator(str(tmp_path / EVENTS)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate", "images_per_second"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 3), (20, 2), (30, 1)]
    assert [e.value for e in events.Scalars("learning_rate")] == pytest.approx([0.1, 0.2, 0.3])
    assert all(e.value > 0 for e in events.Scalars("images_per_second"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the package tensorboard") as caught:
        require_tensorboard()
    assert "datasetdm[tensorboard]" in str(caught.value)
