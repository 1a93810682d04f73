"""Names of transformers 4 on models whose experts transformers 5 fuses."""

from __future__ import annotations

import pytest

from estimator.errors import InvalidLoraError, NoTargetModulesError
from estimator.lora.adapt import adapt
from estimator.request.lora_config import from_mapping
from tests.lora.small import EXPERTS, INNER, MOE, WIDTH, Q

GATE_UP = EXPERTS * 2 * (WIDTH + 2 * INNER)  # for each rank: twice the rank on the fused parameter
DOWN = EXPERTS * (INNER + WIDTH)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param({"target_modules": ["gate_proj", "up_proj"]}, GATE_UP, id="two names, one parameter, twice the rank"),
        pytest.param({"target_modules": ["down_proj", "q_proj"]}, DOWN + Q, id="a name that nothing is fused into"),
        pytest.param({"target_modules": r".*\.(gate_proj|up_proj|down_proj)"}, GATE_UP + DOWN, id="an expression"),
        pytest.param({"target_modules": r".*(up_proj|gate_proj|q_proj)", "exclude_modules": r".*experts.*"}, Q,
                     id="an exclusion of the names of transformers 4"),
        pytest.param({"target_modules": r".*(down_proj|q_proj)", "modules_to_save": ["experts"]},
                     Q + EXPERTS * 3 * INNER * WIDTH, id="what is saved whole is not looked for"),
        pytest.param({"target_parameters": ["experts.gate_up_proj"], "target_modules": []},
                     EXPERTS * (WIDTH + 2 * INNER), id="the parameter by its name has the rank itself"),
        pytest.param({"target_modules": ["gate_proj", "up_proj"], "rank_pattern": {".*experts.*": 5}},
                     EXPERTS * 5 * (WIDTH + 2 * INNER), id="a pattern of one's own goes before the doubled rank"),
    ],
)  # fmt: skip
def test_trainable_parameters(config, parameters):
    assert adapt(MOE, from_mapping({**config, "r": 1})).trainable_parameters == parameters


@pytest.mark.parametrize(
    ("config", "error"),
    [
        pytest.param({"target_modules": ["gate_proj"]}, InvalidLoraError, id="half of what is fused"),
        pytest.param({"target_modules": r".*\.up_proj"}, InvalidLoraError, id="half of it by an expression"),
        pytest.param({"target_modules": "gate_proj"}, NoTargetModulesError, id="a text is matched whole"),
    ],
)
def test_expert_names_that_peft_refuses_are_refused(config, error):
    with pytest.raises(error):
        adapt(MOE, from_mapping(config))
