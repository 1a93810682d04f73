"""What PEFT adapts, trains and saves: get_peft_model(model, config) and save_pretrained, without a model.

peft 0.21.2, transformers 5.23.0. The steps are inject_adapter's (peft/tuners/tuners_utils.py), in its order; each rule
has its own file in this folder.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from estimator.architecture.module import VARIES, ModuleTree
from estimator.dtypes import BITS
from estimator.errors import UnsupportedError
from estimator.lora.config_rules import check_config
from estimator.lora.index import TreeIndex, index_of
from estimator.lora.inject import Injection, Prepared, injected, prepared
from estimator.lora.layers_alone import needs_run_time, with_layers_alone
from estimator.lora.loaded import how_to_spare
from estimator.lora.outcome import BASE, AdaptedModule, HeldTensor, Outcome, held_of
from estimator.lora.remarks import remarks
from estimator.lora.tensors import SavedTensor, embeddings_are_targeted
from estimator.lora.ties import NO_EMBEDDING
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig

if TYPE_CHECKING:
    from estimator.request.training_config import Freezing

PEFT = "0.21.2"
TRANSFORMERS = "5.23.0"


class Adaptation(NamedTuple):
    """What PEFT makes of a model under a config."""

    modules: tuple[AdaptedModule, ...]
    trainable_parameters: int  # get_nb_trainable_parameters()[0]
    added_parameters: int  # to the base's own; negative where layers or embedding rows fall away
    all_parameters: int  # get_nb_trainable_parameters()[1], for a base that is not quantised
    parameters_by_part: Mapping[str, int]  # trainable, by the part of the file; the base's own are of none
    tensors: tuple[SavedTensor, ...]  # of adapter_model.safetensors; () where saving fails
    config: Mapping[str, Any]  # the effective LoraConfig, as adapter_config.json has it
    save_error: str | None = None  # counting works, save_pretrained fails: why
    has_size: bool = True  # the file is written, and as long whatever the weights' values are
    apart: tuple[HeldTensor, ...] | None = None  # what is held in memory; None: what is saved, embeddings along apart
    vocabulary: int | None = None  # rows of the embeddings where they are resized
    rows_parameters: int = 0  # of `added_parameters`, what that adds to the base
    notes: tuple[Note, ...] = ()

    def held(self) -> tuple[HeldTensor, ...]:
        """As `held_of` has it."""
        return held_of(self.apart, self.tensors)


def adapt(
    tree: ModuleTree,
    config: LoraConfig,
    *,
    adapter_dtype: str | None = None,
    vocab_size: int | None = None,
    save_embedding_layers: str = "auto",
    freezing: "Freezing | None" = None,
) -> Adaptation:
    """What becomes of `tree` under `config`. Raises InvalidLoraError, NoTargetModulesError, UnsupportedModuleError
    where PEFT refuses, UnsupportedError where this tool has no answer.

    adapter_dtype: None is PEFT's autocast, "base" is none, else safetensors' name of a dtype. freezing: what a trainer
    freezes or casts afterwards.
    """
    check_config(config)
    base = index_of(tree)
    index = base if vocab_size is None else _resized(base, vocab_size)
    request = prepared(index, config)
    injection = injected(request)
    modules = {layer.module for layer in injection.layers}
    if index is not base:
        from estimator.lora.resize import refuse_shared_embeddings  # here and below: only what is needed

        refuse_shared_embeddings(index, modules, request.config, tree.input_embedding)
    targeted = embeddings_are_targeted(request.index, request.config)
    save = _saves_embeddings(request.config, save_embedding_layers, targeted, tree, vocab_size)
    if save:
        _refuse_packed(request.index, modules if targeted else None, changed=index is not base)
    done = _outcome(request, injection, adapter_dtype, freezing, with_embeddings=save, targeted=targeted)
    tensors, save_error = _as_written(request, done, save)
    varying = [t for t in tensors if t.shape == VARIES] if request.index.tree.quantised else []
    sized = [t for t in tensors if t.shape != VARIES] if varying else tensors
    trained = sum(done.trained.values())
    return Adaptation(
        modules=done.modules,
        trainable_parameters=trained,
        added_parameters=done.all_parameters - base.all_parameters(),
        all_parameters=done.all_parameters,
        parameters_by_part={part: count for part, count in done.trained.items() if part != BASE},
        tensors=tensors,
        config=_as_saved(request.config),
        save_error=save_error,
        has_size=save_error is None and not varying,
        apart=done.apart if tensors is done.tensors else held_of(done.apart, done.tensors),
        vocabulary=vocab_size,
        rows_parameters=index.all_parameters() - base.all_parameters(),
        notes=(
            *remarks(config, request, injection, trained, sized, save_error),
            *_varying(varying, sized),
            *_unread(done.unread),
            *_frozen(freezing, done),
        ),
    )


def _resized(base: TreeIndex, rows: int) -> TreeIndex:
    from estimator.lora.resize import resized

    return base.remembered(("rows", rows), lambda: TreeIndex(resized(base, rows)))


def _outcome(
    request: Prepared,
    injection: Injection,
    adapter_dtype: str | None,
    freezing: "Freezing | None",
    *,
    with_embeddings: bool,
    targeted: bool,
) -> Outcome:
    """The layers put in, and played through as at run time where anything stands beside them."""
    if freezing is None and not needs_run_time(request, injection.layers, with_embeddings):
        along = with_embeddings and not targeted  # a targeted embedding that is not adapted has no base layer to save
        return with_layers_alone(request.index, injection.layers, adapter_dtype, with_embeddings=along)
    from estimator.lora.trained_beside import with_all_beside

    return with_all_beside(
        request, injection.layers, adapter_dtype, with_embeddings=with_embeddings, targeted=targeted, freezing=freezing
    )


def _unread(tensor: str | None) -> Iterator[Note]:
    if tensor is not None:
        message = f"PEFT saves this and cannot load it again: it would look for {tensor[:200]}, and that is not there."
        yield Note("loading_fails", f"{message} A module in modules_to_save lies around one that is saved or adapted.")


def _frozen(freezing: "Freezing | None", done: Outcome) -> Iterator[Note]:
    if freezing is not None:
        from estimator.lora.freezing import notes_on

        yield from notes_on(freezing, done)


def _refuse_packed(index: TreeIndex, adapted: Collection[str] | None, *, changed: bool) -> None:
    """Raises UnsupportedError where an embedding that is saved along is packed in tensors of unknown size.

    adapted: the modules with a base layer to save; None where embeddings are saved whether they are adapted or not.
    changed: the vocabulary is resized.
    """
    tree = index.tree
    for name in (tree.input_embedding, tree.output_embedding):
        if name is None or name not in tree.quantised or f"{name}.weight" in tree.tied:
            continue
        if index.packed(name) and not changed:
            continue
        if adapted is None or name in adapted:
            raise UnsupportedError(
                f"{name} is quantised, and PEFT would save its packed weight along: the size of that is not known.",
                where="--save-embedding-layers",
                way_out=f"{how_to_spare(index, name)}, or pass --save-embedding-layers no",
            )


def _as_written(request: Prepared, done: Outcome, with_embeddings: bool) -> tuple[tuple[SavedTensor, ...], str | None]:
    """The tensors of the file, or why save_pretrained fails."""
    if with_embeddings and request.index.tree.input_embedding is None:
        return (), f"{NO_EMBEDDING}, and save_pretrained asks for it."
    if done.save_error is not None:
        return (), done.save_error
    if request.config.peft_type == "ADALORA" and request.config.rank_pattern:
        from estimator.lora.svd import without_given_up_ranks

        return without_given_up_ranks(done.tensors, request.config.rank_pattern)
    return done.tensors, None


def _varying(varying: Sequence[SavedTensor], sized: Sequence[SavedTensor]) -> Iterator[Note]:
    if varying:
        held = sum(prod(t.shape) * BITS[t.dtype] // 8 for t in sized)
        message = (
            f"The file's size depends on the weights: {varying[0].name} holds an offset of double quantisation in as "
            f"many digits as that needs. {len(varying)} such of about 170 bytes lie beside {held:,} bytes of tensors."
        )
        yield Note("file_size_varies", message)


def _saves_embeddings(config: LoraConfig, asked: str, targeted: bool, tree: ModuleTree, vocab_size: int | None) -> bool:
    """Whether save_pretrained saves the embeddings along ("auto", "yes" or "no" are asked). tree: not resized."""
    if asked != "auto":
        return asked == "yes"
    if targeted and config.trainable_token_indices is None:
        return True
    if vocab_size is None:
        return False
    from estimator.lora.resize import stated_vocabulary, vocabulary_is_at_the_top

    # PEFT compares vocab_size at the top of the config, and resizing changes that of the text model's section
    return vocab_size != stated_vocabulary(tree) and vocabulary_is_at_the_top(tree)


_FIELDS = tuple(name for name in LoraConfig._fields if name != "unknown")


def _as_saved(config: LoraConfig) -> dict[str, Any]:
    said = {name: getattr(config, name) for name in _FIELDS}
    for name in ("target_modules", "exclude_modules", "target_parameters"):
        if isinstance(said[name], (tuple, list, set, frozenset)):
            said[name] = sorted(said[name])
    if config.peft_type == "ADALORA":
        said.update(config.unknown)
    return {name: _copied(value) for name, value in said.items()}


def _copied(value: Any) -> Any:
    """The value in objects of its own, as JSON has them: who changes an answer changes no default and no request."""
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, (list, tuple, set, frozenset)) else value
