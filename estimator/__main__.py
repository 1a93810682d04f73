"""`python -m estimator` is the command `lora-size`."""

from estimator.cli.main import main

main()
