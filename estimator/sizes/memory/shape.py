"""A model as far as activations depend on it: its layers, what stands around them, and its towers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from estimator.architecture.module import Module, ModuleTree
from estimator.sizes.attention_support import Support, support_of, takes_loss_as_is
from estimator.sizes.memory.blocks import Block, Linear, is_repeated, layers, linear, read_block, scans, stack
from estimator.sizes.memory.fields import (
    activation,
    drops_inner,
    drops_scores,
    drops_states,
    first,
    heads,
    text_config,
    tower_config,
)
from estimator.sizes.memory.norms import final_norm, norms_of, norms_sums, outer_norms
from estimator.sizes.memory.towers import Tower, seeing_tokens, tower_of
from estimator.sizes.memory.windows import is_windowed, window_tokens

_POSITIONS = re.compile(r"Position\w*Embedding$")
# Of PegasusX, LongT5, BigBird and Reformer
_IN_BLOCKS = re.compile(r"(?:Local|BlockSparse|TransientGlobal|LSH)\w*Attention$")
_OWN_ACTIVATIONS = {"BloomGelu": "bloom_gelu", "EsmIntermediate": "gelu_python"}  # (modeling_bloom.py, modeling_esm.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    blocks: tuple[Block, ...]
    hidden: int
    vocabulary: int  # rows of the output head; 0 where there is none
    heads: int
    activation: str
    head: str | None  # module name of the output head
    is_rotary: bool = True  # query and key are turned, so that they are tensors of their own
    caps_scores: bool = False  # attn_logit_softcapping
    caps_logits: bool = False  # final_logit_softcapping
    clamps_gate: bool = False  # swiglu_limit: experts' gate and up are clamped (modeling_gpt_oss.py)
    outer_norms: tuple[int, int] = (0, 1)  # behind embeddings, and behind the last layers
    final_norm: str = ""  # module name of the last of these
    norms_sums: bool = False  # a layer's norms stand behind its additions (BERT), so that the first is the embeddings'
    wide_sums: bool = False  # what goes from layer to layer is float32
    scales_branches: bool = False  # each by one number (residual_multiplier)
    drops_states: bool = False  # the model's own dropout, behind attention
    drops_mlp: bool = False  # and the one behind the MLP
    drops_scores: bool = False  # and that of attention's scores
    drops_inner: bool = False  # and that between the MLP's matrices
    biases_scores: bool = False  # by relative positions (T5)
    shares_bias: bool = False  # which all layers share, and look at the encoder with another; not UMT5's
    position_terms: int = 0  # products of queries, of keys, with positions in attention's scores (DeBERTa)
    positions: int = 0  # that these see at most
    narrow_loss: bool = False  # cross-entropy in the logits' own dtype
    support: Support = Support()  # kinds of attention that its classes have
    is_inferred: bool = False  # what a class nobody knows computes is a guess
    scans: int = 0  # layers with a scan along the sequence (Mamba, linear attention)
    states: int = 0  # of these, those of a kind that no block describes
    unread: frozenset[str] = frozenset()  # layers without attention (convolutions), which no block describes either
    pieces: int | None = None  # of one image or sound, that its layers see; None for tokens, and where nothing says it
    for_layers: int = 0  # elements for a token of what each layer is given beside (Gemma 3n's and 4's), of all together
    embedded: int = 0  # tensors as wide as a layer's input that embeddings keep under checkpointing, norms apart
    convolves_behind: bool = False  # what its layers make is made larger again, by convolutions (DPT)
    before: tuple[Linear, ...] = ()  # matrices between embeddings and the first layer
    behind: Linear | None = None  # the matrix before the output head, with an activation and a norm (BERT's)
    runs_again: bool = False  # layers run several times each
    looks_in_blocks: bool = False  # attention sees blocks of the sequence
    one_each: bool = True  # an example is one image or sound: no language model that any number of them is given to
    towers: Mapping[str, Shape] = field(default_factory=dict)  # by `Block.tower`; their `blocks` are empty

    @property
    def uncounted(self) -> tuple[Block, ...]:
        """Layers that see pieces of images or sound, of which nothing says how many an example has."""
        known = {name for name, tower in self.towers.items() if tower.pieces and self.one_each}
        return tuple(block for block in self.blocks if block.tower and block.tower not in known)


def shape_of(tree: ModuleTree) -> Shape:
    """What activations depend on; layers are found as the outermost numbered modules."""
    config = text_config(tree.config)
    repeated = layers(tree.modules)
    outside = [m for m in tree.modules if not is_repeated(m.name)]
    seeing = seeing_tokens(repeated, outside, tree.input_embedding)
    words = next((m for m in outside if m.name == tree.input_embedding and m.kind == "Embedding"), None)
    columns = words.parameters[0].shape[1] if words is not None and words.parameters and tree.basis == "exact" else 0
    hidden = first(config, "hidden_size", "n_embd", "d_model", "dim") or columns
    read, towers = _read_layers(tree, repeated, outside, seeing, hidden)
    blocks = _run(list(read.values()), config)
    alone = next(iter(towers.values())) if len(towers) == 1 and all(b.tower for b in blocks) else None
    width = alone.hidden if alone else hidden
    head = next((m for m in tree.modules if m.name == tree.output_embedding), None)
    scanned = sum(scans(members) for members in repeated.values())
    biases = [m.name for m in tree.modules if m.name.endswith("relative_attention_bias")]
    return replace(
        _plain(config, width),
        blocks=tuple(blocks),
        vocabulary=head.parameters[0].shape[0] if head is not None and head.parameters else 0,
        activation=_activation(tree, config),
        head=tree.output_embedding,
        is_rotary=any("rotary" in module.name or "rope" in module.name for module in tree.modules),
        caps_scores=config.get("attn_logit_softcapping") is not None,
        caps_logits=config.get("final_logit_softcapping") is not None,
        clamps_gate=config.get("swiglu_limit") is not None,
        outer_norms=outer_norms(outside, width),
        final_norm=final_norm(outside, width, next((n for n in reversed(repeated) if alone or n in seeing), "")),
        norms_sums=norms_sums(outside, repeated, width),
        scales_branches=first(config, "residual_multiplier", "scale_depth") is not None,
        biases_scores=bool(biases),
        shares_bias=0 < len(biases) < len(blocks),
        position_terms=_position_terms(config),
        positions=2 * _at_least_1(config, "position_buckets", "max_relative_positions", "max_position_embeddings"),
        drops_mlp=drops_states(config) and _drops_behind_mlp(tree.modules, blocks),
        narrow_loss=takes_loss_as_is(tree.architecture),
        is_inferred=tree.basis == "inferred",
        scans=scanned,
        states=scanned - sum(block.scan is not None for block in blocks),
        wide_sums=_widens_sums(config, blocks),
        unread=frozenset(repeated.keys() - read.keys()),
        pieces=alone.pieces if alone else None,
        for_layers=_at_least_1(config, "hidden_size_per_layer_input") * len(blocks),
        embedded=0 if alone else _adding(words, outside) + (config.get("embedding_multiplier") is not None),
        convolves_behind=alone is not None and _convolves_behind(tree, next(reversed(repeated))),
        before=() if towers else _before(tree, hidden),
        behind=None if alone else _behind(tree, outside, head, hidden),
        runs_again=_takes_turns(config) or _at_least_1(config, "num_hidden_layers") > max(len(blocks), len(repeated)),
        looks_in_blocks=any(_IN_BLOCKS.search(module.cls) for module in tree.modules),
        one_each=tree.output_embedding is None or _is_read(towers, repeated),
        towers=towers,
    )


def _read_layers(
    tree: ModuleTree,
    repeated: Mapping[str, list[Module]],
    outside: Sequence[Module],
    seeing: Container[str],
    hidden: int,
) -> tuple[dict[str, Block], dict[str, Shape]]:
    """By the layer's name, what can be described of it; and by `Block.tower` the towers that hold such layers.

    outside: the modules that stand in no layer; seeing: the layers that see tokens, `hidden` wide.
    """
    config, alike = text_config(tree.config), Counter(map(stack, repeated))
    read: dict[str, Block] = {}
    towers: dict[str, Shape] = {}
    for name, members in repeated.items():
        if name in seeing:
            if block := read_block(members, hidden, config):
                read[name] = replace(block, window=_window(name, alike, config))
            continue
        tower = tower_of(stack(name), next((n.width for n in norms_of(members, hidden)), hidden), outside)
        part = tower_config(tree.config, tower.stack, tower.stem)
        if block := read_block(members, tower.width, part):
            read[name] = replace(block, tower=tower.stack)
            known = towers.setdefault(tower.stack, _tower_shape(tower, part))
            if known.hidden != tower.width:  # layers that see fewer and fewer pieces
                towers[tower.stack] = replace(known, pieces=None)
    return read, towers


def _plain(config: Mapping[str, object], hidden: int) -> Shape:
    """What the config of a stack of layers says of them."""
    return Shape(
        blocks=(),
        hidden=hidden,
        vocabulary=0,
        heads=heads(config),
        activation=activation(config),
        head=None,
        drops_states=drops_states(config),
        drops_mlp=drops_states(config),
        drops_scores=drops_scores(config),
        drops_inner=drops_inner(config),
        support=support_of(config.get("model_type")),
    )


def _tower_shape(tower: Tower, config: Mapping[str, object]) -> Shape:
    return replace(
        _plain(config, tower.width),
        is_rotary=tower.is_rotary,
        outer_norms=outer_norms(tower.around, tower.width),
        pieces=tower.pieces,
        embedded=tower.embedded,
    )


def _window(layer: str, alike: Mapping[str, int], config: Mapping[str, object]) -> int:
    """Tokens that this layer's attention sees at most; 0 for all. alike: how many layers each stack has."""
    number = int(layer.removeprefix(stack(layer)))
    return (window_tokens(config) or 0) if is_windowed(config, number, alike[stack(layer)]) else 0


def _before(tree: ModuleTree, hidden: int) -> tuple[Linear, ...]:
    """Beside the table of words, or beside what holds the layers (modeling_roc_bert.py, modeling_rembert.py)."""
    before = [*takewhile(lambda module: not is_repeated(module.name), tree.modules)]
    layer = tree.modules[len(before)].name if len(before) < len(tree.modules) else ""
    table = (tree.input_embedding or "").rpartition(".")[0]
    linears = (linear(m) for m in before if m.kind == "Linear" and m.parameters)
    places = ((item, item.name.rpartition(".")[0]) for item in linears if item.outputs == hidden)
    return tuple(item for item, place in places if place and (place == table or layer.startswith(f"{place}.")))


def _behind(tree: ModuleTree, outside: Iterable[Module], head: Module | None, hidden: int) -> Linear | None:
    """Beside the model that holds the layers, and as wide as the head wants (modeling_bert.py, modeling_rembert.py)."""
    if head is None or not head.parameters:
        return None
    model = next((m.name.partition(".")[0] for m in tree.modules if is_repeated(m.name)), "")
    linears = (linear(m) for m in outside if m.kind == "Linear" and m.parameters and m is not head)
    fitting = (i for i in linears if (i.inputs, i.outputs) == (hidden, head.parameters[0].shape[1]))
    return next((item for item in fitting if item.name.partition(".")[0] != model), None)


def _drops_behind_mlp(modules: Iterable[Module], blocks: Iterable[Block]) -> bool:
    """Not where one stands beside attention's last matrix and none beside the MLP's (modeling_xlm_roberta_xl.py)."""
    beside = {m.name.rpartition(".")[0] for m in modules if m.cls == "Dropout"}
    for block in (b for b in blocks if b.attention and b.mlp and not b.tower):
        query, last, down = (
            i.name.rpartition(".")[0] for i in (block.attention[0], block.attention[-1], block.mlp[-1])
        )
        return last == query or last not in beside or down in beside
    return True


def _activation(tree: ModuleTree, config: Mapping[str, object]) -> str:
    """Of the MLP: as a class writes it out itself, else as config.json says."""
    return next((_OWN_ACTIVATIONS[m.cls] for m in tree.modules if m.cls in _OWN_ACTIVATIONS), activation(config))


def _widens_sums(config: Mapping[str, object], blocks: list[Block]) -> bool:
    """As config.json says, else as the classes do that are scans throughout (MambaConfig, Mamba2Config: True)."""
    said = config.get("residual_in_fp32")
    return said is True if said is not None else bool(blocks) and all(b.scan and not b.mlp for b in blocks)


def _run(groups: list[Block], config: Mapping[str, object]) -> list[Block]:
    """The layers that run, where they share the weights of their group (modeling_albert.py, AlbertTransformer)."""
    layers = config.get("num_hidden_layers")
    if _takes_turns(config):
        return _taking_turns(groups[: len(groups) // 2], groups[len(groups) // 2 :], config)
    if type(layers) is not int or config.get("num_hidden_groups") != len(groups):
        return groups
    return [groups[at * len(groups) // layers] for at in range(layers)]


def _takes_turns(config: Mapping[str, object]) -> bool:
    return config.get("model_type") == "hrm_text"


def _taking_turns(low: list[Block], high: list[Block], config: Mapping[str, object]) -> list[Block]:
    """Two stacks, of whose passes those count that want gradients (modeling_hrm_text.py, HrmTextModel)."""
    cycles, most = _at_least_1(config, "H_cycles") or 2, _at_least_1(config, "L_cycles") or 3
    said = config.get("L_bp_cycles")
    named = [min(n, most) for n in said if type(n) is int] if isinstance(said, list) else [2]
    turns = ([1] * (cycles - len(named)) + named)[:cycles]
    return [block for turn in turns for block in (*low * turn, *high)]


def _position_terms(config: Mapping[str, object]) -> int:
    """modeling_deberta_v2.py, disentangled_attention_bias."""
    kinds = config.get("pos_att_type") if config.get("relative_attention") is True else None
    return sum(kind in kinds for kind in ("c2p", "p2c")) if isinstance(kinds, str | list | tuple) else 0


def _at_least_1(config: Mapping[str, object], *names: str) -> int:
    """The first of these fields that is above 0, else 0."""
    return next((value for name in names if type(value := config.get(name)) is int and value > 0), 0)


def _convolves_behind(tree: ModuleTree, last_layer: str) -> bool:
    names = [module.name for module in tree.modules]
    behind = tree.modules[names.index(last_layer) if last_layer in names else len(names) :]
    return any(m.kind.startswith("Conv") and m.kind != "Conv1D" and not is_repeated(m.name) for m in behind)


def _is_read(towers: Iterable[str], repeated: Iterable[str]) -> bool:
    """Whether each tower is the encoder beside a decoder, which reads the one input that it encodes."""
    stacks = {stack(name) for name in repeated}
    return all("encoder" in tower and tower.replace("encoder", "decoder") in stacks for tower in towers)


def _adding(words: Module | None, outside: list[Module]) -> int:
    """Places where positions or kinds of tokens are looked up beside the words, or their like, and added."""
    if words is None or not words.parameters:
        return 0
    beside: dict[str, list[Module]] = {}
    for module in outside:
        if module.kind == "Embedding" or _POSITIONS.search(module.cls):
            beside.setdefault(module.name.rpartition(".")[0], []).append(module)
    return sum(len(held) > 1 and any(m.parameters == words.parameters for m in held) for held in beside.values())
