"""Signals: what is finished is on the disk, whenever they come."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasetdm.io.stopping import uninterrupted
from datasetdm.store.store import Store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_wait_for_what_must_be_finished(number: signal.Signals) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    done = []
    previous = signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("finished")
        assert done and signal.getsignal(number) is stop
    finally:
        signal.signal(number, previous)


SLOW_TO_STOP = """
import sys, time
import numpy as np
import datasetdm.cli as cli
from datasetdm.io.stopping import save_all
from datasetdm.records import Labels, Sample
from datasetdm.store.writer import Writer

def work():
    with Writer(sys.argv[1], Labels(("a",)), {}) as writer:
        for i in range(5):
            writer.add(Sample(str(i), np.zeros((4, 4, 3), np.uint8), writer.labels))
        try:
            print("added", flush=True)
            time.sleep(60)
        finally:
            print("cleaning up", flush=True)
            time.sleep(60)

cli.app = lambda *_, **__: work()
cli.main([])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once_and_keeps_what_is_finished(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SLOW_TO_STOP, str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in ("added\n", "cleaning up\n"):
            assert process.stdout.readline() == line
            process.send_signal(number)
        began = time.monotonic()
        assert process.wait(30) == code and time.monotonic() - began < 10
        assert "goes on where it stopped" in process.stderr.read()
    assert len(Store(tmp_path / "s")) == 5
