"""Writes peft_tables.json: PEFT's default targets, its conversions of MoE names, and odd convolution classes.

    python -m estimator.lora.generate [--check]

Needs torch, transformers and peft. The same versions write the same bytes; `--check` compares and exits with 1 where
the file differs. Lines on what a newer transformers has added stay (architecture.generate --newer); they are put in by
hand from a run with that release.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.newer import is_newer
from estimator.generated import run
from estimator.lora.facts import FILE


def tables() -> dict[str, Any]:
    """What the installed libraries say."""
    import peft
    import torch
    import transformers
    from peft.utils import constants
    from peft.utils import transformers_weight_conversion as conversion
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    patterns = conversion._MODEL_TO_CONVERSION_PATTERN
    return {
        "_generated_by": "python -m estimator.lora.generate",
        "_versions": {
            "peft": peft.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
        },
        "default_targets": {
            "LORA": constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
            "ADALORA": constants.TRANSFORMERS_MODELS_TO_ADALORA_TARGET_MODULES_MAPPING,
        },
        "moe_patterns": {
            model_type: pattern
            for model_type, pattern in sorted(patterns.items())
            if pattern in conversion._MOE_TARGET_MODULE_MAPPING
            and get_checkpoint_conversion_mapping(model_type) is not None
        },
        "converted": converted(),
        "moe_targets": conversion._MOE_TARGET_MODULE_MAPPING,
        "moe_fused": conversion._MOE_FUSED_TARGETS,
        "mamba": mamba(),
        "conv_classes": dict(sorted(odd_convolutions())),
        "generating": generating(),
        "containers": containers(),
    }


def converted() -> list[str]:
    """Model types whose names transformers converts: PEFT adds a prefix that LoRA's tensors lack on these alone."""
    from transformers.conversion_mapping import _build_checkpoint_conversion_mapping
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return sorted(_build_checkpoint_conversion_mapping().keys() & set(CONFIG_MAPPING.keys()))


def mamba() -> dict[str, list[str]]:
    """The two sets that _check_lora_target_modules_mamba holds, read from its code."""
    from peft.tuners import tuners_utils

    constants = tuners_utils._check_lora_target_modules_mamba.__code__.co_consts
    sets = [value for value in constants if isinstance(value, frozenset)]
    modules = next((value for value in sets if "conv1d" in value), frozenset())
    types = next((value for value in sets if "mamba" in value), frozenset())
    if modules and types:
        return {"model_types": sorted(types), "modules": sorted(modules)}
    return _mamba_from_source(inspect.getsource(tuners_utils._check_lora_target_modules_mamba))


def _mamba_from_source(source: str) -> dict[str, list[str]]:
    import ast
    import textwrap

    sets = {
        ast.unparse(node.targets[0]): sorted(ast.literal_eval(node.value))
        for node in ast.walk(ast.parse(textwrap.dedent(source)))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Set)
    }
    return {"model_types": sets["mamba_model_types"], "modules": sets["incompatible_modules"]}


GENERATING_NAMES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSpeechSeq2Seq")


def generating() -> dict[str, list[str]]:
    """Classes that have prepare_inputs_for_generation: ends of their names, and the classes that are otherwise."""
    import transformers

    _import_models()
    has: set[str] = set()
    has_not: set[str] = set()
    left = [transformers.PreTrainedModel]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            if cls.__module__.startswith("transformers.models."):
                (has if hasattr(cls, "prepare_inputs_for_generation") else has_not).add(cls.__name__)
    return {
        "ends": list(GENERATING_NAMES),
        "as_well": sorted(name for name in has - has_not if not name.endswith(GENERATING_NAMES)),
        "not": sorted(name for name in has_not - has if name.endswith(GENERATING_NAMES)),
    }


def containers() -> list[str]:
    """Classes whose instances hold modules or parameters and run nothing: AuxiliaryTrainingWrapper.check_module."""
    from torch import nn
    from torch.nn.utils.parametrize import ParametrizationList

    kinds = (nn.ModuleDict, nn.ModuleList, nn.ParameterDict, nn.ParameterList)
    found = {kind.__name__ for kind in kinds} | {ParametrizationList.__name__}
    return sorted(found | {cls.__name__ for kind in kinds for cls in _subclasses(kind)})


def odd_convolutions() -> Iterator[tuple[str, str]]:
    """Classes derived from torch's convolutions that can't be made as PEFT makes lora_A and lora_B, with the reason."""
    from torch import nn

    for kind, kernel in ((nn.Conv1d, (3,)), (nn.Conv2d, (3, 3)), (nn.Conv3d, (3, 3, 3))):
        for cls in _subclasses(kind):
            if fault := _fault(cls, kernel):
                yield cls.__name__, fault


def _fault(cls: type, kernel: tuple[int, ...]) -> str | None:
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    try:
        a = cls(8, 4, kernel, ones, zeros, bias=False)
        b = cls(4, 8, ones, ones, groups=1, bias=True)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    shapes = [{name: tuple(p.shape) for name, p in layer.named_parameters()} for layer in (a, b)]
    if shapes != [{"weight": (4, 8, *kernel)}, {"weight": (8, 4, *ones), "bias": (8,)}]:
        return f"its constructor makes {shapes}"
    return None


def _import_models() -> None:
    """Imports every modeling module of transformers that imports here."""
    import transformers.models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in pkgutil.iter_modules(transformers.models.__path__):
            folder = importlib.import_module(f"transformers.models.{package.name}")
            for module in pkgutil.iter_modules(folder.__path__) if hasattr(folder, "__path__") else ():
                if module.name.startswith("modeling_"):
                    try:
                        importlib.import_module(f"transformers.models.{package.name}.{module.name}")
                    except ImportError:  # needs a library that is not installed
                        continue


def _subclasses(kind: type) -> list[type]:
    _import_models()
    found: dict[str, type] = {}
    left: list[type] = [kind]
    while left:
        below: list[type] = left.pop().__subclasses__()
        left += below
        for cls in below:
            if cls.__module__.startswith("transformers."):
                found[cls.__name__] = cls
    return [found[name] for name in sorted(found)]


def with_newer(said: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with the file's lines on classes and model types that only a newer transformers has."""
    patterns = {kind: pattern for kind, pattern in before["moe_patterns"].items() if is_newer(kind)}
    generate = filter(is_newer, before["generating"]["as_well"])
    return {
        **said,
        "moe_patterns": dict(sorted({**said["moe_patterns"], **patterns}.items())),
        "converted": sorted({*said["converted"], *filter(is_newer, before["converted"])}),
        "generating": {**said["generating"], "as_well": sorted({*said["generating"]["as_well"], *generate})},
    }


def text() -> str:
    """The file's text."""
    before = json.loads(FILE.read_text(encoding="utf-8"))
    return json.dumps(with_newer(tables(), before), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    sys.exit(run(__doc__, FILE, text))
