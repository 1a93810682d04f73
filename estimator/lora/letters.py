"""The option --targets: letters for roles in the text model, names, all-linear, default, or an expression."""

from __future__ import annotations

import re
from collections.abc import Iterable

from estimator.architecture.module import ModuleTree
from estimator.errors import NoTargetModulesError, UsageError
from estimator.lora.facts import moe_fused, moe_pattern, moe_targets
from estimator.lora.index import TreeIndex, index_of
from estimator.notes import Note

# What families call a role, as the end of a module's name; a fused module stands for each role in it.
_ATTENTION = r"(?:.*\.)?(?:\w*att\w*|attn|self|SelfAttention|EncDecAttention|mixer)\."
ROLES = {
    "q": r".*\.(?:q_proj|q_a_proj|q_b_proj|query|query_proj|q_lin|wq|q)|{fused}",
    "k": r".*\.(?:k_proj|kv_a_proj_with_mqa|kv_b_proj|key|key_proj|k_lin|wk|k)|{fused}",
    "v": r".*\.(?:v_proj|kv_b_proj|value|value_proj|v_lin|wv|v)|{fused}",
    "o": r"{attention}(?:o_proj|out_proj|c_proj|dense|output\.dense|out_lin|wo|o|Wo)",
    "g": r".*\.(?:gate_proj|w1|wi_0|gate_up_proj)",
    "u": r".*\.(?:up_proj|w3|wi_1|gate_up_proj|fc1|fc_in|c_fc|dense_h_to_4h|intermediate\.dense|lin1|wi|Wi)",
    "d": r".*\.(?:down_proj|w2|fc2|fc_out|dense_4h_to_h|lin2|(?:mlp|ffn|DenseReluDense)\.(?:c_proj|wo|Wo)|(?<!attention\.)output\.dense)",
}
_FUSED = r".*\.(?:qkv_proj|query_key_value|c_attn|Wqkv|qkv|qkv_lin)"
_OLD_EXPERTS = {"g": ("gate_proj", "w1"), "u": ("up_proj", "w3"), "d": ("down_proj", "w2")}
_OTHER_TOWERS = re.compile(r"(?:^|\.)(?:vision|visual|audio|image|speech)\w*\.|(?:^|\.)\w*(?:vision|audio)_\w*\.")


def resolve_targets(text: str, tree: ModuleTree) -> tuple[object, tuple[Note, ...]]:
    """The value of target_modules that `text` means for this model, and what to know about it.

    Raises UsageError for an empty text, NoTargetModulesError for a letter that the model has nothing for.
    """
    if text.startswith("re:"):
        return text[3:], ()
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError("no target is named.", where="--targets", way_out="letters such as qkvo, names, or all-linear")
    if words == ["all-linear"]:
        return "all-linear", ()
    if words == ["default"]:
        return None, ()
    index = index_of(tree)
    if any(index.with_suffix(word) for word in words) or not all(set(word) <= set(ROLES) for word in words):
        return words, ()
    letters = "".join(dict.fromkeys("".join(words)))
    found = {letter: _modules(index, letter) for letter in letters}
    experts = {name for letter in letters for name in _expert_names(index, letter)}
    missing = [letter for letter in letters if not found[letter] and not _expert_names(index, letter)]
    if missing:
        known = "".join(letter for letter in ROLES if _modules(index, letter) or _expert_names(index, letter))
        raise NoTargetModulesError(
            f"{tree.architecture or 'the model'} has no module for {', '.join(missing)}.",
            where=f"--targets {text}",
            way_out=f"it has the letters {known}" if known else "name its modules; --tree shows them",
        )
    modules = {name for names in found.values() for name in names}
    targets = sorted({*_shortest(index, modules, experts), *experts})
    return targets, ()


def _modules(index: TreeIndex, letter: str) -> list[str]:
    return index.remembered(("role", letter), lambda: _find(index, letter))


def _find(index: TreeIndex, letter: str) -> list[str]:
    role = ROLES[letter].replace("{attention}", _ATTENTION).replace("{fused}", _FUSED)
    expression = re.compile(role)
    named = [
        name
        for name, module in index.modules.items()
        if module.kind in ("Linear", "Conv1D") and expression.fullmatch(name) and not _OTHER_TOWERS.search(name)
    ]
    return [name for name in named if ".experts." not in name or letter in "gud"]


def _expert_names(index: TreeIndex, letter: str) -> list[str]:
    """Names of transformers 4 that PEFT turns into the fused experts' parameters."""
    pattern = moe_pattern(str(index.tree.config.get("model_type")))
    if pattern is None or not any(p.name in moe_fused(pattern) for m in index.tree.modules for p in m.parameters):
        return []
    return [name for name in _OLD_EXPERTS.get(letter, ()) if name in moe_targets(pattern)]


def _shortest(index: TreeIndex, modules: set[str], free: Iterable[str]) -> set[str]:
    """The shortest ends of the names that catch these modules and no other; names in full where none does."""
    left, targets = set(modules), set()
    for length in (1, 2, 3):
        for suffix in sorted({".".join(name.split(".")[-length:]) for name in left}):
            caught = set(index.with_suffix(suffix))
            if suffix not in free and caught <= modules:
                targets.add(suffix)
                left -= caught
    return targets | left
