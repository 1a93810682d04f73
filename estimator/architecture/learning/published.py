"""Published configs that a class is tried with."""

from __future__ import annotations

import json
from typing import Any

from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.source_hints import hints_of
from estimator.source.snapshot import known_models


def published(name: str) -> list[dict[str, Any]]:
    """Those that name the class; where none does, those of its model type with a field that only the code knows of.

    DeBERTa's `getattr(config, "norm_rel_ebd", "none")`: its config class has no such field, and published files do.
    """
    named = [json.loads(known.config_text) for known in known_models() if f'"{name}"' in known.config_text]
    if named:
        return named
    config = tiny.make(name, tiny.base_fields(name))
    types = tuple(f'"{kind}"' for kind in tiny.config_types(name))
    texts = (known.config_text for known in known_models() if any(kind in known.config_text for kind in types))
    alike = [config for config in map(json.loads, texts) if f'"{config.get("model_type")}"' in types]
    asked = hints_of(tiny.build(name, config)).asked - set(vars(config)) if alike else set()
    return [config for config in alike if asked & config.keys()]
