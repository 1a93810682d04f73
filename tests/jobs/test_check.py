"""A healthy adapter folder damaged in one way each: what `check` calls it; and folders that must stay silent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.errors import UsageError
from estimator.jobs.checking.check import check
from estimator.jobs.checking.limits import configured, to_limits
from estimator.report.findings import FORMATS, CheckedPath, Problem
from tests.hub.models import header_of, weights_file

BASE = "Qwen/Qwen2.5-0.5B"
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "v_proj"],
          "base_model_name_or_path": BASE}  # fmt: skip
# Qwen2.5-0.5B: 24 layers, hidden 896, two key-value heads of 64.
SHAPES = {"q_proj": (896, 896), "v_proj": (896, 128)}
Tensors = dict[str, tuple[str, list[int]]]


def tensors(r: int = 4, dtype: str = "F32") -> Tensors:
    found: Tensors = {}
    for layer in range(24):
        for name, (wide, high) in SHAPES.items():
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            found[f"{stem}.lora_A.weight"] = (dtype, [r, wide])
            found[f"{stem}.lora_B.weight"] = (dtype, [high, r])
    return found


def write(folder: Path, config: dict | None = None, held: Tensors | None = None, cut: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    stored = weights_file(header_of(dict(sorted((tensors() if held is None else held).items()))))
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(stored.head)
        file.truncate(stored.size - cut)
    return folder


def _whole(folder: Path) -> int:
    """Bytes of the healthy file."""
    return (write(folder) / "adapter_model.safetensors").stat().st_size


def pointer(size: int) -> str:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {size}\n"


def renamed() -> Tensors:
    return {name.replace("q_proj", "k_proj"): value for name, value in tensors().items()}


def hollow() -> Tensors:
    return {name: ("F32", [0]) for name in tensors()}


ADALORA = {"peft_type": "ADALORA", "init_r": 4, "total_step": 9, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {
    f"model.layers.{layer}.self_attn.{name}.lora_E": [True] * 4 for layer in range(24) for name in SHAPES}}  # fmt: skip


def trained_adalora() -> Tensors:
    found = {name.removesuffix(".weight"): value for name, value in tensors().items()}
    return {**found, **{name[:-1] + "E": ("F32", [4, 1]) for name in found if name.endswith("lora_A")}}


def without_last() -> Tensors:
    return dict(list(tensors().items())[:-2])


def with_embeddings() -> Tensors:
    return {**tensors(), "base_model.model.model.embed_tokens.weight": ("F32", [151936, 896])}


def without_front(front: str) -> Tensors:
    """What PEFT 0.21.2 loads nothing of, and warns."""
    return {name.removeprefix(front): value for name, value in tensors().items()}


def of_the_backbone() -> Tensors:
    """As on Qwen2Model, which AutoModel builds."""
    return {name.replace("model.model.layers", "model.layers"): value for name, value in tensors().items()}


def with_a_head(folder: Path, rows: int, adapted: int = 151936) -> Path:
    """The tied head of Qwen2.5-0.5B adapted, its own rows saved along."""
    stem = "base_model.model.lm_head"
    head = {f"{stem}.lora_A.weight": ("F32", [4, 896]), f"{stem}.lora_B.weight": ("F32", [adapted, 4]),
            f"{stem}.base_layer.weight": ("BF16", [rows, 896])}  # fmt: skip
    return write(folder, {"target_modules": ["q_proj", "v_proj", "lm_head"]}, {**tensors(), **head})


def bare_beside_a_head(folder: Path) -> Path:
    head = {"base_model.model.lm_head.weight": ("BF16", [151936, 896])}
    return write(folder, {"modules_to_save": ["lm_head"]}, {**without_front("base_model.model.model."), **head})


def on_mixtral(folder: Path, saved: list[str]) -> Path:
    """mistralai/Mixtral-8x7B-v0.1 with no prefix: PEFT 0.21.2 puts it before LoRA's tensors, and before no others."""
    held: Tensors = {"lm_head.weight": ("BF16", [32000, 4096])} if saved else {}
    for layer in range(32):
        stem = f"model.layers.{layer}.self_attn.q_proj.lora_"
        held |= {f"{stem}A.weight": ("F32", [4, 4096]), f"{stem}B.weight": ("F32", [4096, 4])}
    base = {"base_model_name_or_path": "mistralai/Mixtral-8x7B-v0.1"}
    return write(folder, {**base, "modules_to_save": saved, "target_modules": ["q_proj"]}, held)


def on_marian(folder: Path) -> Path:
    """Two vocabularies of as many words, of which the decoder's is resized (`resize_decoder_token_embeddings`)."""
    base = folder / "base"
    base.mkdir(parents=True)
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder")
             for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))}  # fmt: skip
    apart = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    words = {"vocab_size": 40, "decoder_vocab_size": 40, "pad_token_id": 1}
    config = {"architectures": ["MarianMTModel"], "model_type": "marian", "d_model": 16, **sizes, **apart, **words}
    (base / "config.json").write_text(json.dumps(config))
    held: Tensors = {
        "base_model.model.lm_head.weight": ("F32", [44, 16]),
        "base_model.model.model.decoder.embed_tokens.weight": ("F32", [44, 16]),
        "base_model.model.model.encoder.embed_tokens.weight": ("F32", [40, 16]),
    }
    for at in ("encoder.layers.0.self_attn", "decoder.layers.0.self_attn", "decoder.layers.0.encoder_attn"):
        stem = f"base_model.model.model.{at}.q_proj.lora_"
        held |= {f"{stem}A.weight": ("F32", [4, 16]), f"{stem}B.weight": ("F32", [16, 4])}
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}
    return write(folder, {"base_model_name_or_path": str(base), "task_type": None, **fields}, held)


def on_laguna(folder: Path) -> Path:
    """As PEFT 0.21.2 saves it, and loads all but the shared expert's: it takes these names for a checkpoint's."""
    base = folder / "base"
    base.mkdir(parents=True)
    layers = {"layer_types": ["full_attention"] * 2, "mlp_layer_types": ["dense", "sparse"],
              "num_attention_heads_per_layer": [2, 2], "num_hidden_layers": 2}  # fmt: skip
    experts = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 20,
               "shared_expert_intermediate_size": 28}  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 8, "vocab_size": 40}  # fmt: skip
    kind = {"architectures": ["LagunaForCausalLM"], "model_type": "laguna"}
    (base / "config.json").write_text(json.dumps({**kind, **sizes, **layers, **experts}))
    held: Tensors = {}
    for at, high in (("0.mlp", 24), ("1.mlp.shared_experts", 28)):
        stem = f"base_model.model.model.layers.{at}.gate_proj.lora_"
        held |= {f"{stem}A.weight": ("F32", [4, 16]), f"{stem}B.weight": ("F32", [high, 4])}
    return write(folder, {"base_model_name_or_path": str(base), "target_modules": ["gate_proj"]}, held)


# PEFT 0.21.2: PeftModel.from_pretrained ends in KeyError 'base_model.model.model.layers.0.input_layernorm.weight'.
NESTED = {"target_modules": ["layers.1.self_attn.q_proj"], "modules_to_save": ["layers.0", "layers.0.input_layernorm"]}


def nested() -> Tensors:
    shapes = {"self_attn.q_proj.weight": [896, 896], "self_attn.k_proj.weight": [128, 896],
              "self_attn.v_proj.weight": [128, 896], "self_attn.o_proj.weight": [896, 896],
              "self_attn.q_proj.bias": [896], "self_attn.k_proj.bias": [128], "self_attn.v_proj.bias": [128],
              "mlp.gate_proj.weight": [4864, 896], "mlp.up_proj.weight": [4864, 896],
              "mlp.down_proj.weight": [896, 4864], "post_attention_layernorm.weight": [896],
              "input_layernorm.weight": [896]}  # fmt: skip
    found: Tensors = {f"base_model.model.model.layers.0.{name}": ("BF16", shape) for name, shape in shapes.items()}
    stem = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    return {**found, f"{stem}A.weight": ("F32", [4, 896]), f"{stem}B.weight": ("F32", [896, 4])}


def bare(folder: Path, name: str, text: str = "{}") -> Path:
    write(folder)
    (folder / name).write_text(text)
    return folder


def without(folder: Path, name: str) -> Path:
    write(folder)
    (folder / name).unlink()
    return folder


FAULTS: list[tuple[str, str, Callable[[Path], Path]]] = [
    ("cut short", "cut_short", lambda f: write(f, cut=100)),
    ("bytes behind the end", "too_long", lambda f: write(f, cut=-100)),
    ("modules of another name", "extra_modules", lambda f: write(f, held=renamed())),
    ("other rank", "other_rank", lambda f: write(f, held=tensors(r=8))),
    ("one layer lost", "missing_modules", lambda f: write(f, held=without_last())),
    ("names without their prefix", "no_prefix",
     lambda f: write(f, held={name.removeprefix("base_model.model."): value for name, value in tensors().items()})),
    ("names without half of their prefix", "no_prefix", lambda f: write(f, held=without_front("base_model."))),
    ("names without more than their prefix", "no_prefix",
     lambda f: write(f, held=without_front("base_model.model.model."))),
    ("names of AutoModel's class on one with a head", "names_of_another_class",
     lambda f: write(f, held=of_the_backbone())),
    ("names of a class with a head on AutoModel's", "names_of_another_class",
     lambda f: write(f, {"task_type": "FEATURE_EXTRACTION"})),
    ("names without their prefix beside a head", "missing_modules", bare_beside_a_head),
    ("names without their prefix, a head among them, on a base whose names are converted", "no_prefix",
     lambda f: on_mixtral(f, ["lm_head"])),
    ("one more row in a head that is adapted", "other_shape", lambda f: with_a_head(f, 151937)),
    ("another name of the adapter's", "adapter_names",
     lambda f: write(f, held={name.replace(".weight", ".mine.weight"): value for name, value in tensors().items()})),
    ("no tensors", "no_tensors", lambda f: write(f, held={})),
    ("what ZeRO-3 leaves", "empty_tensors", lambda f: write(f, held=hollow())),
    ("integers", "not_floats", lambda f: write(f, held=tensors(dtype="I32"))),
    ("embeddings along", "embeddings_saved", lambda f: write(f, held=with_embeddings())),
    ("r of zero", "refused_today", lambda f: write(f, {"r": 0})),
    ("targets that nothing has", "refused_today", lambda f: write(f, {"target_modules": ["c_attn"]})),
    ("config is no JSON", "malformed_config", lambda f: bare(f, "adapter_config.json", "{")),
    ("weights of no bytes", "empty_file", lambda f: bare(f, "adapter_model.safetensors", "")),
    ("weights are text", "malformed_header", lambda f: bare(f, "adapter_model.safetensors", "hello, hello")),
    ("pointer of another size", "size_differs", lambda f: bare(f, "adapter_model.safetensors", pointer(777_777))),
    ("pointer one byte off", "size_differs", lambda f: bare(f, "adapter_model.safetensors", pointer(_whole(f) + 1))),
    ("no weights", "no_weights", lambda f: without(f, "adapter_model.safetensors")),
    ("no config", "no_config", lambda f: without(f, "adapter_config.json")),
    ("a pickle beside", "pickle", lambda f: bare(f, "adapter_model.bin")),
    ("a whole model beside", "base_model_committed", lambda f: bare(f, "model-00001-of-00002.safetensors")),
    ("optimizer state beside", "training_state_committed", lambda f: bare(f, "optimizer.pt")),
    ("a path of one machine", "base_is_local_path", lambda f: write(f, {"base_model_name_or_path": "/home/me/base"})),
    ("no method", "no_peft_type", lambda f: write(f, {"peft_type": None})),
    ("mlx-lm's", "no_peft_type", lambda f: write(f, {"peft_type": None, "fine_tune_type": "lora", "iters": 9})),
    ("a norm in a layer, both saved", "loading_fails", lambda f: write(f, NESTED, nested())),
    ("names that PEFT converts once more", "loading_fails", on_laguna),
    ("a rank of nothing", "rank_pattern", lambda f: write(f, {"rank_pattern": {"q_proj": 0}})),
]  # fmt: skip


@pytest.mark.parametrize(("code", "make"), [pytest.param(c, m, id=name) for name, c, m in FAULTS])
def test_fault_is_named(tmp_path: Path, code: str, make: Callable[[Path], Path]) -> None:
    (row,) = check([str(make(tmp_path / "adapter"))])
    assert row.status == "failed"
    assert code in {problem.code for problem in row.problems}


HEALTHY: list[tuple[str, Callable[[Path], Path]]] = [
    ("as PEFT saves it", lambda f: write(f)),
    ("in bfloat16", lambda f: write(f, held=tensors(dtype="BF16"))),
    ("in float16", lambda f: write(f, held=tensors(dtype="F16"))),
    ("a model card beside", lambda f: bare(f, "README.md", "# card")),
    ("another alpha", lambda f: write(f, {"lora_alpha": 64})),
    ("names as a regular expression", lambda f: write(f, {"target_modules": r".*\.(q|v)_proj"})),
    ("default targets", lambda f: write(f, {"target_modules": None})),
    ("AdaLoRA after its training", lambda f: write(f, ADALORA, held=trained_adalora())),
    ("with dropout", lambda f: write(f, {"lora_dropout": 0.1})),
    ("a head that is adapted", lambda f: with_a_head(f, 151936)),
    ("a head that is resized and adapted", lambda f: with_a_head(f, 151940, 151940)),
    ("names without their prefix on a base whose names are converted", lambda f: on_mixtral(f, [])),
    ("one of two vocabularies resized", on_marian),
    (
        "names of AutoModel's class, for its task",
        lambda f: write(f, {"task_type": "FEATURE_EXTRACTION"}, of_the_backbone()),
    ),
    ("names of AutoModel's class, and no task", lambda f: write(f, {"task_type": None}, of_the_backbone())),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in HEALTHY])
def test_healthy_is_silent(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    rows = check([str(make(tmp_path / "adapter"))])
    assert [row.status for row in rows] == ["ok"]
    assert FORMATS["text"](rows) == ""


@pytest.mark.parametrize(("strict", "status"), [(False, "skipped"), (True, "failed")])
def test_unknown_base(tmp_path: Path, strict: bool, status: str) -> None:
    folder = write(tmp_path / "adapter", {"base_model_name_or_path": "nobody/has-such-a-model"})
    (row,) = check([str(folder)], strict=strict)
    assert (row.status, row.problems[0].code) == (status, "base_unknown")
    assert "--offline" not in row.problems[0].message  # check has no such option


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"max_file_size": "1kB"}, "over_max_file_size"),
        ({"max_parameters": 1000}, "over_max_parameters"),
        ({"max_percent": 0.001}, "over_max_percent"),
    ],
)
def test_what_is_over_a_limit_is_named(tmp_path: Path, given: dict, code: str) -> None:
    (row,) = check([str(write(tmp_path / "adapter"))], limits=to_limits(given))
    assert [problem.code for problem in row.problems] == [code]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", '[tool.lora-size]\nmax-file-size = "5MB"\n'),
        ("setup.cfg", "[tool.lora-size]\nmax-file-size = 5MB\n"),
        ("setup.cfg", "[tool:lora-size]\nmax-file-size = 5M\n"),
        (".lora-size.toml", 'max-file-size = "5MB"\n'),
    ],
)
def test_limits_of_a_project(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    table, where = configured(str(tmp_path))
    assert to_limits(table, where).max_file_size == 5_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('max-file-siz = "5MB"', "did you mean max-file-size", id="a typo"),
        pytest.param("[lora-size]\nmax-parameters = 5", "one of max-file-size, max-parameters", id="a table too many"),
        pytest.param('strict = "yes"', "give true or false", id="a switch that is none"),
        pytest.param("[", "mend its syntax", id="broken TOML"),
    ],
)
def test_limits_that_would_guard_nothing_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / ".lora-size.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        configured(str(tmp_path))
    assert said in refused.value.way_out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("train.yaml", "weights.safetensors")]
    for name in names:
        os.mkfifo(name)
    assert check([str(tmp_path)]) == []
    for row in check(names):
        assert (row.status, row.problems[0].code) == ("skipped", "not_an_adapter")
        assert "no regular file" in row.problems[0].message


def test_files_that_are_skipped_are_summed_up() -> None:
    rows = [CheckedPath(f"{n}.yaml", "skipped", (Problem("base_unknown", f"no {n % 5}"),)) for n in range(20)]
    rows += [CheckedPath(f"{n}.md", "skipped", (Problem("not_a_config", f"why {n}"),)) for n in range(4)]
    assert FORMATS["text"](rows).splitlines() == [
        "skipped: 0.yaml, 5.yaml, 10.yaml and 1 more: no 0 [base_unknown]",
        "skipped: 1.yaml, 6.yaml, 11.yaml and 1 more: no 1 [base_unknown]",
        "skipped: 2.yaml, 7.yaml, 12.yaml and 1 more: no 2 [base_unknown]",
        "skipped: 8 more for reasons of this kind, which --json lists [base_unknown]",
        "skipped: 0.md, 1.md, 2.md and 1 more: these are neither adapters nor training configs. [not_a_config]",
    ]


@pytest.mark.parametrize(
    ("base", "end"), [("/data/Qwen2.5-0.5B/", "Hub, such as Qwen/Qwen2.5-0.5B."), ("/data/x", "Hub.")]
)
def test_a_path_of_one_machine_names_its_model(tmp_path: Path, base: str, end: str) -> None:
    write(tmp_path / "a", {"base_model_name_or_path": base})
    (tmp_path / "t.yaml").write_text(f"base_model: {base}\nadapter: lora\nlora_r: 8\nlora_target_modules: [q_proj]\n")
    rows = check([str(tmp_path / "a"), str(tmp_path / "t.yaml")])
    assert [row.problems[0].message.endswith(end) for row in rows] == [True, True]
