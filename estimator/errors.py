"""One class per `error.code` of the contract; each says what is wrong, where, and the way out."""

from __future__ import annotations

import re
from typing import Any

_OPTION = r"(?<!\S)--([a-z][a-z-]*)"


class LoraSizeError(Exception):
    """A request that cannot be answered.

    what:    the fault in one sentence, with the offending value
    where:   option, file, field or tensor
    way_out: what the reader can do about it
    """

    code: str
    exit_code = 2

    def __init__(self, what: str, *, where: str, way_out: str) -> None:
        super().__init__(what)
        self.what, self.where, self.way_out = what, where, way_out

    def __reduce__(self) -> tuple[Any, ...]:
        """So that a pool of processes can hand it back."""
        return _again, (type(self), self.what, self.where, self.way_out)

    def __str__(self) -> str:
        """All three, as a program reads them: options by their names in Python and in a line of a batch."""
        where = re.sub(_OPTION, lambda option: option[1].replace("-", "_"), self.where)
        return f"{self.what} ({where}) {self.way_out}"


def _again(kind: type[LoraSizeError], what: str, where: str, way_out: str) -> LoraSizeError:
    return kind(what, where=where, way_out=way_out)


class UsageError(LoraSizeError):
    """The request itself: an option, a value, or what they say together."""

    code = "usage"


class NotFoundError(LoraSizeError):
    """There is no such model, revision or file."""

    code = "not_found"
    exit_code = 3


class GatedError(LoraSizeError):
    """The Hub shows this repository to those alone who send a token, or who have accepted its terms."""

    code = "gated"
    exit_code = 3


class NetworkError(LoraSizeError):
    """The Hub was not reached, or what it answered can't be used."""

    code = "network"
    exit_code = 3


class OfflineError(LoraSizeError):
    """The answer is not kept on this machine, and the network is not to be asked."""

    code = "offline"
    exit_code = 3


class MalformedHeaderError(LoraSizeError):
    """A header that safetensors would refuse, or files that do not belong together."""

    code = "malformed_header"


class MalformedConfigError(LoraSizeError):
    """A config.json of which transformers could build no model."""

    code = "malformed_config"


class NoWeightsError(LoraSizeError):
    """No headers, and the shapes of this class can't be had from config.json."""

    code = "no_weights"
    exit_code = 3


class NoTargetModulesError(LoraSizeError):
    """PEFT would refuse: nothing matched."""

    code = "no_target_modules"


class UnsupportedModuleError(LoraSizeError):
    """PEFT would refuse: something matched that LoRA cannot wrap."""

    code = "unsupported_module"


class InvalidLoraError(LoraSizeError):
    """PEFT would refuse the LoRA config itself."""

    code = "invalid_lora"


class UnsupportedError(LoraSizeError):
    """Not answered yet: said instead of a guess."""

    code = "unsupported"


def unforeseen(error: Exception) -> UnsupportedError:
    """A fault of this program as an answer: it ends one request with a message, not a run with a traceback."""
    what = f"lora-size failed on this request: {type(error).__name__}: {str(error)[:200]}."
    way_out = "this is a fault of lora-size: please report the command and this line"
    return UnsupportedError(what, where="lora-size itself", way_out=way_out)
