"""Repositories as huggingface_hub lays them down in its cache."""

from __future__ import annotations

from pathlib import Path

from tests.hub.models import Repo


def snapshot(cache: Path, repo: Repo, *, without: str = "nothing") -> None:
    """Files as huggingface_hub lays them down."""
    folder = cache / ("models--" + repo.id.replace("/", "--"))
    for path, file in repo.files.items():
        if without not in path:
            target = folder / "snapshots" / repo.commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.part(0, file.size - 1))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(repo.commit)
