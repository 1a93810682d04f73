"""Files of trainers that no fixture holds: how each is told, and what its LoRA counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import NoTargetModulesError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.request.files import read_config_file, to_request
from estimator.request.request import Request
from estimator.request.trainers.swift import NOT_QUANTISED

QWEN = "Qwen/Qwen2.5-7B-Instruct"
# r · (in + out) of 28 layers: q, k and v, gate and up are one Linear each of Megatron's, which PEFT finds apart.
FUSED = 28 * 8 * ((3584 + 4608) + 2 * 3584 + (3584 + 2 * 18944) + (18944 + 3584))
APART = FUSED + 28 * 8 * 3 * 3584


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param("tuner_type: lora\nper_device_train_batch_size: 1\n", APART, id="swift sft"),
        pytest.param("tuner_type: lora\nmicro_batch_size: 1\n", FUSED, id="megatron sft"),
        pytest.param(
            "rlhf_type: gkd\nlora_rank: 4\ntrain: {gpus: 4, tuner_type: lora, lora_rank: 8}\n", FUSED, id="Ray"
        ),
    ],
)
def test_whose_layers_a_yaml_of_ms_swift_adapts(tmp_path: Path, text: str, parameters: int) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {QWEN}\n{text}")
    assert estimate(Request(config=str(path), offline=True)).adaptation.trainable_parameters == parameters


LLAMA = "model: {model_name: meta-llama/Llama-3.1-8B-Instruct, torch_dtype_str: bfloat16}\n"
OUMI = LLAMA + "training: {trainer_type: TRL_SFT, use_peft: true}\n"
# Llama 3.1 8B, 32 layers of 4,096: the query, and the value of 1,024.
QUERY, VALUE = 32 * (4096 + 4096), 32 * (4096 + 1024)
# GPT-2, 12 layers of 768: c_attn, attention's c_proj, c_fc, the MLP's c_proj.
GPT2 = 12 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072))
LUDWIG = "model_type: llm\nbase_model: meta-llama/Llama-3.1-8B-Instruct\nadapter: {type: lora, r: 4}\n"
AXOLOTL = "base_model: meta-llama/Llama-3.1-8B\nadapter: lora\nlora_r: 8\nlora_alpha: 8\n"
QLORA = AXOLOTL.replace("lora\n", "qlora\nload_in_4bit: true\n")
FACTORY = "model_name_or_path: meta-llama/Llama-3.1-8B-Instruct\nfinetuning_type: lora\nlora_target: q_proj\n"
SWIFT = "model: a/b\ntuner_type: lora\n"
LITGPT = "checkpoint_dir: checkpoints/a/b\nlora_r: 4\n"
TUNE = "model: {_component_: torchtune.models.llama3_1.lora_llama3_1_8b, lora_attn_modules: [q_proj]}\n"
NEMO = "model: {_target_: nemo_a, pretrained_model_name_or_path: a/b}\npeft: {_target_: nemo_b, dim: 8}\n"
V1 = "model: meta-llama/Llama-3.1-8B-Instruct\nmodel_class: VALUE\npeft_config: {name: lora, target_modules: q_proj}\n"
AUTO = "task: TASK\nbase_model: meta-llama/Llama-3.1-8B-Instruct\nparams: {peft: true, lora_r: 4, target_modules: 'q_proj, v_proj'}\n"
PEFT_SFT = "model_name_or_path: meta-llama/Llama-3.1-8B-Instruct\nsplits: train\nuse_peft_lora: true\n"


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param(OUMI, 8 * (QUERY + VALUE), id="Oumi leaves the targets to PEFT"),
        pytest.param(OUMI + "peft: {lora_r: 4, lora_target_modules: [q_proj]}\n", 4 * QUERY, id="a rank and a target"),
        pytest.param(OUMI + "peft: {lora_exclude_modules: ['.*v_proj', '.*[.][0-9][.].*']}\n", 8 * QUERY * 22 // 32,
                     id="expressions for what is left out"),
        pytest.param(PEFT_SFT + "lora_target_modules: q_proj,v_proj\n", 64 * (QUERY + VALUE), id="PEFT's example"),
        pytest.param(AXOLOTL + "lora_target_parameters: [down_proj.weight]\n", 32 * 8 * (14336 + 4096),
                     id="Axolotl asks for no defaults beside parameters"),
        pytest.param(AXOLOTL + "lora_target_modules: [q_proj, v_proj]\nlora_exclude_modules: [v_proj]\n",
                     8 * (QUERY + VALUE), id="Axolotl's schema knows no modules to leave out"),
        pytest.param(V1.replace("VALUE", "llm"), 8 * QUERY, id="LLaMA-Factory's v1 takes a text for one name"),
        pytest.param(V1.replace("VALUE", "cls"), 8 * QUERY + 4096 + 1, id="and scores tokens by one label"),
        pytest.param(AUTO.replace("TASK", "llm-sft"), 4 * QUERY, id="AutoTrain keeps the blank beside a comma"),
        pytest.param("task: llm\nbase_model: microsoft/Phi-3-mini-4k-instruct\nparams: {peft: true, lora_r: 1, unsloth: true}\n",
                     32 * ((3072 + 9216) + 2 * 3072 + (3072 + 16384) + (8192 + 3072)), id="and has Unsloth for four types alone"),
        pytest.param(PEFT_SFT + "lora_target_modules: q_proj, v_proj\n", 64 * QUERY, id="so does PEFT's example"),
        pytest.param(FACTORY.replace("q_proj", "q_proj, v_proj"), 8 * (QUERY + VALUE), id="LLaMA-Factory drops it"),
        pytest.param(FACTORY + "add_special_tokens: <a>,<b>\n", 8 * QUERY + 2 * 128_256 * 4096,
                     id="LLaMA-Factory trains both embeddings where tokens are new"),
        pytest.param(FACTORY + "add_tokens: a\nadditional_target: norm\n", 8 * QUERY + (2 * 32 + 1) * 4096,
                     id="or what is named in their place"),
        pytest.param(LUDWIG, 4 * (QUERY + VALUE), id="Ludwig leaves the targets to PEFT"),
        pytest.param(LUDWIG.replace("r: 4", "target_modules: '.*q_proj'"), 8 * QUERY, id="an expression of Ludwig's"),
        pytest.param("base_model: openai-community/gpt2\nlora_r: 8\nlora_target_linear: true\nadapter: qlora\nload_in_4bit: true\n",
                     8 * GPT2, id="Axolotl finds the Linears that bitsandbytes makes of Conv1D"),
        pytest.param("model_name_or_path: openai-community/gpt2\nfinetuning_type: lora\nquantization_bit: 8\n", 8 * GPT2,
                     id="so does LLaMA-Factory"),
        pytest.param("model: openai-community/gpt2\ntuner_type: lora\nquant_method: bnb\nquant_bits: 4\n", 8 * GPT2,
                     id="and ms-swift"),
        pytest.param("base_model: google/gemma-4-26B-A4B\nlora_r: 8\nadapter: lora\nlora_target_modules: '.*vision_tower.*q_proj'\n",
                     27 * 8 * (1152 + 1152), id="Axolotl adapts the Linear inside a clippable one"),
        pytest.param("base_model: google/gemma-4-26B-A4B\nlora_r: 8\nadapter: lora\nlora_target_modules: [k_proj]\n",
                     27 * 8 * (1152 + 1152) + 8 * (25 * (2816 + 2048) + 5 * (2816 + 1024)), id="by name too"),
        pytest.param(PEFT_SFT + "lora_r: 2\nlora_target_modules: q_proj\n", 2 * QUERY, id="with one name"),
    ],
)  # fmt: skip
def test_what_trains(tmp_path: Path, text: str, parameters: int) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert estimate(Request(config=str(path), offline=True)).adaptation.trainable_parameters == parameters


@pytest.mark.parametrize("names", ["q_proj,v_proj", "q_proj v_proj"])
@pytest.mark.parametrize("keys", ["model: openai-community/gpt2\ntuner_type: lora\ntarget_modules",
                                  "model_name_or_path: openai-community/gpt2\nuse_peft: true\nlora_target_modules"])  # fmt: skip
def test_text_is_one_name_where_a_list_is_wanted(tmp_path: Path, keys: str, names: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{keys}: {names.replace('q_proj', 'c_attn').replace('v_proj', 'c_fc')}\n")
    with pytest.raises(NoTargetModulesError):
        estimate(Request(config=str(path), offline=True))


GPT_OSS = (
    "base_model: openai/gpt-oss-20b\nadapter: lora\nlora_target_parameters: [7.mlp.experts.down_proj]\nbf16: true\n"
)
MXFP4 = "model_quantization_config: Mxfp4Config\nmodel_quantization_config_kwargs: {dequantize: VALUE}\n"
SKIPPING = "adapter: qlora\nload_in_4bit: true\nbnb_config_kwargs: {llm_int8_skip_modules: [b]}\n"
IN_4 = "load_in_4bit: true\n"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (OUMI + "peft: {q_lora: true}\n", {"base_precision": "fp4", "compute_dtype": "float32", "dtype": "bf16",
                                           "adapter_dtype": "bfloat16", "prepare_kbit": True}),
        (OUMI + "peft: {q_lora: true}\nfsdp: {enable_fsdp: true}\n", {"adapter_dtype": "bfloat16", "prepare_kbit": None}),
        (OUMI.replace("TRL_SFT", "HF") + "peft: {q_lora: true, q_lora_bits: 8, llm_int8_skip_modules: [a]}\n",
         {"base_precision": "int8", "skip_modules": ["a"], "adapter_dtype": None, "prepare_kbit": True}),
        (OUMI.replace("bfloat16", "bfloat16, model_kwargs: {quantization_config: {quant_method: mxfp4}}"),
         {"base_precision": "bf16", "adapter_dtype": None, "prepare_kbit": None}),
        (PEFT_SFT, {"base_precision": None, "dtype": "fp32", "adapter_dtype": None}),
        (PEFT_SFT + "use_4bit_quantization: true\nbnb_4bit_quant_storage_dtype: bfloat16\n",
         {"base_precision": "nf4", "dtype": "bf16", "compute_dtype": "float16", "adapter_dtype": "bfloat16"}),
        (PEFT_SFT + "use_4bit_quantization: true\n", {"dtype": "fp32", "quant_storage": "uint8"}),
        (LITGPT + "precision: bf16-true\n", {"dtype": "bf16", "adapter_dtype": "bfloat16"}),
        (LITGPT + "precision: bf16-true\nquantize: bnb.nf4\n", {"base_precision": "nf4", "skip_modules": []}),
        (LITGPT + "precision: bf16-mixed\n", {"dtype": "fp32", "adapter_dtype": None}),
        (SWIFT, {"adapter_dtype": None}),
        (SWIFT + "lora_dtype: bfloat16\n", {"adapter_dtype": "bfloat16"}),
        (SWIFT + "quant_method: bnb\nquant_bits: 8\n", {"trainer_skips": list(NOT_QUANTISED)}),
        (SWIFT + "lora_dtype: float16\n", {"adapter_dtype": None}),
        (NEMO, {"adapter_dtype": "base"}),
        (NEMO.replace("a/b", "a/b, torch_dtype: bf16"), {"adapter_dtype": "bfloat16"}),
        (NEMO.replace("dim: 8", "dim: 8, lora_dtype: float32"), {"adapter_dtype": None}),
        (NEMO.replace("dim: 8", "dim: 8, lora_dtype: bf16") + "quantization: {load_in_8bit: true}\n", {"adapter_dtype": "bfloat16"}),
        (NEMO + "quantization: {load_in_8bit: true}\n", {"base_precision": "int8", "adapter_dtype": None}),
        (NEMO + "quantization: {load_in_4bit: true}\n",
         {"base_precision": "nf4", "double_quant": True, "quant_storage": "bfloat16", "adapter_dtype": "bfloat16"}),
        (TUNE.replace("lora_llama", "qlora_llama"), {"base_precision": "nf4", "double_quant": True, "adapter_dtype": "bfloat16"}),
        (FACTORY + "quantization_bit: 3\nquantization_method: hqq\n", {"base_precision": None}),
        (V1, {"base_precision": None, "dtype": None, "adapter_dtype": None}),
        (V1 + "quant_config: {name: bnb, quantization_type: fp4}\n",
         {"base_precision": "fp4", "compute_dtype": "float16", "quant_storage": "float16", "double_quant": True}),
        (LUDWIG, {"base_precision": None, "dtype": "fp32", "prepare_kbit": None}),
        (LUDWIG + "quantization: {bits: 4}\n", {"base_precision": "nf4", "dtype": "fp16", "double_quant": True,
                                               "prepare_kbit": True, "adapter_dtype": None}),
        (LUDWIG + "quantization: {bits: 8}\n", {"base_precision": "int8", "dtype": "fp16", "prepare_kbit": True}),
        ("model_name_or_path: a/b-bnb-4bit\nuse_peft: true\n", {"base_precision": None, "adapter_dtype": "bfloat16"}),
        ("model_name_or_path: a/b\nuse_peft: true\nload_in_4bit: true\nbnb_4bit_quant_storage: bfloat16\n",
         {"quant_storage": "bfloat16"}),
        ("model_name_or_path: a/b-GPTQ\nuse_peft: true\n", {"base_precision": None, "adapter_dtype": None}),
        (GPT_OSS + MXFP4.replace("VALUE", "true"), {"base_precision": "bf16"}),
        (GPT_OSS + MXFP4.replace("VALUE", "false"), {"base_precision": None}),
        ("base_model: a/b\n" + SKIPPING, {"base_precision": "nf4", "skip_modules": ["b"]}),
        ("base_model: a/Jamba-b\nadapter: lora\nload_in_8bit: true\n", {"trainer_skips": ["mamba"]}),
    ],
)  # fmt: skip
def test_how_the_base_is_loaded(tmp_path: Path, text: str, options: dict) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    found = to_request(read_config_file(str(path)))
    assert {name: found.get(name) for name in options} == options


SAVES = "lora_modules_to_save: [embed_tokens, lm_head]\n"
ADDS = "additional_target: embed_tokens,lm_head\n"
TRL = (
    "model_name_or_path: meta-llama/Llama-3.1-8B-Instruct\nuse_peft: true\nlora_target_modules: [q_proj, v_proj]\n"
    + SAVES
)
ADDS_IN_SWIFT = (
    "model: meta-llama/Llama-3.1-8B-Instruct\ntuner_type: lora\ntarget_modules: q_proj\nmodules_to_save: lm_head\n"
)


@pytest.mark.parametrize(
    ("text", "dtypes"),
    [
        pytest.param(FACTORY + ADDS, {"F32"}, id="LLaMA-Factory trains in float32"),
        pytest.param(FACTORY + ADDS + "quantization_bit: 4\n", {"F32"}, id="on few bits too"),
        pytest.param(FACTORY + ADDS + "deepspeed: ds_z3_config.json\n", {"F32", "BF16"}, id="but not with ZeRO-3"),
        pytest.param(FACTORY + ADDS + "pure_bf16: true\n", {"F32", "BF16"}, id="nor in pure bfloat16"),
        pytest.param(QLORA + SAVES + "lora_target_modules: [q_proj]\nbf16: true\n", {"F32", "BF16"},
                     id="Axolotl takes the embeddings back to bfloat16"),
        pytest.param(QLORA + SAVES + "lora_target_modules: [q_proj]\nbf16: true\nembeddings_skip_upcast: true\n", {"F32"},
                     id="unless it leaves them to PEFT"),
        pytest.param(TRL, {"F32"}, id="TRL loads in float32"),
        pytest.param(TRL + "load_in_4bit: true\n", {"BF16"}, id="TRL casts to bfloat16 what trains on few bits"),
        pytest.param(ADDS_IN_SWIFT, {"F32", "BF16"}, id="ms-swift leaves what is saved whole"),
        pytest.param(ADDS_IN_SWIFT + "torch_dtype: float16\n", {"F32"}, id="unless it is float16"),
    ],
)  # fmt: skip
def test_the_dtype_of_what_is_saved_whole(tmp_path: Path, text: str, dtypes: set[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    tensors = estimate(Request(config=str(path), offline=True)).adaptation.tensors
    assert {tensor.dtype for tensor in tensors} == dtypes


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        pytest.param(LLAMA + "training: {use_peft: false}\n", UsageError, "trains no LoRA", id="Oumi trains in full"),
        pytest.param(OUMI.replace("TRL_SFT", "VERL_GRPO"), UnsupportedError, "verl", id="verl makes the adapter"),
        pytest.param(OUMI + "peft: {q_lora: true, q_lora_bits: 3}\n", UsageError, "q_lora_bits is 3", id="three bits"),
        pytest.param(PEFT_SFT.replace("lora: true", "lora: false"), UsageError, "trains no LoRA", id="the example in full"),
        *(
            pytest.param(text, UsageError, f"{said} is (a list|5)", id=f"{text.split(':')[0]}: {said} is no text")
            for said, text in (
                ("bnb_4bit_quant_type", NEMO + "quantization: {load_in_4bit: true, bnb_4bit_quant_type: [x]}\n"),
                ("bnb_4bit_quant_type", "model_name_or_path: a/b\nuse_peft: true\nload_in_4bit: true\nbnb_4bit_quant_type: 5\n"),
                ("bnb_4bit_quant_type", SWIFT + "quant_method: bnb\nquant_bits: 4\nbnb_4bit_quant_type: [x]\n"),
                ("bnb_4bit_quant_type", LUDWIG + "quantization: {bits: 4, bnb_4bit_quant_type: 5}\n"),
                ("bnb_4bit_quant_type", OUMI + "peft: {q_lora: true, bnb_4bit_quant_type: [x]}\n"),
                ("bnb_4bit_quant_type", PEFT_SFT + "use_4bit_quantization: true\nbnb_4bit_quant_type: [x]\n"),
                ("quantization_type", FACTORY + "quantization_bit: 4\nquantization_type: [x]\n"),
                ("quantization_method", FACTORY + "quantization_bit: 4\nquantization_method: [x]\n"),
                ("bnb_4bit_quant_type", QLORA + "bnb_config_kwargs: {bnb_4bit_quant_type: [x]}\n"),
                ("bnb_4bit_use_double_quant", QLORA + "bnb_config_kwargs: {bnb_4bit_use_double_quant: [x]}\n"),
                ("llm_int8_skip_modules", QLORA + "bnb_config_kwargs: {llm_int8_skip_modules: 5}\n"),
            )
        ),
        pytest.param(AXOLOTL + "tokens: [a]\n", UsageError, "refuses tokens", id="Axolotl's tokens without embeddings"),
        pytest.param(AXOLOTL, NoTargetModulesError, "No module and no parameter", id="Axolotl has no targets of its own"),
        pytest.param(LUDWIG.replace("lora", "adalora"), UsageError, "trains no LoRA", id="another method of Ludwig's"),
        pytest.param(LUDWIG + "quantization: {backend: torchao, mode: float8}\n", UnsupportedError, "torchao", id="torchao"),
        pytest.param(LUDWIG + "quantization: {bits: 3}\n", UsageError, "bits is 3", id="three bits of Ludwig's"),
        pytest.param(FACTORY + "quantization_bit: 4\nresize_vocab: true\n", UsageError, "refuses resize_vocab", id="in 4 bits"),
        pytest.param(FACTORY + "quantization_bit: 4\npissa_init: true\n", UsageError, "refuses pissa_init", id="PiSSA"),
        pytest.param(FACTORY + "quantization_bit: 3\n", UsageError, "quantization_bit is 3", id="three bits of bitsandbytes"),
        pytest.param(FACTORY + "quantization_bit: 4\nquantization_method: eetq\n", UsageError, "quantization_bit is 4",
                     id="EETQ has eight"),
        pytest.param(FACTORY + "use_galore: true\n", UsageError, "refuses use_galore", id="GaLore beside LoRA"),
        pytest.param(FACTORY + "mixture_of_depths: convert\n", UnsupportedError, "modules of its own", id="another class"),
        pytest.param(LITGPT + "precision: bf16-mixed\nquantize: bnb.nf4\n", UsageError, "precision is 'bf16-mixed'",
                     id="litgpt quantises with no autocast"),
        pytest.param(NEMO.replace("dim: 8", "use_dora: true") + "quantization: {load_in_4bit: true}\n", UsageError,
                     "refuses use_dora", id="NeMo's DoRA in 4 bits"),
        pytest.param(NEMO.replace("a/b", "Qwen/Qwen2.5-0.5B").replace("dim: 8", "target_modules: 'q_proj,v_proj'"),
                     NoTargetModulesError, "No module", id="NeMo takes a text for one pattern"),
        pytest.param(LUDWIG + "adapters: {a: {type: lora}}\n", UnsupportedError, "several", id="several adapters"),
        pytest.param(OUMI.replace("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3.5-27B"), UnsupportedError,
                     "Qwen3_5ForCausalLM, the text model of Qwen3_5ForConditionalGeneration", id="the text model alone"),
        pytest.param(PEFT_SFT.replace("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"), UsageError,
                     "has no class for qwen2_5_vl", id="AutoModelForCausalLM sees nothing"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(error, match=said):
        estimate(Request(config=str(path), offline=True))


def test_oumi_loads_what_it_knows_as_seeing_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    targets = "peft: {lora_target_modules: [q_proj]}\n"
    path.write_text(OUMI.replace("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct") + targets)
    found = estimate(Request(config=str(path), offline=True))
    assert found.tree.architecture == "Qwen2_5_VLForConditionalGeneration"


AUTOTRAIN = "task: llm-sft\nbase_model: a/b\nparams: {peft: true, unsloth: false}\n"


@pytest.mark.parametrize(
    ("text", "grows"),
    [
        pytest.param(AUTOTRAIN, True, id="AutoTrain resizes to the tokenizer"),
        pytest.param(AUTOTRAIN.replace("unsloth: false", "unsloth: true"), False, id="Unsloth does not"),
        pytest.param(PEFT_SFT + "chat_template_format: chatml\n", True, id="PEFT's example adds a template's tokens"),
        pytest.param(PEFT_SFT + "chat_template_format: none\n", False, id="and without a template none"),
    ],
)
def test_rows_that_only_the_tokenizer_knows_are_said(tmp_path: Path, text: str, grows: bool) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert ("vocabulary_may_grow" in {note.code for note in read_config_file(str(path)).notes}) == grows
