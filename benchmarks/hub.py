"""Metadata from the Hub: this tool against huggingface_hub's own calls.

    python -m benchmarks.hub [--latency 20] [--rounds 5] [--model llama-8b]

Whole processes against the stand-in Hub of tests/hub, in turns, so that a busy moment hits all alike. Shown are the
median wall time, the requests, the bytes of all bodies and the connections of one run. The promise: the whole estimate
takes no longer than the fastest of the library's calls (0.9 of it for DeepSeek-V3), and with everything cached no
longer than three times what the same model takes from the bundled snapshot. hf-mem asks huggingface.co by name
and can't be sent to a stand-in; `--hf-mem ID` times it and the others on the real Hub instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import NamedTuple

from tests.hub.large import large_repos
from tests.hub.standin import StandIn

_API = "from huggingface_hub import HfApi; HfApi().{call}('{id}')"
_READ = "from estimator.source.hub import find_on_hub; find_on_hub('{id}')"
_MAIN = "import sys; from estimator.cli.main import main; main(sys.argv[1:])"
COMMIT = "a" * 40
SNAPSHOT = "bundled snapshot"
BUNDLED = {
    "llama-8b": "meta-llama/Llama-3.1-8B",
    "llama-70b": "meta-llama/Llama-3.1-70B",
    "deepseek-v3": "deepseek-ai/DeepSeek-V3",
}
LIMITS = {"llama-8b": 1.0, "llama-70b": 1.0, "deepseek-v3": 0.9}


class Run(NamedTuple):
    seconds: float
    cpu_seconds: float  # user and system; says more than wall time where others keep the machine busy
    requests: int
    sent_bytes: int
    connections: int
    failed: bool


def contestants(id_: str) -> dict[str, list[str]]:
    """Command lines by name."""
    python = [sys.executable, "-c"]
    estimate = [*python, _MAIN, "--model", id_, "--online", "--json", "--targets", "all-linear"]
    return {
        "lora-size, whole estimate": estimate,
        "lora-size, reading alone": [*python, _READ.format(id=id_)],
        "lora-size, reading by ranges": [*python, _READ.format(id=id_ + "-ranged")],
        "get_sharded_safetensors_metadata": [*python, _API.format(call="get_sharded_safetensors_metadata", id=id_)],
        "get_safetensors_metadata": [*python, _API.format(call="get_safetensors_metadata", id=id_)],
    }


def on_the_real_hub(id_: str, number: int) -> None:
    """Print the same for huggingface.co, hf-mem among the contestants where it is installed."""
    commands = contestants(id_)
    if find_spec("hf_mem"):
        commands["hf-mem"] = [sys.executable, "-m", "hf_mem.cli", "--model-id", id_]
    for name, command in commands.items():
        seconds = []
        for _ in range(number):
            with tempfile.TemporaryDirectory() as cache:
                begun = time.perf_counter()
                subprocess.run(command, env={**os.environ, "HF_HOME": cache}, capture_output=True, check=False)
                seconds.append(time.perf_counter() - begun)
        print(f"  {name:34} {statistics.median(seconds):7.3f} s")


def run(command: list[str], hub: StandIn, cache: str) -> Run:
    """One process, from its start to its end."""
    hub.seen.clear()
    hub.connections.clear()
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": cache, "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_CACHE": os.path.join(cache, "hub")}
    # As installed: compiled once, by the first round, which is a warm-up.
    environment |= {"PYTHONPYCACHEPREFIX": os.path.join(tempfile.gettempdir(), "lora-size-benchmark-pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begun, cpu = time.perf_counter(), _cpu_seconds()
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    seconds, cpu = time.perf_counter() - begun, _cpu_seconds() - cpu
    sent = sum(seen.sent for seen in hub.seen)
    return Run(seconds, cpu, len(hub.seen), sent, sum(hub.connections.values()), ended.returncode != 0)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounds(commands: dict[str, list[str]], hub: StandIn, number: int) -> dict[str, list[Run]]:
    """Every contestant cold, `number` times, in turns."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(number + 1):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as cache:
                one = run(command, hub, cache)
            runs[name] += [one] if turn else []
    return runs


def warm(model: str, hub: StandIn, number: int) -> dict[str, list[Run]]:
    """Whole estimates with everything cached: by branch (one request), by commit (none); and of the bundled model."""
    ways = {
        SNAPSHOT: ["--model", BUNDLED[model], "--offline"],
        "cached, by branch": ["--model", f"org/{model}", "--online"],
        "cached, by commit": ["--model", f"org/{model}", "--revision", COMMIT],
        "cached, offline": ["--model", f"org/{model}", "--offline"],
    }
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as cache:
        run(contestants(f"org/{model}")["lora-size, whole estimate"], hub, cache)
        for turn in range(number + 1):
            for name, way in ways.items():
                one = run([sys.executable, "-c", _MAIN, "--json", "--targets", "all-linear", *way], hub, cache)
                runs[name] += [one] if turn else []
    return runs


def line(name: str, runs: list[Run], best: float | None) -> str:
    """One row of the table."""
    median = statistics.median(one.seconds for one in runs)
    last = runs[-1]
    ratio = f"{median / best:6.2f}" if best else "      "
    mark = "  FAILED" if any(one.failed for one in runs) else ""
    cpu = statistics.median(one.cpu_seconds for one in runs)
    numbers = (
        f"{cpu:6.3f} s CPU {last.requests:5} requests {last.sent_bytes:12,} bytes {last.connections:4} connections"
    )
    return f"  {name:34} {median:7.3f} s {ratio} {numbers}{mark}"


def main() -> None:
    """Print one table per model and latency."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, action="append", help="milliseconds; default 0, 20 and 60")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="append", choices=list(LIMITS))
    parser.add_argument("--hf-mem", metavar="ID", help="time one model on huggingface.co instead")
    options = parser.parse_args()
    if options.hf_mem:
        on_the_real_hub(options.hf_mem, options.rounds)
        return
    with StandIn(large_repos()) as hub:
        for latency in options.latency or [0, 20, 60]:
            hub.latency = latency / 1000
            for model in options.model or list(LIMITS):
                runs = rounds(contestants(f"org/{model}"), hub, options.rounds)
                rivals = [of for name, of in runs.items() if not name.startswith("lora-size")]
                best = min(statistics.median(one.seconds for one in of) for of in rivals if not of[-1].failed)
                print(f"{model} at {latency:g} ms (limit {LIMITS[model]})")
                for name, of in runs.items():
                    print(line(name, of, best), flush=True)
                kept = warm(model, hub, options.rounds)
                snapshot = statistics.median(one.seconds for one in kept[SNAPSHOT])
                for name, of in kept.items():
                    print(line(name, of, snapshot), flush=True)


if __name__ == "__main__":
    main()
