"""Lists of the layers' kinds in classes whose shapes depend on no number of layers."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.errors import MalformedConfigError, NoWeightsError

NEMOTRON_H = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHModel"],
    "layers_block_type": ["mamba", "attention"],
}
KINDS = {"layer_types": ["hybrid", "mamba"]}
ZAMBA = {"model_type": "zamba", "architectures": ["ZambaModel"]}


@pytest.mark.parametrize(
    ("config", "error"),
    [
        pytest.param(ZAMBA | KINDS, NoWeightsError, id="a default that no formula knows: 76, and transformers refuses"),
        pytest.param(ZAMBA | KINDS | {"num_hidden_layers": 3}, MalformedConfigError, id="another number"),
        pytest.param(ZAMBA | KINDS | {"num_hidden_layers": 2}, None, id="as many"),
        pytest.param(NEMOTRON_H, None, id="a class whose list alone counts"),
        pytest.param(NEMOTRON_H | {"num_hidden_layers": 5}, None, id="which overrules the number"),
    ],
)
def test_kinds_of_layers_where_nothing_depends_on_their_number(config, error):
    """Truth: ZambaConfig and NemotronHConfig of transformers 5.23.0; the latter's num_hidden_layers is a property."""
    if error is not None:
        with pytest.raises(error, match="num_hidden_layers"):
            from_config(config)
        return
    layers = {m.name.split(".")[1] for m in from_config(config).modules if m.name.startswith("layers.")}
    assert layers == {"0", "1"}
