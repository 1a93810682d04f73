"""Are all tensors of real checkpoints accounted for? python benchmarks/architecture_names.py FOLDER

FOLDER holds *.json.gz with `config` and `weight_map` {tensor: file} of published models. For each that names a class of
transformers: how many tensors load into a module, which patterns are left, which parameters the file lacks.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

from estimator.architecture.build import lookup_for
from estimator.architecture.choose import choose
from estimator.architecture.load import knower
from estimator.architecture.rename import Renamer, read_transform
from estimator.architecture.towers import with_towers


def pattern(name: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*.json.gz")):
        said = json.loads(gzip.decompress(path.read_bytes()))
        config, names = said.get("config"), list(said["weight_map"])
        facts = choose(config, None) if config else None
        label = path.name.removesuffix(".json.gz")
        if facts is None:
            named = (config or {}).get("architectures"), (config or {}).get("model_type")
            print(f"{label}: no facts for {named}; {len(names):,} tensors")
            continue
        started = time.perf_counter()
        facts, _ = with_towers(facts, config)
        lookup = lookup_for(config, facts)
        known = knower(facts.root, lookup)
        rename = Renamer([read_transform(n, t) for n, t in enumerate(facts.transforms)], facts.prefix, known)
        left = Counter(pattern(name) for name in names if not known(rename(name).name))
        spent = time.perf_counter() - started
        remote = " (brings its own code)" if "auto_map" in config else ""
        print(
            f"{label}: {facts.said.name}{remote}: {len(names) - left.total():,} of {len(names):,} load, {spent:.2f} s"
        )
        for name, count in left.most_common(6):
            print(f"    left: {name} x {count}")


if __name__ == "__main__":
    main()
