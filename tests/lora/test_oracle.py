"""Recorded outcomes of PEFT on 33 architectures, through the whole estimate: headers in, counts and bytes out."""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.request.request import Request

RECORDS = sorted((Path(__file__).parents[2] / "fixtures" / "oracle").glob("*.json.gz"))
# Of a newer release than the facts state: what config.json alone says of them no other record tells
NEWER = ("beam--", "hy_v4_vl--", "inkling2_loop_text--", "lara_mini--")
REFUSALS = ("no_target_modules", "unsupported_module", "invalid_lora")


def laid_down(record: dict[str, Any], folder: Path) -> str:
    """The model's folder: its config, and files of the right size with the right header and no data."""
    (folder / "config.json").write_text(json.dumps(record["config"]))
    for name, file in record["files"].items():
        header = json.dumps(file["header"], separators=(",", ":"), ensure_ascii=False).encode()
        with (folder / name).open("wb") as out:
            out.write(struct.pack("<Q", file["header_bytes"]) + header.ljust(file["header_bytes"]))
            out.truncate(file["size"])
    for name, index in (record["index"] or {}).items():
        (folder / name).write_text(json.dumps(index))
    return str(folder)


def outcome(folder: str, case: dict[str, Any], bases: BaseCache) -> dict[str, Any]:
    """The estimate in the words of a record."""
    try:
        answer = estimate(Request(model=folder, lora=case["lora"]), bases=bases)
    except LoraSizeError as error:
        return {"refused": error.code in REFUSALS or error.code}
    adaptation = answer.adaptation
    return {
        "parameters": adaptation.trainable_parameters,
        "all_parameters": adaptation.all_parameters,
        "modules": Counter((module.name, module.rank) for module in adaptation.modules),
        "file_bytes": answer.file_bytes,
        "tensors": len(adaptation.tensors),
        "dtypes": sorted({tensor.dtype for tensor in adaptation.tensors}),
    }


def recorded(case: dict[str, Any]) -> dict[str, Any]:
    if "refused" in case:
        return {"refused": True}
    said = {name: value for name, value in case.items() if name not in ("label", "lora") and value is not None}
    if "modules" in said:
        said["modules"] = Counter((name, rank) for name, rank in said["modules"])
    return said


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_the_estimate_is_what_peft_did(path: Path, tmp_path: Path) -> None:
    assert wrong_answers(json.loads(gzip.decompress(path.read_bytes())), tmp_path) == {}


@pytest.mark.parametrize("path", [path for path in RECORDS if path.name.startswith(NEWER)], ids=lambda path: path.name)
def test_config_json_alone_tells_as_much_of_a_newer_releases_class(path: Path, tmp_path: Path) -> None:
    assert wrong_answers({**json.loads(gzip.decompress(path.read_bytes())), "files": {}}, tmp_path) == {}


def wrong_answers(record: dict[str, Any], folder_of_model: Path) -> dict[str, Any]:
    """Case -> what is answered, and what is true, where they differ."""
    folder, bases = laid_down(record, folder_of_model), BaseCache()
    wrong = {}
    for case in record["cases"]:
        said, true = outcome(folder, case, bases), recorded(case)
        if different := {name: (said.get(name), value) for name, value in true.items() if said.get(name) != value}:
            wrong[case["label"]] = different
    return wrong


def test_the_records_are_there() -> None:
    assert len(RECORDS) == 33
