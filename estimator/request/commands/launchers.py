"""How many processes a command line starts, of all its machines: what its launcher is told.

torch 2.13 (distributed/run.py), DeepSpeed's launcher/runner.py of August 2026, accelerate 1.15 (commands/launch.py),
ms-swift 4.6.0.dev0 (cli/main.py), LLaMA-Factory 0.9.6.dev0 (launcher.py). What stands before a launcher (`uv run`,
`srun`, `docker run`, `ray job submit --`) starts it once, as far as the line tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_EACH, _VISIBLE = ("NPROC_PER_NODE", "nproc_per_node"), "CUDA_VISIBLE_DEVICES"
VARIABLES = (*_EACH, "NNODES", _VISIBLE)
_ALL = ("gpu", "auto")  # that are visible
_TORCHRUN = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
_LAUNCHERS = (*_TORCHRUN, "deepspeed", "accelerate", "accelerate-launch", "accelerate.commands.launch")
# Options of DeepSpeed's that say which GPUs; without one it takes those that are visible.
_SELECTING = frozenset(("include", "exclude", "e", "num_nodes", "num_gpus", "num_accelerators", "hostfile", "H"))
_MAX_DIGITS = 6


def processes(variables: Mapping[str, str], words: Sequence[str], program: str) -> int | None:
    """None where the line does not say it: `--nproc_per_node gpu`, or a launcher that takes all GPUs it finds.

    variables: those in front of the command; words: the command up to its script or module; program: its name.
    """
    leaves = [word.rpartition("/")[2] for word in words]
    at = next((i for i, leaf in enumerate(leaves) if leaf in _LAUNCHERS), None)
    if at is None:
        return _by_variables(variables, program)
    options = _options(words[at + 1 :])
    if leaves[at] in _TORCHRUN:
        each = options.get("nproc_per_node", "1")
        return _times(_visible(variables) if each in _ALL else each, options.get("nnodes", "1"))
    if leaves[at] == "deepspeed":
        return _of_deepspeed(options, variables)
    return _number(options.get("num_processes"))  # of all machines


def _by_variables(variables: Mapping[str, str], program: str) -> int | None:
    """ms-swift and LLaMA-Factory start torchrun themselves; the second with every GPU it finds."""
    trainer = program.partition(" ")[0]
    each = next((variables[name] for name in _EACH if name in variables), None)
    if trainer in ("swift", "megatron"):
        return _times(each or "1", variables.get("NNODES", "1"))
    if trainer != "llamafactory-cli":
        return None
    return _times(_visible(variables) if each is None else each, variables.get("NNODES", "1"))


def _visible(variables: Mapping[str, str]) -> str | None:
    """How many GPUs a variable leaves to be found."""
    numbers = variables.get(_VISIBLE, "").split(",")
    return str(len(numbers)) if all(number.strip().isdigit() for number in numbers) else None


def _of_deepspeed(options: Mapping[str, str], variables: Mapping[str, str]) -> int | None:
    """`--num_gpus` of each machine, or `--include host:0,1@host:0,1`; a file of hosts says how many there are."""
    if _SELECTING.isdisjoint(options):
        return _number(_visible(variables))
    if (included := options.get("include")) is not None:
        slots = [host.partition(":")[2].split(",") for host in included.split("@")]
        named = all(slot.isdigit() for host in slots for slot in host)
        return sum(map(len, slots)) if named else None
    nodes = options.get("num_nodes", None if {"hostfile", "H"} & options.keys() else "1")
    return _times(options.get("num_gpus", options.get("num_accelerators")), nodes)


def _options(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word, behind in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            found[name.lstrip("-").replace("-", "_")] = value if equals else behind
    return {"include": found["i"], **found} if "i" in found else found


def _times(each: str | None, nodes: str | None) -> int | None:
    low, _, high = (nodes or "").partition(":")  # torchrun's may be a range
    counts = _number(each), _number(low) if high in ("", low) else None
    return counts[0] * counts[1] if counts[0] and counts[1] else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) else None
