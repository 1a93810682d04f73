"""What optimizers keep, against their own state after one step."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.sizes.memory.optimizers import RULES, Trained, paged_bytes, state_bytes, step_bytes

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
        pytest.param("paged_ademamix_32bit", 3 * 4 * 32_768, id="two first moments and a second"),
        pytest.param("rmsprop_bnb_8bit", 32_768 + 4 * 128 + 1024, id="one moment in 8 bits"),
        pytest.param("adamw_torch_8bit", 68_612, id="torchao 0.18 in 8 bits, a code book each"),
        pytest.param("adamw_torch_4bit", 33_924, id="torchao 0.18 in 4 bits"),
        pytest.param("schedule_free_adamw", 262_144, id="schedulefree 1.4.1: the average and a moment"),
        pytest.param("schedule_free_sgd", 131_072, id="schedulefree 1.4.1: the average"),
        pytest.param("stable_adamw", 262_148, id="torch-optimi 0.3.3: two moments and a number"),
    ],
)
def test_state_of_one_matrix(optimizer: str, expected: int) -> None:
    assert state_bytes(optimizer, [Trained((8, 4096), 4)]) == expected


def test_small_tensors_stay_float32_in_8_bit_optimizers() -> None:
    assert state_bytes("adamw_8bit", [Trained((4095,), 4)]) == 2 * 4 * 4095


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        pytest.param("adamw_torch_8bit", 6_404, id="torchao: under 4,096 elements as wide as the parameter"),
        pytest.param("schedule_free_radam", 6_400, id="schedulefree"),
        pytest.param("stable_adamw", 9_602, id="torch-optimi: Kahan summation in 16 bits"),
    ],
)
def test_state_of_one_small_matrix_in_16_bits(optimizer: str, expected: int) -> None:
    assert state_bytes(optimizer, [Trained((16, 100), 2)]) == expected


def test_an_embedding_has_its_8_bit_state_in_32() -> None:
    """transformers 5.23.0, Trainer.create_optimizer, register_module_override."""
    assert state_bytes("adamw_8bit", [Trained((32, 256), 2, embeds=True)]) == 2 * 4 * 8_192 + 2 * 1024


@pytest.mark.parametrize(
    ("optimizer", "way_out"),
    [
        pytest.param("adamw_trch", "adamw_torch", id="its neighbour"),
        pytest.param("adam", "adamw_torch", id="the first that begins so"),
        pytest.param("galore_adamw", "optim_target_modules", id="needs what no option says"),
        pytest.param("adamw_torch_npu_fused", "NPUs", id="another device's"),
    ],
)
def test_an_unknown_optimizer_is_told_why(optimizer: str, way_out: str) -> None:
    with pytest.raises(UsageError) as refusal:
        state_bytes(optimizer, [])
    assert way_out in refusal.value.what + refusal.value.way_out


@pytest.mark.judges
def test_each_name_of_transformers_is_counted_or_refused_by_a_reason() -> None:
    names = pytest.importorskip("transformers.training_args").OptimizerNames
    for name in names:
        if name.value not in RULES:
            with pytest.raises(UsageError, match="is not counted: "):
                state_bytes(name.value, [])


@pytest.mark.parametrize(
    ("optimizer", "shape", "embeds", "expected"),
    [
        pytest.param("paged_adamw_32bit", (25, 4000), False, 8 * 100_000, id="two moments in 32 bits"),
        pytest.param("paged_adamw_32bit", (8, 4096), False, 0, id="state of small tensors stays"),
        pytest.param("paged_lion_8bit", (25, 4000), False, 100_000, id="absmax and code book stay"),
        pytest.param("paged_adamw_8bit", (25, 4000), True, 8 * 100_000, id="an embedding's in 32 bits"),
        pytest.param("adamw_8bit", (25, 4000), False, 0, id="not paged at all"),
    ],
)
def test_paged_state_of_large_tensors_lies_outside_the_allocator(
    optimizer: str, shape: tuple[int, ...], embeds: bool, expected: int
) -> None:
    """bitsandbytes 0.50.2, optim/optimizer.py, get_state_buffer."""
    assert paged_bytes(optimizer, [Trained(shape, 4, embeds)]) == expected


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        pytest.param("adamw_torch", 1, id="roots of a moment"),
        pytest.param("rmsprop", 1, id="roots of its moment"),
        pytest.param("adagrad", 2, id="roots, and what they divide"),
        pytest.param("sgd", 0, id="nothing"),
        pytest.param("adamw_torch_fused", 0, id="one kernel"),
    ],
)
def test_copies_while_it_steps(optimizer: str, copies: int) -> None:
    """Counted on torch 2.13's own steps (foreach, six matrices of 64 by 4,096)."""
    assert step_bytes(optimizer, [Trained((64, 4096), 4)] * 6) == copies * 6 * 64 * 4096 * 4


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
        ("ademamix", "AdEMAMix"),
        ("ademamix_8bit", "AdEMAMix8bit"),
        ("rmsprop_bnb", "RMSprop32bit"),
        ("rmsprop_bnb_8bit", "RMSprop8bit"),
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
