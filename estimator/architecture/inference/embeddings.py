"""What get_input_embeddings() and get_output_embeddings() of an unknown architecture would return.

Rule's source: transformers 5.23.0, modeling_utils.py, EmbeddingAccessMixin, with the names that classes of transformers
give these modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from estimator.architecture.module import Module, full_name

Names = Mapping[str, Module]

TOKENS = ("embed_tokens", "word_embeddings", "shared", "wte", "tok_embeddings", "embed_in", "token_embedding",
          "word_embedding", "tokens_embed", "input_embedding", "token_embeddings")  # fmt: skip
_PATCHES = ("patch_embeddings", "patch_embed", "patch_embedding", "patch_conv")
_INPUTS = TOKENS + _PATCHES
# Parts that a class is made of; what is called otherwise and holds such parts is the base model.
_PART = re.compile(
    r"(encoder|decoder|layers?|embeddings?|blocks|h|pooler|cls|classifier|score|(\w+_)?(head|tower|projector|projection)"
    r"|(vision|visual|text|audio|image|video|speech|codec|multimodal)_?(model|encoder|decoder|backbone)|qformer"
    r"|vision_encoder|detector_model|tracker_model|depth_decoder)"
)
_HOLDERS = ("embeddings", "embedding", "embd")
_BASE = (*_HOLDERS, "encoder", "layers", "layer", "h", "decoder", "blocks", "stages", "language_model", "text_model")
_CONTRASTIVE = re.compile(r"\w*logit_scale|(text|visual)_projection")  # of CLIP and its like: two towers side by side
_HEADS = ("lm_head", "cls.predictions.decoder", "lm_head.decoder", "predictions.decoder", "lm_head.out_proj",
          "proj_out", "output_projection", "generator_lm_head", "vocab_projector", "pred_layer.proj", "lm_loss",
          "embed_out", "head.decoder", "decoder", "output", "head", "lm_head.linear")  # fmt: skip
_LANGUAGE = ("language_model", "language", "llm")
_INNER = (*_LANGUAGE, "text_model", "decoder")
_DEPTH = 4


class Embeddings:
    """Looks names up below one model."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules: Names = {module.name: module for module in modules}
        self.children: dict[str, list[str]] = {}
        for name in self.modules:
            if name:
                parent, _, part = name.rpartition(".")
                self.children.setdefault(parent, []).append(part)

    def input(self) -> str | None:
        """The name of the module that embeds tokens (or patches); None where the class would refuse to say."""
        return self._below("", _DEPTH)

    def output(self, embedding: str | None) -> str | None:
        """The name of the language model's head; None where there is none, or no embedding (speech encoders)."""
        if embedding is None:
            return None
        rows = _rows(self.modules.get(embedding))
        for name in (*_HEADS, *(f"{part}.{head}" for head in ("lm_head", "output") for part in _INNER)):
            module = self.modules.get(name)
            if module is not None and module.kind == "Linear" and (name.endswith("lm_head") or _rows(module) == rows):
                return name
        return "lm_heads" if "lm_heads" in self.modules else None

    def _below(self, path: str, depth: int) -> str | None:
        parts = self.children.get(path, ())
        found = self._direct(path) or self._direct(full_name(path, "model"))
        if found or not depth:
            return found
        for language in _LANGUAGE:
            if language in parts:
                return self._below(full_name(path, language), depth - 1)
        for inner in self._inner(path, parts):
            if (found := self._below(full_name(path, inner), depth - 1)) is not None:
                return found
        return None

    def _direct(self, path: str) -> str | None:
        """An embedding that lies right here, or in what is called `embeddings` or the like."""
        for parent in (path, *(full_name(path, holder) for holder in _HOLDERS)):
            own = self.children.get(parent, ())
            for name in _INPUTS:
                if name in own:
                    return full_name(parent, name)
        embeddings = self.modules.get(full_name(path, "embeddings"))
        return embeddings.name if embeddings is not None and embeddings.kind == "Embedding" else None

    def _inner(self, path: str, parts: Sequence[str]) -> list[str]:
        """Where to look on: the decoder, or the encoder where it has embeddings too; the text model; the base model."""
        inner = []
        if "decoder" in parts:
            names = [part for part in ("encoder", "decoder") if self._direct(full_name(path, part))]
            inner += names[:1]
        own = {parameter.name for module in (self.modules.get(path),) if module for parameter in module.parameters}
        if "text_model" in parts and not any(_CONTRASTIVE.fullmatch(name) for name in (*parts, *own)):
            inner.append("text_model")
        whole = len(parts) == 1 and parts[0] != "encoder"  # a class around one model
        return inner + [part for part in parts if whole or self._is_base(full_name(path, part), part)]

    def _is_base(self, name: str, part: str) -> bool:
        own = self.children.get(name, ())
        return _PART.fullmatch(part) is None and any(below in own for below in (*_BASE, *_INPUTS))


def _rows(module: Module | None) -> int | None:
    shape = module.parameters[0].shape if module is not None and module.parameters else ()
    return shape[0] if shape else None
