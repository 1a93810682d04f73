"""A matrix that LoRA is put on, and a tensor of what is put on it."""

from typing import NamedTuple

PARTS = ("lora", "dora", "bias", "saved_modules", "trainable_tokens", "embeddings")


class Matrix(NamedTuple):
    """The weight of a Linear or Conv1D, as LoRA sees it."""

    in_features: int
    out_features: int
    transposed: bool  # Conv1D keeps (in, out)


class Weight(NamedTuple):
    """A tensor that a LoRA layer owns, named as in the file, behind the layer's name."""

    suffix: str  # "lora_A.weight"
    shape: tuple[int, ...]
    part: str = "lora"  # one of PARTS
    trainable: bool = True
    parameter: bool = True  # False: a buffer, saved but not counted
    saved: bool = True
    cast: bool = True  # whether autocast_adapter_dtype makes it float32
    bias: bool = False  # its run-time name ends in ".bias", which bias="all" looks for
    dtype: str | None = None  # before autocast, where that is not the layer's

    @property
    def in_parameter_dict(self) -> bool:
        """Whether a torch ParameterDict holds it under the adapter's name, and no module of its own does."""
        return self.parameter and "." not in self.suffix and self.suffix != "lora_magnitude_vector"
