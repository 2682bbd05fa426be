"""Workers with processes of their own: what they write equals what one process writes, whoever ends, joins or leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from datasetdm.engines.cluster import installed
from datasetdm.store.store import Store
from engines.shared import command, contents, undisturbed

pytestmark = [pytest.mark.skipif(not installed(), reason="Ray is not installed"), pytest.mark.slow]

MACHINES = """
import os, secrets, sys
from contextlib import closing
from pathlib import Path
from datasetdm.engines.cluster import PRIVATE, QUIET, Cluster
os.environ.update(QUIET | PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
from ray.cluster_utils import Cluster as Machines
from datasetdm.engines.ray import iter_write
from engines.shared import make_task

memory, out = {"object_store_memory": 80 * 2**20}, Path(sys.argv[1])
machines = Machines(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **memory})
task = make_task(out.with_name("tried"), 64, {9: "kill1", 20: "error", 33: "kill1", **dict.fromkeys((24, 32, 40, 48), "wait")})
most, second = 0, None
with closing(iter_write(task, out, Cluster(machines.address, 3), 64, 8)) as events:
    for event in events:
        if event.made >= 8 and second is None:
            second = machines.add_node(num_cpus=1, **memory)
        if event.workers > most == 2:
            machines.remove_node(second)
            out.with_name("tried").joinpath("go").touch()
        most = max(most, event.workers)
machines.shutdown()
print(most, [f.key for f in event.failures])
"""

IN_TURN = """
from datasetdm.engines.cluster import Cluster, connected
for _ in range(2):
    with connected(Cluster(workers=1, gpu=False)) as ray:
        print(len(ray.nodes()), flush=True)
"""

ALONE = """
import sys
from pathlib import Path
from datasetdm.engines.cluster import Cluster
from datasetdm.engines.ray import iter_write
from engines.shared import make_task

out = Path(sys.argv[1])
for event in iter_write(make_task(out.with_name("tried"), 24, seconds=0.2), out, Cluster(workers=2), 24, 8):
    print(event.made, flush=True)
"""


def test_machines_join_and_leave_and_workers_end(tmp_path: Path) -> None:
    """Three workers are asked for, and there is room for two until another machine joins, which leaves at its work."""
    words, environment = command(MACHINES, tmp_path / "store")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["3 ['0020']"], done.stdout + done.stderr
    right = undisturbed(tmp_path, 64)
    rows = {s.key: s.digest() for s in Store(tmp_path / "right")}
    assert {s.key: s.digest() for s in Store(tmp_path / "store")} == {k: v for k, v in rows.items() if k != "0020"}
    other = {k for k, v in contents(tmp_path / "store").items() if right.get(k) != v}
    assert other == {"data/shard-000002.parquet", "data/shard-000002.json", "failed.jsonl"}


def test_a_cluster_of_our_own_is_private_and_its_work_is_not_lost(tmp_path: Path) -> None:
    """It listens on 127.0.0.1 alone. When the run and its workers are killed, another run goes on."""
    words, environment = command(ALONE, tmp_path / "store")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 8:
            pass
        family = descendants(process.pid)
        addresses = listeners(family)
        process.kill()
    for pid in family:  # a worker that has not noticed yet would write beside the next run
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert len(family) > 3 and addresses and addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert contents(tmp_path / "store").keys() > {"dataset.json"}
    assert undisturbed(tmp_path, 24) == _continued(tmp_path / "store")


def test_clusters_in_turn_answer_the_same_process(tmp_path: Path) -> None:
    """A recipe with two stages on workers starts two."""
    words, environment = command(IN_TURN, tmp_path)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["1", "1"], done.stderr


def _continued(store: Path) -> dict[str, bytes]:
    """The files of the store after the local engine went on with it."""
    from datasetdm.engines.local import write
    from engines.shared import NumberedSamples

    write(NumberedSamples(store.parent), store, 24, 8)
    return contents(store)


def listeners(pids: set[int]) -> set[str]:
    """Addresses on which these processes listen, as hexadecimal."""
    links = [p for pid in pids for p in Path(f"/proc/{pid}/fd").glob("*") if p.is_symlink()]
    sockets = {str(p.readlink()) for p in links if p.is_symlink()}
    files = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line.split() for file in files for line in file.read_text().splitlines()[1:]]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


def descendants(pid: int) -> set[int]:
    """A process and all that it began."""
    found = {pid}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= descendants(int(child))
    return found
