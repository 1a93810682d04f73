"""lora-size with the architecture facts taken away, to measure what inference from names and shapes is worth.

python benchmarks/without_facts.py batch REQUESTS
"""

from __future__ import annotations

import sys

import estimator.architecture.build as build_room
from estimator.cli.main import main

if __name__ == "__main__":
    build_room.choose = lambda config, task: None
    sys.exit(main())
