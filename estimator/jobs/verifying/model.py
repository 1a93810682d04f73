"""The real base model, built without weights or loaded, as its user would load it. Needs torch and transformers.

Rules' source: transformers 5.23.0, PreTrainedModel.from_pretrained (modeling_utils.py).
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.choose import class_asked, generates
from estimator.errors import OfflineError, UnsupportedError
from estimator.jobs.verifying.folder import temporary_folder
from estimator.request.load_options import LoadOptions

AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
BITSANDBYTES = ("int8", "nf4", "fp4")
_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8", "I8": "int8", "F64": "float64"}


class Wanted(NamedTuple):
    """Which model, and how it is loaded."""

    config: Mapping[str, Any]  # config.json
    place: str | None  # folder or Hub id with the weights or the remote code; None where there is none
    subfolder: str  # of the place; "" for itself
    revision: str | None
    task: str | None
    num_labels: int | None
    dtype: str  # from_pretrained's: "auto" or safetensors' name
    untied: tuple[str, ...]  # the class ties them, the file holds values of their own
    load: LoadOptions
    trust_remote_code: bool
    kept_apart: frozenset[str] = frozenset()  # stored under names of their own, with values found unequal
    token: str | None = None
    offline: bool = False


def torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, _TORCH[name])


@contextlib.contextmanager
def config_folder(config: Mapping[str, Any]) -> Iterator[str]:
    """A folder with config.json alone, gone afterwards: what PEFT compares the vocabulary with."""
    with temporary_folder() as folder:
        with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
            json.dump(dict(config), file)
        yield folder


def build_on_meta(wanted: Wanted, folder: str) -> Any:
    """The model without weights, with the dtypes and ties of a loaded one.

    Raises UnsupportedError where transformers can't build it.
    """
    import torch
    from transformers import initialization
    from transformers.modeling_utils import local_torch_dtype

    config = read_config(wanted, folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    cls = model_class(wanted, config)
    with refused("transformers can't build it"):
        whole, config = config, _own_config(cls, config)
        stated = config.dtype or whole.dtype or torch.float32  # where the section states none, the file's tells
        dtype = stated if wanted.dtype == "auto" else torch_dtype(wanted.dtype)
        for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
            if part is not None:
                part.dtype = dtype
        context = (local_torch_dtype(dtype, cls.__name__), torch.device("meta"), initialization.no_init_weights(),
                   initialization.meta_device_safe_creation_ops())  # fmt: skip
        with contextlib.ExitStack() as stack:
            for part in context:
                stack.enter_context(part)
            model = cls(config)
        model.tie_weights()
        _untie(model, [name for name in model.all_tied_weights_keys if name in {*wanted.untied, *wanted.kept_apart}])
        _keep_in_float32(model, dtype)
    model.name_or_path = folder
    model.eval()
    return model


def load(wanted: Wanted, folder: str, device: str) -> Any:
    """The model with its weights on `device`, streamed there shard by shard.

    Raises UnsupportedError where there are no weights to load or transformers refuses, OfflineError where they are not
    cached and the network is not to be used.
    """
    if wanted.place is None:
        raise UnsupportedError(
            "there are no weights here that from_pretrained would load.",
            where=f"--device {device}",
            way_out="--device meta compares everything that needs no weights",
        )
    config = read_config(wanted, folder)
    cls = model_class(wanted, config)
    options: dict[str, Any] = {
        "dtype": "auto" if wanted.dtype == "auto" else torch_dtype(wanted.dtype),
        "device_map": {"": 0 if device == "cuda" else "cpu"},
        "token": wanted.token,
        "local_files_only": wanted.offline,
        "subfolder": wanted.subfolder,
    }
    if wanted.revision:
        options["revision"] = wanted.revision
    if quantization := bitsandbytes_config(wanted.load):
        options["quantization_config"] = quantization
    try:
        with refused("transformers can't load it"):
            options["config"] = _own_config(cls, config)
            return cls.from_pretrained(wanted.place, **options)
    except UnsupportedError as error:
        if wanted.offline and isinstance(error.__cause__, OSError):
            what = f"the weights of {wanted.place} are not in the Hub's cache."
            way_out = "leave --offline and HF_HUB_OFFLINE out, or --device meta"
            raise OfflineError(what, where=f"--device {device}", way_out=way_out) from error
        raise


def read_config(wanted: Wanted, folder: str) -> Any:
    """The config object, num_labels applied. Raises UnsupportedError where transformers does not know the model."""
    from transformers import AutoConfig

    source = folder
    options: dict[str, Any] = {} if wanted.num_labels is None else {"num_labels": wanted.num_labels}
    if wanted.trust_remote_code and wanted.config.get("auto_map") and wanted.place:
        source, options["subfolder"] = wanted.place, wanted.subfolder
    with refused("transformers can't read config.json"):
        return AutoConfig.from_pretrained(source, trust_remote_code=wanted.trust_remote_code, **options)


def model_class(wanted: Wanted, config: Any) -> Any:
    """The class that generates text where the task asks for one, else what the task's Auto class chooses, else the one
    that the task names, else the first of `architectures`, else AutoModel's.

    Raises UnsupportedError where there is none.
    """
    import transformers

    remote = wanted.config.get("auto_map") or {}
    auto = AUTO_CLASSES.get(wanted.task or "CAUSAL_LM")
    if wanted.trust_remote_code and wanted.place and auto in remote:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        return get_class_from_dynamic_module(remote[auto], wanted.place, revision=wanted.revision, token=wanted.token)
    named = next(iter(wanted.config.get("architectures") or ()), None)
    own = getattr(transformers, named or "", None)
    of_task = None if generates(named, wanted.task) else _auto_class(AUTO_CLASSES.get(wanted.task or ""), config)
    asked = None if wanted.task in AUTO_CLASSES else class_asked(wanted.config, wanted.task)
    noted = getattr(transformers, asked or "", None)
    for cls in (of_task, noted, own, _auto_class("AutoModel", config)):
        if isinstance(cls, type):
            return cls
    raise UnsupportedError(
        f"transformers {transformers.__version__} has no class for {wanted.config.get('architectures')}.",
        where="architectures in config.json",
        way_out="--trust-remote-code where the model brings its own code, or another release of transformers",
    )


def bitsandbytes_config(load: LoadOptions) -> Any:
    """BitsAndBytesConfig of these options; None where the base is not quantised by them."""
    if load.base_precision not in BITSANDBYTES:
        return None
    from transformers import BitsAndBytesConfig

    skipped = list(load.skip_modules) if load.skip_modules is not None else None
    if load.base_precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    compute = torch_dtype(load.compute_dtype) if load.compute_dtype else None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=load.base_precision,
        bnb_4bit_use_double_quant=load.double_quant,
        bnb_4bit_quant_storage=torch_dtype(load.quant_storage),
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=skipped,
    )


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Whatever a library raises becomes an UnsupportedError with its last line; memory and ctrl-C pass."""
    try:
        yield
    except (MemoryError, UnsupportedError):
        raise
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(
            f"{what}: {type(error).__name__}: {text[:300]}",
            where="--verify",
            way_out="compare the installed releases with those of `rules`, or verify another device or model",
        ) from error


def _auto_class(auto: str | None, config: Any) -> Any:
    """The class that an Auto class builds from a config; None where it has none."""
    import transformers
    from transformers.models.auto.auto_factory import _get_model_class

    mapping = getattr(transformers, auto)._model_mapping if auto else {}
    return _get_model_class(config, mapping) if type(config) in mapping else None


def _own_config(cls: Any, config: Any) -> Any:
    """What transformers hands to the class: the section that is of its config's class, where the whole is not."""
    wanted, parts = getattr(cls, "config_class", None), (getattr(config, name, None) for name in config.sub_configs)
    own = next((part for part in (config, *parts) if type(part) is wanted), config)
    if own is not config and getattr(config, "quantization_config", None) is not None:
        own.quantization_config = config.quantization_config
    return own


def _untie(model: Any, names: Sequence[str]) -> None:
    import torch

    for name in names:
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, last, torch.nn.Parameter(torch.empty_like(getattr(module, last))))
        model.all_tied_weights_keys.pop(name, None)


def _keep_in_float32(model: Any, dtype: Any) -> None:
    """`_get_dtype_plan`, which from_pretrained applies to what it loads: parameters and persistent buffers; ties keep
    their one tensor."""
    import torch

    patterns = [pattern.replace("*", ".*") for pattern in model._get_dtype_plan(dtype)]
    if not patterns:
        return
    kept, stored = re.compile("|".join(patterns)), model.state_dict()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in stored and tensor.dtype == dtype and kept.search(name):
            tensor.data = tensor.data.to(torch.float32)
