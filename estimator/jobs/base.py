"""The base of an estimate: found, read, and turned into modules; kept while many requests name the same one."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from estimator.architecture.module import ModuleTree
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.dtypes import from_torch
from estimator.errors import LoraSizeError, MalformedHeaderError, NoWeightsError, UsageError
from estimator.jobs.class_notes import notes_on_class, of_the_named_class
from estimator.jobs.labels import with_labels
from estimator.notes import Note
from estimator.request.load_options import LoadOptions
from estimator.request.request import Request
from estimator.sizes.base import BaseSizes, base_sizes, parameters_of
from estimator.sizes.cross_check import CrossCheck, cross_check
from estimator.source.ahead import collect, waits
from estimator.source.found import Found

if TYPE_CHECKING:
    from estimator.sizes.memory.shape import Shape

MAX_KEPT = 200
Key = TypeVar("Key")
Value = TypeVar("Value")


class Base(NamedTuple):
    """A model that was found and read, with the modules of the class that is built of it."""

    found: Found
    config: Mapping[str, Any]  # with --set applied
    checkpoint: Checkpoint | None  # as stored; None where shapes come from the config
    tree: ModuleTree
    task: str | None = None  # whose class was built
    num_labels: int | None = None
    notes: tuple[Note, ...] = ()  # on where it was found and what is not read of it


class BaseCache:
    """What was read of each base, and its sizes for each way of loading; a fault is remembered as well.

    The last MAX_KEPT of each are kept: a batch may name any number of them.
    """

    def __init__(self) -> None:
        self._bases: dict[str, Base | LoraSizeError] = {}
        # each with what its key is the id of, which would else be another's one day
        self._sizes: dict[tuple[int, LoadOptions], tuple[Base, BaseSizes]] = {}
        self._checks: dict[int, tuple[Base, tuple[CrossCheck, tuple[Note, ...]]]] = {}
        self._shapes: dict[int, tuple[ModuleTree, Shape]] = {}

    def base(self, request: Request, task: str | None) -> Base:
        """Raises what load_base raises, the second time as well."""
        key = repr((request.model, request.set, request.revision, request.subfolder, request.offline, request.online,
                    task, request.num_labels))  # fmt: skip

        def load() -> Base | LoraSizeError:
            try:
                return load_base(request, task)
            except LoraSizeError as error:
                return error

        base = _kept(self._bases, key, load)
        if isinstance(base, LoraSizeError):
            raise base
        return base

    def sizes(self, base: Base, load: LoadOptions) -> BaseSizes:
        return _kept(self._sizes, (id(base), load), lambda: (base, base_sizes(base.tree, base.checkpoint, load)))[1]

    def shape(self, tree: ModuleTree) -> "Shape":
        """What activations depend on."""
        from estimator.sizes.memory.shape import shape_of

        return _kept(self._shapes, id(tree), lambda: (tree, shape_of(tree)))[1]

    def cross_check(self, base: Base) -> tuple[CrossCheck, tuple[Note, ...]]:
        """Headers, files and config.json held against each other, and what there is to say of how that went."""
        return _kept(self._checks, id(base), lambda: (base, _cross_checked(base)))[1]


def _kept(store: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """What stands there, made where it does not; the one that was asked for longest ago makes room."""
    value = store.pop(key) if key in store else make()
    if len(store) >= MAX_KEPT:
        store.pop(next(iter(store)))
    store[key] = value
    return value


def _cross_checked(base: Base) -> tuple[CrossCheck, tuple[Note, ...]]:
    if base.checkpoint is None:
        return cross_check(None, base.config, base.tree, None), ()
    from estimator.jobs.by_config import second_opinion

    by_config, notes = second_opinion(base.tree, base.config, base.task, base.num_labels)
    return cross_check(base.checkpoint, base.config, base.tree, by_config), notes


def _import_rooms() -> None:
    """What a model with headers is read with, imported while the Hub answers, and the facts' tables of contents."""
    import estimator.checkpoint.index
    import estimator.jobs.headers  # noqa: F401
    from estimator.architecture.facts import line
    from estimator.architecture.shapes import shapes_of

    line("$legacy")  # stands in the block that every class needs
    shapes_of("")


def load_base(request: Request, task: str | None) -> Base:
    """Raises NotFoundError and its kin, malformed_header, malformed_config, no_weights, unsupported."""
    if not request.model:
        said = f"--config {request.config} --model org/name" if request.config else "--model llama-3.1-8b"
        raise UsageError("no model is named.", where="--model", way_out=f"lora-size {said}")
    if waits(request.model):
        _import_rooms()
    found = collect(
        request.model,
        revision=request.revision,
        subfolder=request.subfolder,
        token=request.token,
        offline=request.offline,
        online=request.online,
        timeout=request.timeout,
    )
    base = _loaded(found, _changed(found.config, request.set), task, request)
    if found.config and found.source != "snapshot":
        _check_sections(found.config, base.tree.architecture)
    if request.set:
        _check_names(request.set, base.config, task)
        base = base._replace(notes=(*base.notes, *_without_effect(request.set, found.config or {}, task)))
    saved = None if request.set else found  # a model that does not exist yet has no checkpoint to differ from
    base = base._replace(tree=with_labels(base.tree, saved, base.config, task, request.num_labels))
    base = base._replace(
        notes=(*base.notes, *notes_on_class(base.tree, base.config, found, (task, request.num_labels)))
    )
    tree = of_the_named_class(base.tree, base.config, task)
    if tree.lacking or tree.architecture not in [*(base.config.get("architectures") or ())][:1]:
        from estimator.jobs.unstored import with_unstored  # few have a head made anew

        tree = with_unstored(tree, base.config, base.checkpoint.tensors if base.checkpoint is not None else None)
    return base._replace(tree=tree, task=task, num_labels=request.num_labels)


def _check_sections(config: Mapping[str, Any], architecture: str | None) -> None:
    """Raises MalformedConfigError for a dtype that torch lacks, in a section that the class is surely made of."""
    from estimator.source.config import odd_dtypes

    odd = dict(odd_dtypes(config, where="config.json"))
    if odd:
        from estimator.architecture.config_fields import sections_of
        from estimator.architecture.shapes import shapes_of

        facts = shapes_of(architecture or "")
        for section in sections_of(facts) if facts else ():
            if section in odd:
                raise odd[section]


def _check_names(changes: Mapping[str, Any], config: Mapping[str, Any], task: str | None) -> None:
    """Raises UsageError for a field of --set that config.json overrules under the field's other name."""
    from estimator.architecture.config_fields import MISSING, get
    from estimator.architecture.from_config import winning_names

    for path, names in winning_names(config, task).items():
        for name in names:
            if path in changes and get(config, name) not in (MISSING, changes[path]):
                raise UsageError(
                    f"config.json says {name} as well, which is the same field and wins.",
                    where=f"--set {path}",
                    way_out=f"--set {name}=... instead",
                )


def _without_effect(changes: Mapping[str, Any], config: Mapping[str, Any], task: str | None) -> Iterator[Note]:
    """Fields of --set that no shape depends on."""
    from difflib import get_close_matches

    from estimator.architecture.config_fields import MISSING, get
    from estimator.architecture.from_config import fields_read

    read = fields_read(config, task) | {"dtype", "torch_dtype"}
    for path in changes:
        if path not in read and not any(name.startswith(f"{path}.") for name in read):
            known = get(config, path) is not MISSING
            close = [] if known else get_close_matches(path, sorted({*read, *config}), n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            yield Note("field_without_effect", f"--set {path}: no shape of the model depends on it.{hint}")


def _loaded(found: Found, config: Mapping[str, Any], task: str | None, request: Request) -> Base:
    if found.files and not request.set:
        return _from_headers(found, config, task, request.num_labels)
    return _from_config(found, config, task, request.num_labels)


def _from_config(found: Found, config: Mapping[str, Any], task: str | None, num_labels: int | None) -> Base:
    """Shapes as the class computes them. Raises NoWeightsError where they can't be had without headers."""
    from estimator.architecture.from_config import from_config
    from estimator.architecture.unfused import check_experts
    from estimator.source.config import check_sizes

    check_sizes(config, where="config.json or --set")
    try:
        tree = from_config(config, task=task, num_labels=num_labels)
    except NoWeightsError as error:
        if not found.other_files:
            raise
        what = f"{error.what} There are only {', '.join(list(found.other_files)[:3])}, which are not read."
        raise NoWeightsError(what, where=error.where, way_out=error.way_out) from error
    check_experts(tree)
    tree = _without_untied(tree, found)
    if found.source != "snapshot":
        tree = tree._replace(notes=(*tree.notes, _by_formulas(tree)))
    return Base(found=found, config=config, checkpoint=None, tree=tree, notes=_notes(found, tree))


def _by_formulas(tree: ModuleTree) -> Note:
    from estimator.architecture.facts import newer_release
    from estimator.lora.adapt import TRANSFORMERS

    release = newer_release(tree.architecture, tree.config.get("model_type")) or TRANSFORMERS
    message = f"No headers were read: the shapes are those that transformers {release} computes from config.json."
    return Note("shapes_from_config", message)


def _without_untied(tree: ModuleTree, found: Found) -> ModuleTree:
    return tree._replace(tied={name: source for name, source in tree.tied.items() if name not in found.untied})


def _notes(found: Found, tree: ModuleTree) -> tuple[Note, ...]:
    if not found.other_files or found.files:
        return found.notes
    from estimator.sizes.other_files import notes_on_other_files

    folder = found.id if found.source == "local" else None
    return (*found.notes, *notes_on_other_files(found.other_files, parameters_of(tree), folder))


def _from_headers(found: Found, config: Mapping[str, Any], task: str | None, num_labels: int | None) -> Base:
    from estimator.jobs.headers import tree_of_headers
    from estimator.jobs.misnamed import misnamed

    checkpoint = checkpoint_of(found)
    if not checkpoint.tensors:
        what = f"the header of {found.files[0].path} declares no tensor."
        raise MalformedHeaderError(what, where=found.id, way_out="fetch this file again, or save the model again")
    tree = tree_of_headers(config, checkpoint, task, num_labels)
    return Base(
        found=found, config=config, checkpoint=checkpoint, tree=tree, notes=(*found.notes, *misnamed(found, config))
    )


def checkpoint_of(found: Found) -> Checkpoint:
    """What the headers declare. Raises MalformedHeaderError; the next one who asks then reads them anew."""
    from estimator.checkpoint.index import to_checkpoint

    try:
        return to_checkpoint(found.files, found.index)
    except MalformedHeaderError:
        from estimator.source.kept import read_anew

        read_anew(found)
        raise


def _changed(config: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with each dotted field set.

    Raises UsageError where a field lies inside what is no object and for a dtype that is none, MalformedConfigError for
    a field of a wrong type.
    """
    changed = dict(config or {})
    for path, value in changes.items():
        *outer, last = path.split(".")
        place = changed
        for name in outer:
            inner = place.get(name, {})
            if not isinstance(inner, Mapping):
                way_out = "name a field that config.json nests"
                raise UsageError(f"{name!r} is no object in config.json.", where=f"--set {path}", way_out=way_out)
            place[name] = dict(inner)
            place = place[name]
        place[last] = value
    if changes:
        from estimator.source.config import check_config, dtypes_in

        check_config(changed, where="config.json or --set", way_out="give --set a value as transformers saves it there")
        before = dtypes_in(config or {})
        for path, value in dtypes_in(changed).items():
            if isinstance(value, str) and value != before.get(path) and from_torch(value) is None:
                what = f"{value[:80]!r} is no dtype that is known."
                raise UsageError(what, where=f"--set {path}", way_out=f"--set {path}=bfloat16, float16 or float32")
    return changed
