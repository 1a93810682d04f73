"""What a shell completes beside options and choices: names of models and of GPUs."""

from __future__ import annotations

from click.shell_completion import CompletionItem


def models(begun: str) -> list[CompletionItem]:
    """The bundled models by alias and id, spelled as `lora-size models` has them; files where none begins so."""
    from estimator.source.snapshot import known_models

    names = [name for known in known_models() for name in (*known.aliases, known.id)]
    return [CompletionItem(name) for name in names if name.startswith(begun)] or [CompletionItem(begun, type="file")]


def gpus(begun: str) -> list[CompletionItem]:
    from estimator.sizes.memory.gpus import GPUS

    return [CompletionItem(name) for name in GPUS if name.startswith(begun.lower())]
