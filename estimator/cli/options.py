"""The options of an estimate, declared once; `plan` and `sweep` take them as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from estimator.dtypes import from_torch
from estimator.request.load_options import DTYPES, PRECISIONS, STORAGES
from estimator.request.lora_config import TASK_TYPES
from estimator.request.request import MOST

FORMATS = ("table", "json", "markdown", "csv")


class _Dtype(click.Choice):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(short_dtype(value, self.choices), param, ctx)


def short_dtype(value: Any, choices: Iterable[str]) -> Any:
    """torch's names count as well: bfloat16 and torch.bfloat16 are bf16. Any other value comes back as it is."""
    named = from_torch(value)
    return next((name for name in choices if named and from_torch(name) == named), value)


def named(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuses an empty name, which a shell makes of a variable that nobody set, and an option in a name's place."""
    names = (value,) if isinstance(value, str) else value or ()
    if isinstance(option, click.Option) and (taken := next((name for name in names if name.startswith("--")), None)):
        raise click.BadParameter(f"{taken} is an option, and no name stands before it.", context, option)
    if any(not name.strip() for name in names):
        way_out = "name one" if isinstance(option, click.Argument) else "name one, or leave the option out"
        raise click.BadParameter(f"the name is empty; {way_out}.", context, option)
    return value


def once(context: click.Context, option: click.Parameter, values: tuple[Any, ...]) -> Any:
    """The one list, or None. Raises UsageError for a second one: click's last would stand alone, and half be lost."""
    if len(values) > 1 and not context.resilient_parsing:
        from estimator.errors import UsageError

        name = max(option.opts, key=len)
        message = f"{name} is given {len(values)} times, and each would replace the one before."
        way_out = f"give {name} once, with commas between what it lists"
        raise UsageError(message, where=" ".join(f"{name} {value}" for value in values), way_out=way_out)
    return values[0] if values else None


_LIST: dict[str, Any] = {"multiple": True, "callback": once}


def models(context: click.Context, option: click.Parameter, begun: str) -> Any:
    """What a shell completes to a model."""
    from estimator.cli.completions import models

    return models(begun)


MODEL = (
    click.option(
        "-m",
        "--model",
        callback=named,
        shell_complete=models,
        help="Hub id (org/name, org/name@revision), alias, folder or config.json.",
    ),
    click.option(
        "--set", "set_", metavar="FIELD=VALUE", multiple=True, help="Change a field of config.json. Repeatable."
    ),
    click.option("--revision", callback=named, help="Branch, tag or commit on the Hub."),
    click.option("--subfolder", callback=named, help="Folder inside the model that holds config.json."),
    click.option("--token", help="Token of the Hub; HF_TOKEN and `hf auth login` are honoured."),
    click.option("--offline", is_flag=True, help="Never ask the network; HF_HUB_OFFLINE does the same."),
    click.option("--online", is_flag=True, help="Ask the Hub even for a model that is known without it."),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 3600),
        metavar="SECONDS",
        default=60.0,
        show_default=True,
        help="For all of the Hub's answers together.",
    ),
)
LORA = (
    click.option("-r", "--r", type=int, metavar="N", help="Rank. [default: 8]"),
    click.option("-t", "--targets", **_LIST,
                 help="Letters (qkvo), names (q_proj,v_proj), all-linear, default, re:REGEX. "
                 "[default: PEFT's for the model]"),
    click.option("--exclude", metavar="NAMES|re:REGEX", **_LIST, help="Modules that are not adapted."),
    click.option("--layers", metavar="0-15,31", **_LIST, help="Only these layers (layers_to_transform)."),
    click.option("--rank-pattern", metavar="NAME=RANK", multiple=True,
                 help="Another rank for some modules. Repeatable."),
    click.option("--dora/--no-dora", default=None, help="DoRA (use_dora)."),
    click.option("--bias", type=click.Choice(("none", "all", "lora_only")), help="Which biases train. [default: none]"),
    click.option("--lora-bias/--no-lora-bias", default=None, help="A bias in lora_B."),
    click.option("--modules-to-save", metavar="NAMES", **_LIST,
                 help="Modules that are trained and saved whole: lm_head,embed_tokens."),
    click.option("--target-parameters", metavar="NAMES", **_LIST,
                 help="Parameters to adapt, such as mlp.experts.gate_up_proj."),
    click.option("--trainable-tokens", metavar="IDS", **_LIST,
                 help="Embedding rows to train: 0,1,2 or embed_tokens=0,1."),
    click.option("-c", "--config", type=click.Path(), callback=named,
                 help="An adapter_config.json or a trainer's config file."),
    click.option("--task", type=click.Choice(TASK_TYPES, case_sensitive=False), metavar="TYPE",
                 help="PEFT's task_type: " + ", ".join(TASK_TYPES).lower() + "."),
    click.option("--num-labels", type=click.IntRange(1, MOST["num_labels"]), metavar="N",
                 help="Labels of the fresh head."),
    click.option("--vocab-size", type=click.IntRange(1, MOST["vocab_size"]), metavar="N",
                 help="Rows of the embedding after resizing."),
    click.option("--tokenizer", metavar="PATH|ID", callback=named, help="Count those rows from a tokenizer's files."),
    click.option("--save-embedding-layers", type=click.Choice(("auto", "yes", "no")),
                 help="As in save_pretrained. [default: auto]"),
    click.option("--adapter-dtype", type=_Dtype((*DTYPES, "base")), help="The adapter's. [default: PEFT's]"),
)  # fmt: skip
LOADING = (
    click.option("--base-precision", type=_Dtype(PRECISIONS),
                 help="How the base is loaded. [default: stored]"),
    click.option("--dtype", type=_Dtype(("auto", *DTYPES)),
                 help="from_pretrained's dtype, for what is not quantised. [default: auto]"),
    click.option("--double-quant/--no-double-quant", default=None, help="bnb_4bit_use_double_quant."),
    click.option("--quant-storage", type=_Dtype(STORAGES), help="bnb_4bit_quant_storage."),
    click.option("--compute-dtype", type=_Dtype(DTYPES), help="bnb_4bit_compute_dtype."),
    click.option("--skip-modules", metavar="NAMES", **_LIST, help="llm_int8_skip_modules."),
    click.option("--prepare-kbit/--no-prepare-kbit", default=None, help="prepare_model_for_kbit_training was called."),
)  # fmt: skip


def one_form(context: click.Context, option: click.Parameter, chosen: Any) -> Any:
    """Refuses flags that ask for two forms of the output at once, whatever their order."""
    asked = context.meta.setdefault("lora-size.forms", set())
    if chosen and context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
        asked.add(f"--format {chosen}" if option.name == "format_" else option.opts[-1])
    forms = sorted(asked - ({"--json"} if "--format json" in asked else set()))
    if len(forms) > 1:
        raise click.UsageError(f"{' and '.join(forms)} ask for two outputs; give one of them.", context)
    return chosen


def _quietly(context: click.Context, option: click.Parameter, chosen: bool) -> bool:
    if chosen:
        from estimator.source.progress import listen

        listen(None)
    return bool(one_form(context, option, chosen))


OUTPUT = (
    click.option(
        "--format", "format_", type=click.Choice(FORMATS), callback=one_form, default="table", show_default=True
    ),
    click.option("--json", "json_", is_flag=True, callback=one_form, help="Short for --format json."),
    click.option(
        "-q", "--quiet", is_flag=True, callback=_quietly, help="Only parameters and file bytes, a tab between."
    ),
)
SHOW = (
    click.option("--adapter", metavar="PATH|ID", callback=named,
                 help="Explain a published adapter: its file against its config."),
    click.option("--explain", is_flag=True, help="The arithmetic, matrix by matrix."),
    click.option("--tree", is_flag=True, help="The module tree as print(model) shows it."),
)  # fmt: skip
VERIFY = (
    click.option("--verify", is_flag=True, help="Build or load the real model, put PEFT's adapter on, and compare."),
    click.option("--device", type=click.Choice(("cuda", "cpu", "meta")),
                 help="Where it is verified. [default: cuda, else meta]"),
    click.option("--train-step", is_flag=True, help="With --verify: one real training step as well."),
    click.option("--trust-remote-code", is_flag=True, help="With --verify: run the code that the model brings."),
)  # fmt: skip

Decorator = Callable[[Any], Any]


def together(*groups: tuple[Decorator, ...]) -> Decorator:
    """One decorator that adds all options, in the order given."""

    def add(function: Any) -> Any:
        for decorator in reversed([option for group in groups for option in group]):
            function = decorator(function)
        return function

    return add


SECTIONS = {
    "The model": MODEL,
    "The adapter": LORA,
    "How the base is loaded": LOADING,
    "Output": OUTPUT,
    "A closer look": SHOW,
    "Held against PEFT": VERIFY,
}
estimate_options = together(*SECTIONS.values())


def quiet(*values: Any) -> str:
    """One line, a tab between; nothing for what is not known."""
    return "\t".join("" if value is None else str(value) for value in values)


def request_fields(options: dict[str, Any]) -> dict[str, Any]:
    """click's values as the fields of a Request; those of output and display are left out.

    Raises UsageError for --set and --rank-pattern that can't be read.
    """
    from estimator.request.flags import parse_rank_pattern, parse_set
    from estimator.request.request import Request, check_timeout

    chosen = {name.rstrip("_"): value for name, value in options.items()}
    check_timeout(chosen["timeout"])
    chosen["set"] = parse_set(chosen.get("set") or ())
    chosen["rank_pattern"] = parse_rank_pattern(chosen.get("rank_pattern") or ()) or None
    return {name: value for name, value in chosen.items() if name in Request._fields}
