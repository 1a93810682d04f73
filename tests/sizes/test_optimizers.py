"""What optimizers keep, against their own state after one step."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.sizes.optimizers import RULES, Trained, is_paged, state_bytes

SHAPES = [(8, 4096), (4096, 8), (16, 100), (63,)]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        pytest.param("adamw_torch", 2 * 4 * 32_768 + 4, id="two moments and a step"),
        pytest.param("adamw_bnb_8bit", 2 * (32_768 + 4 * 128) + 2 * 1024, id="a byte, a float for 256, two code books"),
        pytest.param("paged_adamw_32bit", 2 * 4 * 32_768, id="float32 moments, the step a number of Python's"),
        pytest.param("lion_32bit", 4 * 32_768, id="one moment"),
        pytest.param("adafactor", 4 * (8 + 4096) + 4, id="a row, a column and an RMS"),
        pytest.param("sgd", 0, id="nothing without momentum"),
        pytest.param("muon", 4 * 32_768, id="one momentum"),
    ],
)
def test_state_of_one_matrix(optimizer: str, expected: int) -> None:
    assert state_bytes(optimizer, [Trained((8, 4096), 4)]) == expected


def test_small_tensors_stay_float32_in_8_bit_optimizers() -> None:
    assert state_bytes("adamw_8bit", [Trained((4095,), 4)]) == 2 * 4 * 4095


def test_an_unknown_optimizer_gets_its_neighbour() -> None:
    with pytest.raises(UsageError) as refusal:
        state_bytes("adamw_trch", [])
    assert "adamw_torch" in refusal.value.way_out


def test_paged_state_lies_outside_the_allocator() -> None:
    assert {name for name in RULES if is_paged(name)} == {name for name in RULES if name.startswith("paged")}


def _torch_optimizers():
    torch = pytest.importorskip("torch")
    adafactor = pytest.importorskip("transformers.optimization").Adafactor
    return {
        "adamw_torch": lambda p: torch.optim.AdamW(p),
        "adamw_torch_fused": lambda p: torch.optim.AdamW(p, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "adagrad": lambda p: torch.optim.Adagrad(p),
        "rmsprop": lambda p: torch.optim.RMSprop(p),
        "adafactor": lambda p: adafactor(p, lr=0.1, relative_step=False, scale_parameter=False),
    }


@pytest.mark.judges
@pytest.mark.parametrize("width", [4, 2], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "adafactor"])
def test_state_equals_the_real_one_after_a_step(optimizer: str, width: int) -> None:
    torch = pytest.importorskip("torch")
    dtype = torch.float32 if width == 4 else torch.bfloat16
    parameters = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in SHAPES]
    real = _torch_optimizers()[optimizer](parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    real.step()
    held = (value for state in real.state.values() for value in state.values() if torch.is_tensor(value))
    assert state_bytes(optimizer, [Trained(shape, width) for shape in SHAPES]) == sum(t.nbytes for t in held)


@pytest.mark.judges
def test_muon_keeps_one_momentum() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.ones(64, 32))
    real = torch.optim.Muon([parameter])
    parameter.grad = torch.ones_like(parameter)
    real.step()
    held = [value for value in real.state[parameter].values() if torch.is_tensor(value)]
    assert state_bytes("muon", [Trained((64, 32), 4)]) == sum(t.nbytes for t in held)


@pytest.mark.judges
@pytest.mark.parametrize(
    ("optimizer", "cls"),
    [
        ("adamw_bnb_8bit", "AdamW8bit"),
        ("lion_8bit", "Lion8bit"),
        ("lion_32bit", "Lion32bit"),
        ("paged_adamw_32bit", "AdamW32bit"),
    ],
)
def test_bitsandbytes_state_as_it_is_made(optimizer: str, cls: str) -> None:
    torch = pytest.importorskip("torch")
    bnb = pytest.importorskip("bitsandbytes")
    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    real = getattr(bnb.optim, cls)(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    for index, parameter in enumerate(parameters):
        real.init_state(real.param_groups[0], parameter, 0, index)
    held = {t.data_ptr(): t.nbytes for s in real.state.values() for t in s.values() if torch.is_tensor(t)}
    assert state_bytes(optimizer, [Trained(shape, 4) for shape in SHAPES]) == sum(held.values())
