"""The cluster that a run uses."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from datasetdm.engines import cluster
from datasetdm.engines.cluster import Cluster, connected
from datasetdm.errors import ConfigError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray, which is played here, is asked for."""
    calls: list[dict[str, Any]] = []
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **o: calls.append(o), shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(cluster, "installed", lambda: True)
    return calls


def test_an_address_where_nobody_listens_is_refused_before_ray_tries(asked: list[dict[str, Any]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with connected(Cluster(address)):
            assert asked[0]["address"] == address
    for wrong in (address, "nonsense", "127.0.0.1:port", "127.0.0.1:99999999"):
        with pytest.raises(ConfigError, match="no Ray cluster answers"), connected(Cluster(wrong)):
            pass
    assert len(asked) == 1


def test_ray_looks_for_a_cluster_itself(asked: list[dict[str, Any]]) -> None:
    with connected(Cluster("auto")):
        assert asked[0]["address"] == "auto"
