"""What a step of a preference method holds: how many sequences an example has, and what lies beside their logits.

Of TRL 1.10.0.dev0, whose trainers most others start: dpo_trainer.py, reward_trainer.py, experimental/.
"""

from __future__ import annotations

import re
from typing import Any

REFERENCE, CHOSEN = "reference", "chosen"  # logits that are held beside: a reference's, or the chosen answers' again
_METHODS: dict[str, tuple[int, str | None]] = {
    **dict.fromkeys(("dpo", "ipo"), (2, REFERENCE)),
    **dict.fromkeys(("kto", "bco"), (1, REFERENCE)),
    **dict.fromkeys(("orpo", "cpo", "simpo"), (2, CHOSEN)),  # they add the cross-entropy of what was chosen
    **dict.fromkeys(("reward", "rm"), (2, None)),
}
_WORD = re.compile("[a-z]+")
# Methods that name a script; a reward model serves several of them, and its word counts where no other stands.
_SCRIPTS = frozenset(
    ("sft", "dpo", "ipo", "kto", "bco", "orpo", "cpo", "simpo", "grpo", "ppo", "rloo", "gkd", "xpo", "prm")
)


def compared(method: Any) -> dict[str, Any]:
    """`compares` and `beside` of a TrainingConfig, by the method's name; {} for a method that compares nothing."""
    sequences, beside = _METHODS.get(str(method).lower(), (0, None))
    return {"compares": sequences, "beside": beside} if sequences else {}


def method_of(script: str) -> str | None:
    """The method that a script or command is named for, by whole words: the first, `sft_for_dpo.py` trains SFT.

    `train_reward_grpo.py` trains by a reward, `reward_modeling.py` trains one. None where no word says it.
    """
    words = _WORD.findall(script.lower().removesuffix(".py"))
    first = next((word for word in words if word in _SCRIPTS), None)
    return first or ("reward" if "reward" in words else None)
