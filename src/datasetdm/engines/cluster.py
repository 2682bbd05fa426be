"""The Ray cluster that a run uses: one that is there, or one of its own on this machine that nobody else can reach."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError

OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory of a cluster of our own: samples never pass through it."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No usage statistics; workers without a GPU of their own see the machine's as everybody does."""
PRIVATE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Listen on 127.0.0.1 alone, and answer only who knows the token."""
AUTO = "auto"
"""The address that Ray finds itself."""
KNOCK_SECONDS = 10


@dataclass(frozen=True)
class Cluster:
    """What is asked for.

    Args:
        address: of the cluster's head, HOST:PORT, or `auto`; None starts one on this machine.
        workers: how many; None is one per GPU, or one where there is none.
        gpu: whether every worker has a GPU of its own, where the cluster has some.
    """

    address: str | None = None
    workers: int | None = None
    gpu: bool = True


def installed() -> bool:
    """Whether Ray is there."""
    return find_spec("ray") is not None


@cache
def _token() -> str:
    """Of all clusters that this process starts, one after another: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def connected(cluster: Cluster) -> Generator[Any]:
    """The module `ray`, connected. A cluster of our own ends with the block; a connection that was there stays.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """
    if not installed():
        raise ConfigError(
            "Ray is not installed", expected="the extra `ray`", remedy="pip install 'datasetdm[ray]', or --engine local"
        )
    if (there := sys.modules.get("ray")) is not None and there.is_initialized():
        yield there
        return
    os.environ.update(QUIET)
    own = PRIVATE | {"RAY_AUTH_TOKEN": _token()} if cluster.address is None else {}
    previous = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    import ray

    with tempfile.TemporaryDirectory(prefix="datasetdm-ray-", ignore_cleanup_errors=True) as folder:
        try:
            _start(ray, cluster, Path(folder))
            _restore(handlers)
            yield ray
        finally:
            ray.shutdown()
            _restore(handlers)
            for name, value in previous.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _start(ray: Any, cluster: Cluster, folder: Path) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if cluster.address is None:
        cpus = max(cluster.workers or 1, os.cpu_count() or 1)
        # Ray makes its folder open to all users, so it lies in one that is closed.
        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            _temp_dir=str(folder / "r"),
            **quiet,
        )
        return
    try:
        if cluster.address != AUTO:
            _knock(cluster.address)
        ray.init(address=cluster.address, **quiet)
    except Exception as e:  # of several kinds, by what is wrong with the address
        raise ConfigError(
            f"no Ray cluster answers: {' '.join(str(e).split())[:300]}",
            where=cluster.address,
            expected="HOST:PORT of a cluster's head, reached from a machine of the cluster",
            remedy="start one (`ray start --head`), or omit --address to use this machine alone",
        ) from e


def _knock(address: str) -> None:
    """Raises OSError or ValueError where nobody listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), KNOCK_SECONDS):
        pass


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    """Ray sets handlers of its own; ours save finished work."""
    for number, handler in handlers.items():
        try:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        except ValueError:  # not in the main thread, where Ray sets none
            return


def worker_count(ray: Any, cluster: Cluster) -> int:
    """How many workers there should be now: machines may join and leave."""
    if cluster.workers is not None:
        return cluster.workers
    return max(1, int(ray.cluster_resources().get("GPU", 0))) if cluster.gpu else 1


def worker_options(ray: Any, cluster: Cluster) -> dict[str, Any]:
    """What one worker is given."""
    gpus = 1 if cluster.gpu and ray.cluster_resources().get("GPU", 0) else 0
    return {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
