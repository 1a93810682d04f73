"""The keys of one config file, read with the trainer's defaults; what was left out is remembered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.notes import Note

MAX_INTEGER = 2**31 - 1
OPEN = re.compile(r".*\$[\w({@*].*|\{\{.*|<[^<>]*>", re.DOTALL)  # a variable of the shell or of a template
_TRUE = ("true", "yes", "1", "on", "y", "t")
_FALSE = ("false", "no", "0", "off", "n", "f", "", "none", "null")


def known_when_run(key: str, value: str, where: str) -> UnsupportedError:
    """The error of a value that is open until the command runs or the template is rendered."""
    what = f"{key} is {value[:60]!r}, which is known only when the command runs."
    return UnsupportedError(what, where=where, way_out="write the value out")


class Recorded(dict[str, Any]):
    """Values that remember which of them were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


class Keys:
    def __init__(self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> None:
        self.values = values if isinstance(values, Recorded) else Recorded(values)
        self.where, self._defaults = where, defaults
        self.defaulted: list[str] = []
        self.notes: list[Note] = []

    def get(self, key: str) -> Any:
        """The value, or the trainer's default where the key is missing or null."""
        value = self.values.get(key)
        if value is None:
            value = self._defaults.get(key)
            if value is not None:
                self.defaulted.append(key)
        return value

    def integer(self, key: str) -> int | None:
        """Raises UsageError for what is no whole number; None for a shell expression, which is noted."""
        value = self.get(key)
        if isinstance(value, str) and value.lstrip().startswith(("$", "<", "{")):
            self.note("not_a_number", f"{key} is {value[:60]!r}: its value depends on where the command runs.")
            return None
        return None if value is None else self._whole(key, value)

    def _whole(self, key: str, value: Any) -> int:
        try:
            number = float(value)
            if isinstance(value, bool) or number != int(number) or abs(number) > MAX_INTEGER:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.odd(key, value, "a whole number") from None
        return int(number)

    def number(self, key: str) -> float | None:
        value = self.get(key)
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.odd(key, value, "a number") from None
        if number is not None and number != number:
            raise self.odd(key, value, "a number")
        return int(number) if number is not None and number.is_integer() and abs(number) < MAX_INTEGER else number

    def flag(self, key: str) -> bool:
        """Raises UnsupportedError for a variable, UsageError for what is neither true nor false."""
        value = self.get(key)
        if value is None or isinstance(value, (bool, int, float)):
            return bool(value)
        word = value.strip().lower() if isinstance(value, str) else None
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        if word is not None and OPEN.fullmatch(word):
            raise known_when_run(key, value, self.where)
        raise self.odd(key, value, "true or false")

    def text(self, key: str) -> str | None:
        """Raises UsageError for what is no text."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.odd(key, value, "a text")
        return value

    def names(self, key: str, *, commas: bool = True) -> list[str] | None:
        """A list, or text with commas between the names; without `commas` text is one name, as argparse has it."""
        value = self.get(key)
        if isinstance(value, str):
            return [name.strip() for name in (value.split(",") if commas else [value]) if name.strip()]
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(name, (str, int, float)) for name in value):
            raise self.odd(key, value, "a list of names")
        return [str(name) for name in value]

    def targets(self, key: str, *, commas: bool = False) -> Any:
        """Names as above; all-linear, where it is the only one, is PEFT's own word and no name."""
        names = self.names(key, commas=commas)
        return "all-linear" if names == ["all-linear"] else names

    def section(self, key: str) -> Mapping[str, Any]:
        """A nested object; {} where there is none. Raises UsageError for what is no object."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.odd(key, value, "an object")
        return value

    def continues(self, adapter: Any) -> None:
        """A note where training goes on from an adapter that has a config of its own."""
        if adapter:
            shown = adapter[0] if isinstance(adapter, list) else adapter
            self.note(
                "continues_adapter",
                f"Training goes on from {str(shown)[:200]}: its own adapter_config.json says what trains. What is "
                "counted is what this file asks of a new adapter.",
            )

    def may_grow(self, *keys: str) -> None:
        """A note where tokens may be added whose rows only the tokenizer knows."""
        said = next((key for key in keys if _anything(self.values.get(key))), None)
        if said is not None:
            self.note(
                "vocabulary_may_grow",
                f"{said} may add tokens: embeddings that train or are saved then have more rows. --tokenizer or "
                "--vocab-size says how many.",
            )

    def unread(self) -> list[Note]:
        """A note for each key that speaks of LoRA and was not asked for: mistyped, or of another release."""
        left = [key for key in self.values if key.startswith(("lora_", "peft_")) and key not in self.values.asked]
        return [
            Note("not_read", f"{key[:80]} is not read: it changes no count, or is no key of this trainer.")
            for key in left
            if _anything(self.values[key]) and not _HARMLESS.search(key)
        ]

    def note(self, code: str, message: str) -> None:
        self.notes.append(Note(code, message))

    def odd(self, key: str, value: Any, wanted: str) -> UsageError:
        shown = repr(value)[:80] if isinstance(value, (str, int, float, bool)) else f"a {type(value).__name__}"
        return UsageError(f"{key} is {shown}.", where=f"{key} in {self.where}", way_out=f"give {wanted}")

    def no_lora(self, why: str, way_out: str) -> UsageError:
        """The error of a config that trains no LoRA; `check` takes it for "skipped"."""
        return NoLoraError(why, where=self.where, way_out=way_out)


# How a key ends that neither counts nor loads anything: kernels, learning rates, places.
_HARMLESS = re.compile(r"_kernel$|_lr_|_lr$|_dir$|_path$|^lora_ga_|_on_cpu$")


def _anything(value: Any) -> bool:
    """Whether a value says something; an object of nulls does not."""
    return any(map(_anything, value.values())) if isinstance(value, Mapping) else bool(value)


class UnknownTrainerError(UsageError):
    """A file that is no config of a known trainer."""


class NoLoraError(UsageError):
    """The config is read, and it trains something else than a LoRA."""


def bnb4(dtype: str | None, double: bool, quant_type: str | None = "nf4", storage: str | None = None) -> dict[str, Any]:
    """A BitsAndBytesConfig of 4 bits."""
    return {
        "method": "bnb",
        "bits": 4,
        "quant_type": quant_type,
        "double_quant": double,
        "compute_dtype": dtype,
        "quant_storage": storage,
    }


BNB8: Mapping[str, Any] = {"method": "bnb", "bits": 8}

SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "half": "float16", "float": "float32"}


def dtype_name(value: Any) -> str | None:
    """torch's name of a dtype: `torch.bfloat16`, `bf16`, `bf16-true`; None for auto or nothing."""
    if not isinstance(value, str) or value in ("auto", "null", "None", "none"):
        return None
    name = value.removeprefix("torch.").removesuffix("-true")
    name = {"16": "float16", "32": "float32"}.get(name, name)
    return SHORT_DTYPES.get(name, name)


# What a repository's name says of weights that are stored quantised; its own config decides in the end.
_STORED: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = (
    (("bnb-nf4", "bnb-4bit"), {"method": "bnb", "bits": 4, "quant_type": "nf4"}),
    (("nvfp4",), {"method": "nvfp4", "bits": 4}),
    (("gptq",), {"method": "gptq", "bits": 4}),
    (("awq",), {"method": "awq", "bits": 4}),
    (("aqlm",), {"method": "aqlm", "bits": 2}),
)


def stored_quantization(base: Any) -> dict[str, Any] | None:
    """A stored quantised checkpoint's method, by the name of its repository; it wins over what the config asks for."""
    name = str(base or "").lower()
    found = next((settings for marks, settings in _STORED if any(mark in name for mark in marks)), None)
    return None if found is None else {**found, "stored": True}
