"""--targets: letters, names, all-linear, default or an expression, as a value of target_modules.

Letters are roles: q k v o are attention's query, key, value and output, g u d the MLP's gate, up and down, as the model
itself names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estimator.architecture.module import ModuleTree
from estimator.errors import NoTargetModulesError
from estimator.lora.facts import moe_pattern, moe_targets
from estimator.lora.index import TreeIndex, index_of
from estimator.notes import Note
from estimator.request.targets import parse_targets

# Names of each role, the most particular first; a name with dots says where a bare one would catch more.
ROLES = {
    "q": ("q_proj", "query", "q", "query_proj", "q_lin", "wq", "to_q", "q_a_proj", "q_b_proj"),
    "k": ("k_proj", "key", "k", "key_proj", "k_lin", "to_k", "kv_a_proj_with_mqa", "kv_b_proj", "wk"),
    "v": ("v_proj", "value", "v", "value_proj", "v_lin", "to_v", "kv_a_proj_with_mqa", "kv_b_proj", "wv"),
    "o": (
        "o_proj", "self_attn.out_proj", "attn.out_proj", "attention.out_proj", "encoder_attn.out_proj", "attn.c_proj",
        "attention.output.dense", "self_attn.dense", "self_attention.dense", "attention.dense", "out_lin",
        "SelfAttention.o", "EncDecAttention.o", "attn.Wo", "wo", "to_out.0", "out_proj",
    ),
    "g": ("gate_proj", "wi_0", "w1"),
    "u": (
        "up_proj", "wi_1", "w3", "fc1", "fc_in", "mlp.c_fc", "dense_h_to_4h", "intermediate.dense", "DenseReluDense.wi",
        "wi", "lin1",
    ),
    "d": (
        "down_proj", "w2", "fc2", "fc_out", "mlp.c_proj", "dense_4h_to_h", "DenseReluDense.wo", "lin2", "output.dense",
        "mlp.Wo",
    ),
}  # fmt: skip
FUSED = {
    "qkv": ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "in_proj", "att_proj", "W_pack"),
    "gu": ("gate_up_proj", "gate_and_up_proj", "w12", "mlp.Wi"),
}
_OTHER_TOWERS = re.compile("vision|visual|video_|audio|image_encoder|speech|qformer|protein_encoder")
_NUMBER = re.compile(r"\.\d+\.")


def resolve_targets(text: str, tree: ModuleTree) -> tuple[list[str] | str | None, tuple[Note, ...]]:
    """The target_modules that `text` means on this model, and what to know about it.

    Raises UsageError for an empty text, NoTargetModulesError for a letter that the model has nothing for.
    """
    asked = parse_targets(text).value
    if not isinstance(asked, tuple):
        return asked, ()
    names = list(asked)
    index = index_of(tree)
    if any(index.with_suffix(name) for name in names):
        return names, ()
    letters = _letters(names)
    if letters is None:
        _refuse_unknown_letters(index, names)
        return names, ()
    return _resolved(index, letters), ()


_LONGEST_LETTERS = 8


def _refuse_unknown_letters(index: TreeIndex, words: list[str]) -> None:
    """Raises NoTargetModulesError for what can only be meant as letters, where one is no role: `qkvx`."""
    letters = "".join(words)
    unknown = [letter for letter in letters if letter not in ROLES]
    as_letters = letters.isascii() and letters.isalpha() and letters.islower() and len(set(letters)) == len(letters)
    if as_letters and len(letters) <= _LONGEST_LETTERS and len(letters) > 2 * len(unknown):
        raise NoTargetModulesError(
            f"{', '.join(unknown)} is no letter of --targets, and no module is called {', '.join(words)}.",
            where="--targets",
            way_out=_has(index),
        )


def _has(index: TreeIndex) -> str:
    letters = "".join(letter for letter in ROLES if _experts(index, letter) or _names(index, letter))
    return f"the letters it has: {letters}" if letters else "name modules, or say all-linear"


def _letters(words: list[str]) -> list[str] | None:
    letters = [letter for word in words for letter in word]
    return list(dict.fromkeys(letters)) if all(letter in ROLES for letter in letters) else None


def _resolved(index: TreeIndex, letters: list[str]) -> list[str]:
    roles = {letter: _experts(index, letter) or _names(index, letter) for letter in ROLES}
    missing = [letter for letter in letters if not roles[letter]]
    if missing:
        raise NoTargetModulesError(
            f"{index.tree.architecture or 'this model'} has nothing for {', '.join(missing)}.",
            where="--targets",
            way_out=_has(index),
        )
    wanted = list(dict.fromkeys(name for letter in letters for name in roles[letter]))
    if any(_experts(index, letter) for letter in letters):
        return wanted
    found = {name for one in wanted for name in _of_text(index, one)}
    unwanted = any(set(index.with_suffix(one)) - found for one in wanted)
    return sorted(found, key=index.order.__getitem__) if unwanted else wanted


def _experts(index: TreeIndex, letter: str) -> list[str]:
    """The name of transformers 4 that PEFT takes for a fused expert parameter of this model type."""
    pattern = moe_pattern(str(index.tree.config.get("model_type")))
    return [name for name in ROLES[letter] if letter in "gud" and name in moe_targets(pattern)] if pattern else []


def _names(index: TreeIndex, letter: str) -> list[str]:
    """The names that this model has for a role; a fused module where it has no single one."""
    found = [name for name in ROLES[letter] if _of_text(index, name)]
    if letter == "o" and len(found) > 1:
        found = [name for name in found if name not in ("out_proj", "wo")] or found
    if letter == "d" and "output.dense" in found:
        found = [] if not _mlp_output(index) else ["output.dense"]
    if found:
        return found[:2] if letter in "kvq" else found[:1] if letter != "o" else found
    fused = next((names for role, names in FUSED.items() if letter in role), ())
    return [name for name in fused if _of_text(index, name)][:1]


def _mlp_output(index: TreeIndex) -> bool:
    return any(".attention.output.dense" not in f".{name}" for name in index.with_suffix("output.dense"))


def _of_text(index: TreeIndex, suffix: str) -> list[str]:
    """Wrappable modules with this suffix, of the text model where there are several towers."""
    names = [name for name in index.with_suffix(suffix) if index.modules[name].kind in ("Linear", "Conv1D")]
    if suffix in ("in_proj", "out_proj"):
        names = [name for name in names if not _scans(index, name)]
    if suffix == "output.dense":
        names = [name for name in names if not name.endswith("attention.output.dense")]
    if suffix in ("key", "value"):
        names = [name for name in names if not name.endswith(f"feed_forward.{suffix}")]
    other = index.remembered("other towers", lambda: _other_towers(index))
    return [name for name in names if name not in other]


def _other_towers(index: TreeIndex) -> frozenset[str]:
    """The wrappable modules of towers that are no text model's; none where the model has no layers but theirs."""
    linear = [name for name, module in index.modules.items() if module.kind in ("Linear", "Conv1D")]
    if text := {name for name in linear if "language_model" in name.split(".")}:
        return frozenset(linear) - text
    sides = _sides_without_tokens(index)
    other = frozenset(name for name in linear if _tower(name) or name.partition(".")[0] in sides)
    return other if any(_NUMBER.search(name) for name in linear if name not in other) else frozenset()


def _sides_without_tokens(index: TreeIndex) -> set[str]:
    """`encoder` or `decoder` where each is a model of its own, as config.json nests them, and one embeds no tokens."""
    if not all(isinstance(index.tree.config.get(side), Mapping) for side in ("encoder", "decoder")):
        return set()
    embeds = {name.partition(".")[0] for name, module in index.modules.items() if module.kind == "Embedding"}
    return {"encoder", "decoder"} - embeds


def _scans(index: TreeIndex, name: str) -> bool:
    """Whether a convolution stands beside the module: it belongs to a mixer such as Mamba's, and to no attention."""
    beside = index.modules.get(f"{name.rpartition('.')[0]}.conv1d")
    return beside is not None and beside.kind == "Conv1d"


def _tower(name: str) -> bool:
    return _OTHER_TOWERS.search(name) is not None
