"""Published memory measurements against the plan: the share within the bounds and the error of the middle.

    python benchmarks/published_memory.py published.jsonl [--rows]

A line of the file is one run with its settings and `measured`. Two middles are compared: that of the options alone, as
the command line has them, and that of the software which the run names (`Software`: releases, kernels, losses).
A run is left out where a setting that decides is missing, where plan has no option for its method or format, or where
its base is not bundled; `--rows` says which, and prints every run. Held out in turn, no source changes any figure: none
of the model's constants was fitted to these runs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from estimator.errors import LoraSizeError
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.memory import memory_of
from estimator.request.request import Request
from estimator.sizes.memory.peak import Bounds
from estimator.sizes.memory.training import LITGPT as LITGPT_TODAY
from estimator.sizes.memory.training import Software, Training

COUNTERS = ("allocated", "reserved", "device")
LITGPT = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "projection": "o_proj", "head": "lm_head"}
LITGPT_MLP = ("gate_proj", "up_proj", "down_proj")
NAMED = {  # what transformers names otherwise, or holds as one, by the beginning of the base's name
    "phi-2": {"o_proj": "dense", "gate_proj": "fc1", "up_proj": "fc1", "down_proj": "fc2"},
    "falcon": dict.fromkeys(("q_proj", "k_proj", "v_proj"), "query_key_value"),
    "phi-3": dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj")
    | dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}
LOSSES = {"chunked": "chunked", "liger": "fused", "cut cross-entropy": "fused", "triton": "in_place"}
OPTIMIZERS = {"paged": "paged_adamw_32bit", "8bit": "adamw_bnb_8bit", "fused": "adamw_torch_fused"}


class Left(Exception):
    """Why a run can't be asked of plan."""


@dataclass(frozen=True)
class Compared:
    source: str
    counter: str
    name: str
    measured: int
    asked: Bounds  # of the options alone
    told: int  # the middle of the software that the run names


def source_of(row: dict) -> str:
    place = re.sub(r" @\w+| \(.*|, earlier.*|.*(?=MetaMathQA)", "", row["source"])
    return place.replace("acceleration scripts/benchmarks/", "").strip().split("/", 1)[-1][-42:]


def targets_of(row: dict) -> str:
    """Names as plan takes them; litgpt names parts of its own fused modules."""
    targets = row["lora"].get("target_modules") or row["lora"].get("targets")
    if not targets:
        raise Left("targets not stated")
    if targets in (["all linear"], "all linear", "all-linear"):
        return "all-linear"
    if isinstance(targets, str):
        return "re:" + targets.replace("(_checkpoint_wrapped_module.)?", "")
    names = [LITGPT.get(name, name) for name in targets if name != "mlp"]
    named = next(
        (names for start, names in NAMED.items() if row["base"].lower().partition("/")[2].startswith(start)), {}
    )
    names = [named.get(name, name) for name in (*names, *(LITGPT_MLP if "mlp" in targets else ()))]
    return ",".join(dict.fromkeys(names))


def request_of(row: dict, folder: str) -> Request:
    quantization, lora = str(row["quantization"]), row["lora"] or {}
    if row["method"] not in ("lora", "qlora", "dora"):
        raise Left(f"method {row['method']}")
    if quantization == "none":
        precision, double = "bf16" if "float32" not in str(row["precision"]) else "fp32", None
        precision = "fp16" if str(row["precision"]).startswith("float16") else precision
    elif "nf4" in quantization and "torchao" not in quantization and "nvfp4" not in quantization:
        precision, double = "nf4", "dq" in quantization or "fms" in row["id"]  # its loader sets double quantisation
    else:
        raise Left(f"quantised as {quantization.split(' (')[0]}")
    base = row["base"]
    if base.startswith("custom Llama-style"):
        base = folder
    return Request(
        model=base,
        offline=True,
        r=lora.get("r"),
        targets=targets_of(row),
        base_precision=precision,
        double_quant=double,
        dora=True if row["method"] == "dora" or lora.get("use_dora") else None,
        adapter_dtype="bf16" if lora.get("adapter_dtype") == "bfloat16" else None,
        # trl (0.13, sft_trainer.py) leaves out the preparation where the 4-bit weights are sharded
        prepare_kbit=True if "k-bit preparation" in (row["notes"] or "") and row["gpus"] == 1 else None,
        lora={"lora_dropout": lora["dropout"]} if lora.get("dropout") else {},
    )


def training_of(row: dict) -> Training:
    for field, kind in (("batch_size", int), ("sequence_length", int), ("gradient_checkpointing", bool)):
        if not isinstance(row[field], kind):
            raise Left(f"{field} not stated")
    precision, loss = str(row["precision"]), str(row["fused_loss"] or "")
    autocast = ("autocast" in precision and "no autocast" not in precision) or "mixed" in precision
    optimizer = json.dumps(row["optimizer"]).lower()
    attention = str(row["attention"])
    return Training(
        batch_size=row["batch_size"],
        gradient_accumulation=row["gradient_accumulation"] if isinstance(row["gradient_accumulation"], int) else 1,
        sequence_length=row["sequence_length"],
        packing="packed" in (row["notes"] or "") or bool((row["lora"] or {}).get("packing")),
        mixed_precision=("fp16" if precision.startswith("float16") else "bf16") if autocast else "no",
        gradient_checkpointing=row["gradient_checkpointing"],
        attention="flash_attention_2" if "flash" in attention and "without support" not in attention else "sdpa",
        loss=next((kind for word, kind in LOSSES.items() if word in loss), "standard"),
        optimizer=next((name for word, name in OPTIMIZERS.items() if word in optimizer), "adamw_torch"),
        gpus=row["gpus"],
        strategy="fsdp" if "FSDP" in (row["notes"] or "") else "ddp",
        offloads=("weights", "optimizer") if "offloaded to CPU" in (row["notes"] or "") else (),
    )


def software_of(row: dict) -> Software:
    """What the run says of releases and kernels; what it does not say is today's."""
    litgpt = row["id"].startswith("litgpt")
    transformers = release(row, "transformers")
    if litgpt:  # the runs are of 2023 and 2024: bitsandbytes 0.42, and embeddings stayed
        of_2024 = replace(LITGPT_TODAY, keeps_packed_inputs=True, renews_embeddings=False)
        # in 2023 (finetune/lora.py, longest_seq_ix) the longest example came first: no step was before it
        return replace(of_2024, names_last_step="litgpt_commit" not in (row["software"] or {}))
    return Software(
        fused_norms="foak" in (row["notes"] or ""),  # its MLP is fused only where LoRA is on it
        shifts_logits=transformers < (4, 50),
        drops_logits=transformers < (4, 46),
        keeps_packed_inputs=release(row, "bitsandbytes") < (0, 43, 2),
        narrow_head="trl" in (row["software"] or {}),
        loops_experts=transformers < (5,),
        checkpoints_around_fsdp=transformers < (4, 53),
    )


def release(row: dict, library: str) -> tuple[int, ...]:
    """As numbers; far ahead where it is not said."""
    said = re.match(r"[\d.]+", str((row["software"] or {}).get(library, "")))
    return tuple(int(part) for part in said[0].strip(".").split(".")) if said else (99,)


def measured_of(row: dict) -> tuple[str, int]:
    measured = row["measured"]
    counter = measured.get("counter")
    if counter not in COUNTERS:
        raise Left(f"counter {counter}")
    value = measured.get("reserved_end_of_step_p99_bytes") or measured.get(f"peak_{counter}_bytes")
    if not value:
        raise Left("no single figure")
    return counter, value


def compare(row: dict, folder: str) -> Compared:
    request = request_of(row, folder)
    counter, value = measured_of(row)
    training = training_of(row)
    try:
        answer = estimate(request)
        if request.base_precision == "nf4" and not answer.base.model.quantised:
            raise Left("transformers 5 leaves its matrices unpacked")
        runs = (training, replace(training, software=software_of(row)))
        asked, told = (getattr(memory_of(answer, run), counter) for run in runs)
    except LoraSizeError as error:
        raise Left(str(error)[:90]) from error
    counter += "" if row["gpus"] == 1 else f", {training.strategy}"
    return Compared(source_of(row), counter, row["id"], value, asked, told.expected)


def off(value: int, measured: int) -> float:
    return 100 * (value / measured - 1)


def line(name: str, rows: list[Compared]) -> str:
    inside = sum(r.asked.lower <= r.measured <= r.asked.upper for r in rows)
    asked, told = (
        median(abs(off(value(r), r.measured)) for r in rows) for value in (lambda r: r.asked.expected, lambda r: r.told)
    )
    width = median(100 * (r.asked.upper - r.asked.lower) / r.measured for r in rows)
    return f"| {name} | {inside} of {len(rows)} | {asked:.1f} % | {told:.1f} % | {width:.0f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published")
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    groups, left = defaultdict(list), Counter()
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 4096, "vocab_size": 32000,
            "torch_dtype": "bfloat16",
        }))  # fmt: skip
        for text in Path(options.published).read_text().splitlines():
            row = json.loads(text)
            try:
                found = compare(row, folder)
            except Left as why:
                left[str(why)] += 1
                if options.rows:
                    print("left out:", row["id"], why)
                continue
            groups[f"{found.source}, {found.counter}"].append(found)
            if options.rows:
                a = found.asked
                print(
                    f"{found.name}: {found.measured / 1e9:.2f} GB, [{a.lower / 1e9:.2f}, {a.upper / 1e9:.2f}], asked "
                    f"{off(a.expected, found.measured):+.1f} %, told {off(found.told, found.measured):+.1f} %"
                )
    print("| source, counter | within bounds | middle off | told the software | bounds' width |")
    print("| --- " * 5 + "|")
    for name, rows in sorted(groups.items()):
        print(line(name, rows))
    single = [r for rows in groups.values() for r in rows if r.counter in COUNTERS]
    print(line("all on one GPU", single))
    print(line("all", [r for rows in groups.values() for r in rows]))
    print("left out:", "; ".join(f"{n} {why}" for why, n in left.most_common()))


if __name__ == "__main__":
    main()
