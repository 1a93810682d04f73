"""The kinds of attention that a model's classes have, what the eager one keeps, and whether they can checkpoint.

Where scaled dot product attention is the default and a class has none, transformers (5.23.0, modeling_utils.py,
get_correct_attn_implementation) takes eager attention without a word.
attention.facts: model type or class, and its letters. Written by `python -m estimator.sizes.generate_attention`.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple


class Support(NamedTuple):
    sdpa: bool = True
    flash: bool = True
    narrow_scores: bool = False  # eager attention takes its softmax in the model's own dtype, not in float32
    clamps_scores: bool = False  # and keeps them before it too, where it takes the larger of them and a least number
    wide_products: bool = False  # eager attention multiplies queries and keys in float32
    wide_shares: bool = False  # what experts make of a token is multiplied with a float32
    caches: bool = True  # a forward pass of a decoder fills a cache of keys and values, whether it is asked for or not

    def eager_for(self, asked: str) -> bool:
        """Whether eager attention is what is asked for, or what runs in place of a kind that is not there."""
        return asked == "eager" or not {"sdpa": self.sdpa, "flash_attention_2": self.flash}.get(asked, True)


def support_of(model_type: object) -> Support:
    """Everything but a narrow softmax where the type is unknown."""
    letters = _facts().get(str(model_type), "")
    return Support(
        sdpa="s" not in letters,
        flash="f" not in letters,
        narrow_scores="n" in letters,
        clamps_scores="m" in letters,
        wide_products="w" in letters,
        wide_shares="r" in letters,
        caches="k" not in letters,
    )


def checkpoints(model_type: object, architecture: str | None) -> bool:
    """Whether gradient_checkpointing_enable() is not refused: by the type, or by the class alone (ShieldGemma 2's)."""
    return not any("c" in _facts().get(str(name), "") for name in (model_type, architecture))


def takes_loss_as_is(architecture: str | None) -> bool:
    """Whether this class makes its cross-entropy of logits in their own dtype, where others copy them to float32."""
    return "l" in _facts().get(str(architecture), "")


def keeps_no_cache(architecture: str | None, is_decoder: bool) -> bool:
    """Whether this class reads all tokens again for each one it makes (modeling_openai.py), or would if it were asked
    to make any (modeling_bert.py where config.json does not say is_decoder)."""
    letters = _facts().get(str(architecture), "")
    return "k" in letters or ("d" in letters and not is_decoder)


@cache
def _facts() -> dict[str, str]:
    text = Path(__file__).with_name("attention.facts").read_text(encoding="utf-8")
    return dict(line.split() for line in text.splitlines() if not line.startswith("#"))
