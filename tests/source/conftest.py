"""The stand-in Hub for the tests of this room, with a cache and a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.models import tiny_sharded, tiny_single
from tests.hub.standin import StandIn


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in Hub that serves a sharded and a single-file model, as huggingface_hub's environment names it."""
    from huggingface_hub import constants

    repos = [tiny_sharded(), tiny_single(), tiny_sharded("org/ranged", endpoint=False)]
    with StandIn(repos) as standin:
        monkeypatch.setattr(constants, "ENDPOINT", standin.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("estimator.source.retries._PAUSES", (0.01, 0.02, 0.03))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(name, raising=False)
        yield standin
