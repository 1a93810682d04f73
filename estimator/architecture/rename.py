"""A checkpoint's names as the model has them: transformers' weight transforms, applied to names.

Rules' source: transformers 5.23.0, core_model_loading.py: `WeightTransform.rename_source_key`, `rename_source_key`,
`convert_and_load_state_dict_in_model`. Names that differ in their indices alone are renamed once.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
_LITERAL_INDEX = re.compile(r"\[0-9|\[\d|(?:\\\.|\.|\^)\d+(?:\\\.|\.|\(\?|$)|\(\?![^)]*\d")
_EMPTY: tuple[Any, ...] = ("", (), (), (), None, None, 0)
_FIRST_STAND_IN = 700_001  # an index that no model has
# transformers 5.24.0, LayerPairCollapse: a layer is stored as its attention's block and its MLP's
_LAYER_OF_PAIR = re.compile(r"layers\.(\d+)\.(mixer|attn_alpha|mlp_alpha)(?=\.|$)")
_ALPHAS = {"attn_alpha": "lambda_1", "mlp_alpha": "lambda_2"}


class Transform(NamedTuple):
    """One renaming or conversion; `operations` is empty for a renaming."""

    kind: str
    expression: re.Pattern[str]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[tuple[str, Mapping[str, Any]], ...]
    scope: str | None
    base: str | None
    offset: int
    number: int  # its place among the class's transforms


class Renamed(NamedTuple):
    """A stored tensor's name as the model has it, and what made it so."""

    name: str
    converter: Transform | None = None
    source: str = ""  # the converter's source pattern that matched


def read_transform(number: int, written: Sequence[Any]) -> Transform:
    kind, sources, targets, operations, scope, base, offset = (*written, *_EMPTY[len(written) :])
    return Transform(
        kind,
        _expression(sources),
        tuple(sources),
        tuple(targets),
        tuple(map(tuple, operations)),
        scope,
        base,
        offset,
        number,
    )


def _expression(sources: Sequence[str]) -> re.Pattern[str]:
    """One branch for each source pattern, the longest first (`WeightTransform.__init__`)."""
    branches = []
    for number, source in sorted(enumerate(sources), key=lambda item: -len(item[1])):
        pattern = source.replace("*.", r".*\.")
        boundary = r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", pattern) else ""
        branches.append(f"(?P<g{number}>{pattern}{boundary})")
    return re.compile("|".join(branches))


class Renamer:
    """A function from a stored name to the name in the model, which need not have it."""

    def __init__(self, transforms: Iterable[Transform], prefix: str, known: Callable[[str], bool]) -> None:
        transforms = tuple(transforms)
        self.minds_indices = any(  # names that differ in an index alone may be renamed differently
            _LITERAL_INDEX.search(t.expression.pattern) or t.kind not in ("rename", "convert") for t in transforms
        )
        plain = _Plain(transforms)
        self._transform = plain.rename if self.minds_indices else _by_template(plain.rename)
        self._prefixed = _prefixer(prefix, known)
        self._known = known

    def __call__(self, name: str) -> Renamed:
        found = self._transform(name)
        final = self._prefixed(found.name)
        if not self._known(final) and self._known(name):
            return Renamed(self._prefixed(name))
        return Renamed(final, found.converter, found.source)


def _prefixer(prefix: str, known: Callable[[str], bool]) -> Callable[[str], str]:
    """Adds or takes the base model's prefix where the model then has the name."""
    pattern = re.compile(f"^{prefix}.")
    results: dict[str, str] = {}

    def prefixed(name: str) -> str:
        if name not in results:
            results[name] = _with_prefix(name, prefix, pattern, known)
        return results[name]

    return prefixed


def _with_prefix(name: str, prefix: str, pattern: re.Pattern[str], known: Callable[[str], bool]) -> str:
    if name.startswith(prefix) and known(shorter := pattern.sub("", name, count=1)):
        return shorter
    if name.startswith(f"{prefix}.") and known(name):
        return name
    return longer if known(longer := f"{prefix}.{name}") else name


def _by_template(rename: Callable[[str], Renamed]) -> Callable[[str], Renamed]:
    """The same function, called once for all names that differ in their indices alone."""
    templates: dict[str, tuple[Renamed, list[str]]] = {}

    def renamed(name: str) -> Renamed:
        template = _INDEX.sub("#", name)
        if template not in templates:
            numbers = iter(range(_FIRST_STAND_IN, _FIRST_STAND_IN + 100))
            found = rename(_INDEX.sub(lambda _: str(next(numbers)), name))
            templates[template] = found, re.split(rf"({_FIRST_STAND_IN // 100}\d\d)", found.name)
        found, parts = templates[template]
        if len(parts) == 1:
            return found
        indices = _INDEX.findall(name)
        filled = [indices[int(part) - _FIRST_STAND_IN] if at % 2 else part for at, part in enumerate(parts)]
        return Renamed("".join(filled), found.converter, found.source)

    return renamed


class _Plain:
    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.renamings = [t for t in transforms if t.kind != "convert"]
        self.converters = [t for t in transforms if t.kind == "convert"]
        self.active: set[int] = set()

    def rename(self, name: str) -> Renamed:
        for transform in self.renamings:
            found = self.renamed(transform, name)
            if found is not None:
                name = found[0]
        for transform in self.converters:
            found = self.renamed(transform, name)
            if found is not None:
                return Renamed(found[0], transform, found[1])
        return Renamed(name)

    def renamed(self, transform: Transform, name: str) -> tuple[str, str] | None:
        scope = _scope(transform, name)
        if scope is None:
            return None
        rest = name[len(scope) :]
        if transform.kind == "LayerPairCollapse":
            return scope + _LAYER_OF_PAIR.sub(_collapsed, rest, count=1), transform.sources[0]
        match = transform.expression.search(rest)
        if match is None:
            return None
        branch = next(int(group[1:]) for group, value in match.groupdict().items() if value is not None)
        if transform.kind == "GroupWeightRename" and not self._guarded(transform, branch):
            return None
        replacement = _replacement(transform, match, branch)
        return scope + rest.replace(match.group(0), replacement, 1), transform.sources[branch]

    def _guarded(self, transform: Transform, branch: int) -> bool:
        if branch == 0:
            self.active.add(transform.number)
        return transform.number in self.active


def _collapsed(block: re.Match[str]) -> str:
    index, name = int(block[1]), block[2]
    return f"layers.{index // 2}.{_ALPHAS.get(name, ('self_attn', 'mlp')[index % 2])}"


def renamed_in_full(transforms: Iterable[Transform], name: str) -> str:
    """The name after every transform, renamings and conversions alike, one upon the other."""
    plain = _Plain(tuple(transforms))
    for transform in (*plain.renamings, *plain.converters):
        found = plain.renamed(transform, name)
        name = found[0] if found is not None else name
    return name


def parts_of(transform: Transform, name: str) -> tuple[str, ...]:
    """What the transform makes of the tensor whose first part is `name`; () where that is one parameter or none."""
    scope, (first, *others) = _scope(transform, name), transform.targets
    if scope is None or not others or first not in name[len(scope) :]:
        return ()
    before, _, after = name[len(scope) :].partition(first)
    return tuple(f"{scope}{before}{target}{after}" for target in transform.targets)


def _scope(transform: Transform, name: str) -> str | None:
    """What of the name lies before the part that the transform sees; None where it sees nothing."""
    if transform.scope is None:
        return ""
    scope = f"{transform.scope}." if transform.scope else ""
    base = f"{transform.base}." if transform.base else ""
    return next((start for start in (base + scope, scope) if name.startswith(start)), None)


def _replacement(transform: Transform, match: re.Match[str], branch: int) -> str:
    first = match.re.groupindex[f"g{branch}"]
    if transform.kind == "GroupWeightRename":
        return re.sub(r"\\(\d+)", lambda found: match.group(first + int(found.group(1))), transform.targets[branch])
    replacement = transform.targets[0]
    if r"\1" not in replacement:
        return replacement
    inner = match.group(first + 1)
    return replacement.replace(r"\1", str(int(inner) + transform.offset) if transform.offset else inner)


def natural_key(name: str) -> list[Any]:
    """transformers' order of a checkpoint's names (`dot_natural_key`): it is the order of merged experts."""
    key: list[Any] = []
    for part in name.split("."):
        text = part.rstrip("0123456789")
        key.append((0, int(part)) if part.isdigit() else (1, text, int(part[len(text) :] or 0)))
    return key
