"""A vocabulary of another size: what resize_token_embeddings(n) makes of a tree (transformers 5.23.0)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from estimator.architecture.facts import class_outline
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import UnsupportedError, UsageError
from estimator.lora.index import TreeIndex
from estimator.lora.loaded import how_to_spare
from estimator.lora.ties import declared_ties, ties_words
from estimator.request.lora_config import LoraConfig

_DRAWN = ("F64", "F32", "F16", "BF16")  # in what torch draws a new Linear's weights


def base_vocabulary(tree: ModuleTree) -> int | None:
    """Rows of the input embedding."""
    module = next((module for module in tree.modules if module.name == tree.input_embedding), None)
    weight = next((p for p in module.parameters if p.name == "weight"), None) if module else None
    return weight.shape[0] if weight and len(weight.shape) == 2 else None


def stated_vocabulary(tree: ModuleTree) -> int | None:
    """vocab_size of config.json, which a model may not have as many rows as (Mllama has eight more)."""
    stated = tree.config.get("vocab_size")
    return stated if isinstance(stated, int) else base_vocabulary(tree)


def resized(index: TreeIndex, rows: int) -> ModuleTree:
    """The tree with so many rows in its embeddings.

    Raises UsageError where it has none, the number is none, or the head is packed.
    """
    tree = index.tree
    old, table = base_vocabulary(tree), index.modules.get(tree.input_embedding or "")
    if old is None or table is None or table.kind != "Embedding" or rows < 1 or rows > 2**31:
        raise UsageError(
            f"the vocabulary of this model can't be resized to {str(rows)[:20]}.",
            where="--vocab-size",
            way_out="leave it out, or give a positive number for a model with token embeddings",
        )
    _refuse_ambiguous(tree)
    _refuse_packed_head(index, rows)
    tree = _with_one_embedding(_tied_again(index))
    index = index if tree is index.tree else TreeIndex(tree)
    embedding, others = index.root(f"{tree.input_embedding}.weight"), _head(index) | _tables_beside(index)
    beside = _beside_the_head(index, {embedding} | others, old)
    shared = {name: becomes for name, becomes in beside.items() if becomes}
    dropped = {name for name, becomes in beside.items() if becomes is None}
    others |= shared.keys()

    def changes(parameter: Parameter, root: str) -> bool:
        return root in others or (root == embedding and parameter.shape[:1] == (old,))

    def of(module: Module) -> Module:
        prefix = f"{module.name}." if module.name else ""
        parameters = tuple(
            p._replace(shape=(rows, *p.shape[1:])) if changes(p, index.root(prefix + p.name)) else p
            for p in module.parameters
            if prefix + p.name not in dropped
        )
        if module.name == tree.output_embedding and parameters != module.parameters and not _is_tied(tree, module.name):
            parameters = tuple(p._replace(dtype=parameters[0].dtype) for p in parameters)  # of a new Linear
        return module if parameters == module.parameters else module._replace(parameters=parameters)

    modules = tuple(map(of, tree.modules))
    renewed = {now.name for now, before in zip(modules, tree.modules, strict=True) if now is not before}
    packed = {name: layer for name, layer in tree.quantised.items() if name not in renewed or _is_tied(tree, name)}
    grown = tree._replace(modules=modules, tied={**tree.tied, **shared}, quantised=packed)
    return _with_tied_scales(grown) if _ties_by_pattern(tree) else grown


def _ties_by_pattern(tree: ModuleTree) -> bool:
    """Whether names that are declared as tied are looked for in those of all parameters, as BERT's that end in `bias`
    are: resizing ties so anew, and finds `decoder.weight` in `decoder.weight_scale_inv` (`common_case_regex` of
    get_expanded_tied_weights_keys, whose second half matches none of them).
    """
    return any(not name.endswith("weight") for name in declared_ties(tree))


def _with_tied_scales(tree: ModuleTree) -> ModuleTree:
    """The tree where what is beside a tied, packed head's weight and begins with its name is that weight as well."""
    name, table = tree.output_embedding or "", f"{tree.input_embedding}.weight"
    layer = tree.quantised.get(name)
    if layer is None or tree.tied.get(f"{name}.weight") != table:
        return tree
    weight = next(p for m in tree.modules if m.name == tree.input_embedding for p in m.parameters)
    beside = [own.name for own in layer.parameters if own.name.startswith("weight_")]
    parameters = tuple(weight._replace(name=own.name) if own.name in beside else own for own in layer.parameters)
    ties = {f"{name}.{own}": table for own in beside}
    layers = {**tree.quantised, name: layer._replace(parameters=parameters)}
    return tree._replace(tied={**tree.tied, **ties}, quantised=layers)


def _tied_again(index: TreeIndex) -> TreeIndex:
    """tie_weights() at the end of resizing ties what from_pretrained left apart, a head of other values (Flan-T5's)."""
    tree = index.tree
    left = tree.declared_ties.keys() - tree.tied.keys()
    if not left or tree.is_composite or not ties_words(tree):
        return index
    return TreeIndex(tree._replace(tied={**tree.tied, **{name: tree.declared_ties[name] for name in left}}))


def _is_tied(tree: ModuleTree, name: str) -> bool:
    return f"{name}.weight" in tree.tied


def _refuse_packed_head(index: TreeIndex, rows: int) -> None:
    """Raises UsageError where a new head would have the shape and dtype of packed bytes (`_get_resized_lm_head`).

    A head of 8 bits that has as many rows already is left as it is.
    """
    name = index.tree.output_embedding or ""
    layer = index.tree.quantised.get(name)
    if layer is None or _is_tied(index.tree, name):
        return
    weight, logical = next((p for p in layer.parameters if p.name == "weight"), None), index.modules[name].parameters[0]
    is_packed = weight is None or weight.shape != logical.shape or weight.dtype not in _DRAWN
    if is_packed and (weight is None or weight.shape[0] != rows):
        raise UsageError(
            f"{name} is packed in a {layer.cls}, of which resize_token_embeddings makes no head that runs.",
            where="--vocab-size",
            way_out=f"{how_to_spare(index, name)}, or leave the vocabulary as it is",
        )


def _beside_the_head(index: TreeIndex, renewed: Collection[str], old: int) -> dict[str, str | None]:
    """What becomes of each bias or matrix beside the head that is as long as the vocabulary and not tied to it.

    It is the class's own: RoBERTa and ESM keep it, Reformer drops it, BERT's set_output_embeddings puts the head's own
    bias in its place, even where there are as many rows as before. Raises UnsupportedError where it is not known.
    """
    found: dict[str, str | None] = {}
    modules = index.tree.modules
    heads = {m.name for m in modules if m.kind == "Linear" and index.root(f"{m.name}.weight") in renewed}
    around = {head.rpartition(".")[0] for head in heads} - {""}
    for module in modules:
        if module.kind != "Embedding" and (module.name in around or module.name.rpartition(".")[0] in around):
            for parameter in module.parameters:
                name = f"{module.name}.{parameter.name}"
                if old in parameter.shape and index.root(name) not in renewed:
                    if name in index.tree.beside_head:
                        found[name] = index.tree.beside_head[name]
                        continue
                    raise UnsupportedError(
                        f"{name} is as long as the vocabulary: what resizing makes of it is not known.",
                        where="--vocab-size",
                        way_out="leave it out",
                    )
    return found


def _head(index: TreeIndex) -> set[str]:
    """The parameters of the output embedding, which gets the new rows however many it has."""
    name = index.tree.output_embedding
    kind = index.modules[name].kind if name in index.modules else None
    return {index.root(f"{name}.{own}") for own in ("weight", "bias")} if kind in ("Linear", "Embedding") else set()


_TABLES_BESIDE = ("embed_tokens_per_layer", "value_embeddings")


def _tables_beside(index: TreeIndex) -> set[str]:
    """Further tables of the same tokens, which their classes' own resize_token_embeddings gives the rows as well."""
    names = (name for last in _TABLES_BESIDE for name in index.with_suffix(last))
    return {index.root(f"{name}.weight") for name in names if index.modules[name].kind == "Embedding"}


def vocabulary_is_at_the_top(tree: ModuleTree) -> bool:
    """Whether resizing writes vocab_size at the top of the config, where PEFT looks, and not in a text section.

    Raises UnsupportedError where neither has it: PEFT's own look-up may fail then.
    """
    sections = [name for name in (*_TEXT_SECTIONS, "decoder_config") if isinstance(tree.config.get(name), Mapping)]
    if not sections and tree.is_composite and "vocab_size" not in tree.config:
        raise UnsupportedError(
            "config.json has no vocab_size: whether PEFT would save the resized embeddings along is not known.",
            where="--vocab-size",
            way_out="--save-embedding-layers yes or no",
        )
    return not sections


_TEXT_SECTIONS = ("text_encoder", "decoder", "generator", "text_config")


def _refuse_ambiguous(tree: ModuleTree) -> None:
    """Raises UsageError for EncoderDecoderModel and its kin: their parts are resized, not they themselves."""
    said = class_outline(tree.architecture or "")
    own_encoder = said is not None and all(tower.section != "encoder" for tower in said.towers)  # T5Gemma's
    names = _TEXT_SECTIONS if own_encoder else ("encoder", *_TEXT_SECTIONS)
    sections = [name for name in names if isinstance(tree.config.get(name), Mapping)]
    if len(sections) > 1:
        raise UsageError(
            f"transformers can't resize this vocabulary: {' and '.join(sections)} of config.json may both be meant.",
            where="--vocab-size",
            way_out="leave it out",
        )


def _with_one_embedding(index: TreeIndex) -> ModuleTree:
    """The tree after set_input_embeddings: of encoder-decoder models all parts get one and the same module.

    named_modules() has it under the first of its names; a part that is copied still copies it under its own.
    """
    tree = index.tree
    if len(tree.one_embedding) < 2:
        return tree
    first, *others = index.in_order(tree.one_embedding)
    same = {f"{name}.weight": f"{first}.weight" for name in others}
    pairs = ((same.get(name, name), same.get(index.root(name), index.root(name))) for name in tree.tied)
    return tree._replace(
        modules=tuple(module for module in tree.modules if module.name not in others),
        same_modules=dict.fromkeys(others, first),
        tied={name: root for name, root in pairs if name != root},
        input_embedding=first,
    )


def refuse_shared_embeddings(index: TreeIndex, adapted: Iterable[str], config: LoraConfig, before: str | None) -> None:
    """Raises UnsupportedError where PEFT would act on embeddings that resizing leaves in a state of their own.

    before: the input embedding before resizing. Where get_input_embeddings() finds the new module under a later one of
    its names, PEFT wraps it under the first alone. One that shares the weights and is another module gets the new rows,
    and keeps the old number of them.
    """
    tree = index.tree
    root = index.root(f"{tree.input_embedding}.weight")
    names = {name.rpartition(".")[0] for name in tree.tied if index.root(name) == root} | {root.rpartition(".")[0]}
    others = names - {tree.input_embedding}
    odd = {n for n in others if n in index.modules and index.modules[n].kind == "Embedding"}
    odd |= {n for n in others - {tree.output_embedding} if n in index.modules and index.modules[n].kind == "Linear"}
    tokens = config.trainable_token_indices
    if before in tree.same_modules:
        odd |= {name for name in (tree.input_embedding, tree.output_embedding, *tree.same_modules) if name is not None}
        everything = tokens is not None or config.ensure_weight_tying
    else:
        everything = False
    ends = (*(config.modules_to_save or ()), *(tokens if isinstance(tokens, Mapping) else ()))
    hit = {*adapted, *(name for name in odd if name.endswith(ends))} if ends else set(adapted)
    name = before if everything else next(iter(sorted(odd & hit)), None)
    if name is not None:
        raise UnsupportedError(
            f"{name} shares its weights with {tree.input_embedding}: what PEFT does once that is resized is not known.",
            where="--vocab-size",
            way_out="leave the embeddings and the head out",
        )
