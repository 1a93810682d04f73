"""A scratch repository with seeded faults beside healthy adapters and configs: every fault named, all else silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.jobs.checking.check import check
from estimator.jobs.checking.limits import to_limits
from estimator.report.findings import FORMATS
from tests.jobs.test_check import FAULTS, HEALTHY, SHAPES, Tensors, bare, pointer, tensors, write

Make = Callable[[Path], object]


def text(name: str, said: str) -> Make:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / name).write_text(said)

    return make


def blank(name: str) -> Make:
    return text(name, "")


AXOLOTL = (
    "base_model: Qwen/Qwen2.5-0.5B\nadapter: {}\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\n"
)
FACTORY = "model_name_or_path: Qwen/Qwen2.5-0.5B\nstage: sft\nfinetuning_type: lora\nlora_rank: 8\nlora_target: {}\n"

# Each in a folder of its own: what it is, the code that names it.
SEEDED: list[tuple[str, str, Make]] = [
    *((name, code, make) for name, code, make in FAULTS),
    ("everything frozen", "nothing_trains", text("train.yaml", AXOLOTL.format("lora") + "unfrozen_parameters: [lm_head]\n")),
    ("qlora without 4 bit", "usage", text("train.yaml", AXOLOTL.format("qlora"))),
    ("a training config beside an adapter", "usage",
     lambda f: (write(f), (f / "train.yaml").write_text(AXOLOTL.format("qlora")))),
    ("r is no number", "usage", text("train.yaml", AXOLOTL.format("lora").replace("lora_r: 8", "lora_r: many"))),
    ("targets nobody has", "no_target_modules", text("train.yaml", FACTORY.format("c_attn"))),
    ("broken YAML of a trainer", "usage", text("train.yaml", "base_model: gpt2\nadapter: [lora\n")),
    ("a base on one machine", "base_is_local_path",
     text("train.yaml", AXOLOTL.format("lora").replace("Qwen/Qwen2.5-0.5B", "/data/models/mine"))),
    ("a base on one machine of Windows", "base_is_local_path",
     text("train.yaml", AXOLOTL.format("lora").replace("Qwen/Qwen2.5-0.5B", r"D:\models\mine"))),
    ("an output that is tied", "usage",
     text("train.yaml", "model: {_component_: torchtune.models.qwen2_5.lora_qwen2_5_0_5b, lora_attn_modules: [q_proj],"
          " apply_lora_to_output: true}\ncheckpointer: {checkpoint_dir: /tmp/Qwen2.5-0.5B}\n")),
    ("no attention adapted", "usage",
     text("train.yaml", "model: {_component_: torchtune.models.llama3.lora_llama3_8b, lora_attn_modules: []}\n")),
    ("lora_A without its lora_B", "missing_modules",
     lambda f: write(f, {"base_model_name_or_path": "nobody/knows"}, without_half())),
    ("a rank that nobody asked for", "other_rank",
     lambda f: write(f, {"base_model_name_or_path": "nobody/knows", "r": 16})),
    ("modules that nobody asked for", "extra_modules",
     lambda f: write(f, {"base_model_name_or_path": "nobody/knows", "target_modules": ["q_proj"]})),
    ("a prefix twice", "doubled_prefix", lambda f: write(
        f, held={name.replace("base_model.model.", "base_model.model.base_model.model.", 1): value
                 for name, value in tensors().items()})),
    ("DoRA that the config lost", "dora_not_said", lambda f: write(f, held=with_dora())),
    ("layers that the config lost", "missing_layers", lambda f: write(f, held=of_layers(0, 23))),
]  # fmt: skip


def without_half() -> Tensors:
    return {
        name: value for name, value in tensors().items() if not name.endswith("layers.3.self_attn.q_proj.lora_B.weight")
    }


def with_ranks(ranks: dict[int, int]) -> Tensors:
    """Layer -> rank of its two modules."""
    held = {}
    for name, (dtype, shape) in tensors().items():
        rank = ranks.get(int(name.split(".layers.")[1].split(".")[0]), 4)
        held[name] = (dtype, [rank, shape[1]] if "lora_A" in name else [shape[0], rank])
    return held


def with_dora() -> Tensors:
    high = {name: shape[1] for name, shape in SHAPES.items()}
    vectors = {
        name.replace("lora_A.weight", "lora_magnitude_vector"): ("F32", [high[name.split(".")[-3]]])
        for name in tensors()
        if "lora_A" in name
    }
    return {**tensors(), **vectors}


def of_layers(*layers: int) -> Tensors:
    return {name: value for name, value in tensors().items() if int(name.split(".layers.")[1].split(".")[0]) in layers}


def size_of(dtype: str = "F32") -> Callable[[Path], Path]:
    """A Git LFS pointer to what `write` would have written."""

    def make(folder: Path) -> Path:
        size = (write(folder, held=tensors(dtype=dtype)) / "adapter_model.safetensors").stat().st_size
        return bare(folder, "adapter_model.safetensors", pointer(size))

    return make


def trained(name: str) -> Tensors:
    return {**tensors(), f"base_model.model.{name}.weight": ("F32", [151936, 896])}


SOUND: list[tuple[str, Make]] = [
    *HEALTHY,
    ("a rank pattern", lambda f: write(
        f, {"rank_pattern": {r"layers\.(3|4)\.self_attn\.[qv]_proj": 2}}, with_ranks({3: 2, 4: 2}))),
    ("a rank pattern that repeats r", lambda f: write(f, {"rank_pattern": {"q_proj": 4}})),
    ("DoRA", lambda f: write(f, {"use_dora": True}, with_dora())),
    ("some layers", lambda f: write(f, {"layers_to_transform": [0, 23]}, of_layers(0, 23))),
    ("a pointer of Git LFS", size_of()),
    ("a pointer to 16 bits", size_of("BF16")),
    ("fields of another release", lambda f: write(f, {"peft_version": "0.99.0", "a_new_switch": False})),
    ("trained embeddings", lambda f: write(f, {"modules_to_save": ["embed_tokens"]}, trained("model.embed_tokens"))),
    ("axolotl", text("train.yaml", AXOLOTL.format("lora"))),
    ("llama-factory in JSON", text("train.json", json.dumps({
        "model_name_or_path": "Qwen/Qwen2.5-0.5B", "stage": "sft", "finetuning_type": "lora", "lora_target": "all"}))),
    ("a command line", text("train.sh", "trl sft --model_name_or_path Qwen/Qwen2.5-0.5B --use_peft --lora_r 8\n")),
    ("a workflow", text("ci.yaml", "on: push\njobs: {build: {runs-on: ubuntu-latest, steps: [{run: pip install peft}]}}\n")),
    ("a template that is no YAML", text("deployment.yaml", "{{- if .Values.on }}\nkind: Deployment\n{{ end }}\n")),
    ("a script without options", text("install.sh", "echo \"it's done\nmake\n")),
    ("a script that merges", text("merge.sh", "bash tests/merge_lora.sh\n")),
    ("data in JSON", text("data.json", '["lora", "peft"]')),
    ("broken JSON of others", text("notes.json", "{not json")),
    ("an empty YAML", blank("empty.yaml")),
]  # fmt: skip


def seed(top: Path, rows: list, kind: str) -> dict[Path, tuple]:
    folders = {top / f"{kind}{index:02d}": row for index, row in enumerate(rows)}
    for folder, row in folders.items():
        row[-1](folder)
    return folders


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, dict]:
    top = tmp_path_factory.mktemp("repository")
    return top, seed(top, SEEDED, "fault"), seed(top, SOUND, "sound")


def test_there_are_enough() -> None:
    assert len(SEEDED) >= 20
    assert len(SOUND) >= 20


def test_every_seeded_fault_is_named_and_nothing_else(repository: tuple[Path, dict, dict]) -> None:
    top, faults, _ = repository
    failed = {row.path: row for row in check([str(top)]) if row.status == "failed"}
    codes = {row[0]: set() for row in SEEDED}
    for path, row in failed.items():
        folder = next((f for f in faults if Path(path) == f or f in Path(path).parents), None)
        assert folder is not None, (path, row.problems)
        codes[faults[folder][0]] |= {problem.code for problem in row.problems}
    assert {name: code in codes[name] for name, code, _ in SEEDED} == dict.fromkeys(codes, True)


def test_healthy_ones_are_silent(repository: tuple[Path, dict, dict]) -> None:
    rows = check([str(folder) for folder in repository[2]])
    assert [row for row in rows if row.status != "ok"] == []
    assert FORMATS["text"](rows) == ""


def test_one_missing_path_does_not_hide_the_others(repository: tuple[Path, dict, dict]) -> None:
    top, _, sound = repository
    rows = check([str(next(iter(sound))), str(top / "nowhere"), str(top / "fault00")])
    assert [(row.status, [p.code for p in row.problems][:1]) for row in rows] == [
        ("ok", []), ("failed", ["not_found"]), ("failed", ["cut_short"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said", "status", "code"),
    [
        pytest.param("notes.txt", b"hello", "skipped", "not_an_adapter", id="a text"),
        pytest.param("data.safetensors", b"\x02\0\0\0\0\0\0\0{}", "skipped", "not_an_adapter", id="other tensors"),
        pytest.param("data.safetensors", b"", "failed", "empty_file", id="no bytes"),
        pytest.param("data.safetensors", b"hello, hello", "failed", "malformed_header", id="no header"),
        pytest.param("data.safetensors", b"\x02\0\0\0\0\0\0\0{}more", "failed", "too_long", id="bytes behind the end"),
        pytest.param("values.yaml", b"replicas: 3", "skipped", "not_a_config", id="a config of others"),
        pytest.param(
            "train.yaml", b"base_model: gpt2\nmicro_batch_size: 2", "skipped", "no_lora", id="a full fine-tune"
        ),
        pytest.param("model.safetensors", b"x", "failed", "base_model_committed", id="a whole model"),
        pytest.param("optimizer.pt", b"x", "failed", "training_state_committed", id="training state"),
    ],
)
def test_a_file_named_by_itself(tmp_path: Path, name: str, said: bytes, status: str, code: str) -> None:
    (tmp_path / name).write_bytes(said)
    rows = check([str(tmp_path / name)], strict=True)
    assert [(row.status, row.problems[0].code) for row in rows] == [(status, code)]
    assert f"[{code}]" in FORMATS["text"](rows)


def test_a_config_of_others_is_told_whose_are_read(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("replicas: 3")
    (row,) = check([str(tmp_path / "values.yaml")])
    assert "Known: PEFT, Axolotl" in row.problems[0].message


@pytest.mark.parametrize(("strict", "status"), [(False, "skipped"), (True, "failed")])
def test_an_adapter_that_names_no_base(tmp_path: Path, strict: bool, status: str) -> None:
    folder = write(tmp_path / "adapter", {"base_model_name_or_path": None})
    (row,) = check([str(folder)], strict=strict)
    assert (row.status, row.problems[0].code) == (status, "base_unknown")


def test_limits_hold_without_a_base(tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", {"base_model_name_or_path": None})
    (row,) = check([str(folder)], limits=to_limits({"max_parameters": 10}))
    assert [problem.code for problem in row.problems] == ["over_max_parameters"]
