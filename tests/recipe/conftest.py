"""What tests of recipes share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from hub_server import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Hub]:
    """A hub of its own, for this test."""
    import huggingface_hub
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "good")
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield server
    server.close()
    huggingface_hub.HfFileSystem.clear_instance_cache()
