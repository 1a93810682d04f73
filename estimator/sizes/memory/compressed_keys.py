"""Attention whose keys are its values, and whose long past is compressed: read off names and shapes.

Each layer keeps one head of a window of tokens; a compressor makes one entry, as wide as its norm, of so many tokens as
its position_bias has rows, and holds back what fills no entry yet; where it makes two series, also the last entry's
tokens. An indexer does the same with the keys that it chooses by (transformers 5.23.0, modeling_deepseek_v4.py,
DeepseekV4HCACache and DeepseekV4CSACache).
"""

from collections.abc import Iterator
from typing import NamedTuple

from estimator.architecture.module import Module


class Compressed(NamedTuple):
    """Elements that one layer keeps."""

    windowed: int  # of a token in the window
    beyond: int  # of every token: its share of an entry
    chosen_by: int  # of every token, by which entries are chosen
    held_back: int  # of a sequence, at most


def compressed_keys(members: list[Module]) -> Compressed | None:
    """None where the layer has attention of another kind. Entries of few tokens' share are rounded up."""
    widths = {module.name: module.parameters[0].shape[0] for module in members if module.parameters}
    holders = [name.removesuffix(".kv_norm") for name in widths if name.endswith(".kv_norm")]
    own = [h for h in holders if f"{h}.q_a_proj" in widths and widths.get(f"{h}.kv_proj") == widths[f"{h}.kv_norm"]]
    if not own:
        return None
    parts = [(name.endswith("indexer"), entry, rate, held) for name, entry, rate, held in _compressors(members, widths)]
    return Compressed(
        sum(widths[f"{holder}.kv_norm"] for holder in own),
        sum(-(-entry // rate) for chooses, entry, rate, _ in parts if not chooses),
        sum(-(-entry // rate) for chooses, entry, rate, _ in parts if chooses),
        sum(held for *_, held in parts),
    )


def _compressors(members: list[Module], widths: dict[str, int]) -> Iterator[tuple[str, int, int, int]]:
    """The name of each, the width of an entry, the tokens in it, and the elements held back: keys and gates alike."""
    for module in members:
        for parameter in module.parameters:
            entry = widths.get(f"{module.name}.kv_norm")
            if parameter.name == "position_bias" and entry is not None:
                rate, width = parameter.shape
                again = rate * entry if width > entry else 0
                yield module.name, entry, rate, 2 * ((rate - 1) * width + again)
