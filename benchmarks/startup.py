"""How quick the offline answer is, as ratios to `python -c pass`, side by side in one run.

    python benchmarks/startup.py [--runs 15]

Goals: the table within 8, --json within 6, peak memory under 60 MB; 1,000 batch requests on one 8B model under 2 s.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HEADLINE = ["-m", "estimator", "--model", "llama-3.1-8b", "--r", "32", "--targets", "qkvo"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import pydantic, one model": ["-c", "import pydantic\nclass M(pydantic.BaseModel):\n    a: int\nM(a=1)"],
    "from huggingface_hub import HfApi": ["-c", "from huggingface_hub import HfApi"],
    "lora-size, table": HEADLINE,
    "lora-size, --json": [*HEADLINE, "--json"],
}
OPTIONAL = {
    "hf_mem": ("hf-mem --help", ["-m", "hf_mem", "--help"]),
    "peft": ("import peft", ["-c", "import peft"]),
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    return measured(arguments, environment)[0]


def measured(arguments: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Seconds and peak kilobytes of one whole process."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return time.perf_counter() - begin, usage.ru_maxrss


def batch_seconds(environment: dict[str, str], requests: int = 1000) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for index in range(requests):
            lora = {"r": 1 + index % 128, "target_modules": ["q_proj", "v_proj"] if index % 2 else "all-linear"}
            file.write(json.dumps({"id": index, "model": "llama-3.1-8b", "lora": lora}) + "\n")
        file.flush()
        return seconds(["-m", "estimator", "batch", file.name], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    commands = dict(COMMANDS)
    for module, (label, arguments) in OPTIONAL.items():
        if importlib.util.find_spec(module):
            commands[label] = arguments
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "HF_HOME": home,
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        times: dict[str, list[float]] = {label: [] for label in commands}
        for _ in range(runs + 1):
            for label, arguments in commands.items():
                times[label].append(seconds(arguments, environment))
        floor = statistics.median(times["python -c pass"][1:])
        for label, found in times.items():
            median = statistics.median(found[1:])
            print(f"{label:36} {1000 * median:8.1f} ms   {median / floor:5.1f} times")
        print(f"{'batch, 1,000 requests on one 8B':36} {batch_seconds(environment):8.2f} s")
        peak = measured(HEADLINE, environment)[1]
    print(f"{'peak memory of the table':36} {peak / 1000:8.1f} MB")


if __name__ == "__main__":
    main()
