"""Who may import whom, and what an estimate of a known model may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import estimator

PACKAGE = Path(estimator.__file__).parent
# A room imports only from rooms before it, and from the plain modules at the top.
ORDER = ("request", "source", "checkpoint", "architecture", "lora", "sizes", "report", "jobs", "cli")
PLAIN = {"errors", "notes", "dtypes", "generated"}
# Packages that only the scripts that write facts may use: they need the libraries that the facts are about.
WRITERS = {"surveying", "learning"}
# What is read with headers and packed weights alone.
OF_HEADERS = {
    f"estimator.{name}"
    for name in ("source.compact", "source.place", "checkpoint.header", "checkpoint.packed_layouts", "jobs.by_config")
}
HEAVY = {"torch", "transformers", "peft", "numpy", "accelerate", "bitsandbytes"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Whatever is imported, inside of functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    if room not in ORDER:
        return
    later = set(ORDER[ORDER.index(room) + 1 :])
    reached = {name.split(".")[1] for name in imported(path) if name.startswith("estimator.")}
    assert not reached & later


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_scripts_that_write_facts_import_their_packages(path: Path) -> None:
    if path.stem.startswith("generate") or path.parent.name in WRITERS:
        return
    assert not {name for name in imported(path) if WRITERS & set(name.split("."))}


def test_the_plain_modules_import_no_room() -> None:
    for name in PLAIN:
        assert not [found for found in imported(PACKAGE / f"{name}.py") if found.startswith("estimator")]


def test_no_cycle_between_modules() -> None:
    known = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    edges = {name: {found for found in imported(path) if found in known} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        if name not in done:
            for other in edges[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in edges:
        visit(name, ())


ESTIMATE = """
import sys
before = set(sys.modules)
sys.argv = ["lora-size", "--model", "llama-3.1-8b", "--r", "32", "--targets", "qkvo"{json}]
from estimator.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


@pytest.mark.parametrize("json", ["", ', "--json"'], ids=["table", "json"])
def test_an_estimate_of_a_known_model_loads_little(json: str) -> None:
    run = subprocess.run([sys.executable, "-c", ESTIMATE.format(json=json)], capture_output=True, text=True, check=True)
    modules = set(run.stderr.split())
    loaded = {name.partition(".")[0] for name in modules}
    assert {"click", "estimator"} <= loaded
    assert not loaded & (
        HEAVY | {"pydantic", "huggingface_hub", "tabulate", "safetensors", "yaml", "asyncio", "http", "ssl"}
    )
    assert "estimator.jobs.estimate" in modules
    assert not modules & OF_HEADERS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
