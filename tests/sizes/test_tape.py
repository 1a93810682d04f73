"""Tapes short enough to be played by hand."""

from __future__ import annotations

from estimator.sizes.memory.activations.tape import Tape

TOKENS, WIDTH = 10, 2
X = TOKENS * 4 * WIDTH  # a tensor of four elements a token


def squared(tape: Tape, *, needs_grad: bool = True):
    x = tape.input(4, WIDTH, needs_grad=needs_grad)
    doubled = tape.run((x,), 4, WIDTH)
    return tape.run((doubled,), 4, WIDTH, saves=(doubled,))


def test_what_the_derivative_needs_is_kept() -> None:
    tape = Tape(TOKENS)
    played = tape.play(squared(tape))
    assert (played.kept, played.keeps_input) == (X, False)


def test_nothing_is_kept_where_no_gradient_is_needed() -> None:
    tape = Tape(TOKENS)
    assert tape.play(squared(tape, needs_grad=False)).kept == 0


def test_forward_holds_two_tensors_and_backward_one_more_gradient() -> None:
    tape = Tape(TOKENS)
    played = tape.play(squared(tape))
    assert played.forward == 2 * X  # doubled, squared
    assert played.backward == 3 * X  # doubled, the gradient of squared, the gradient of doubled


def test_a_saved_input_is_said_apart() -> None:
    tape = Tape(TOKENS)
    x = tape.input(4, WIDTH)
    played = tape.play(tape.run((x,), 4, WIDTH, saves=(x,)))
    assert (played.kept, played.keeps_input) == (0, True)


def test_a_tensor_saved_twice_is_kept_once() -> None:
    tape = Tape(TOKENS)
    x = tape.input(4, WIDTH)
    shared = tape.run((x,), 4, WIDTH)
    one, two = (tape.run((shared,), 4, WIDTH, saves=(shared,)) for _ in range(2))
    played = tape.play(tape.run((one, two), 4, WIDTH, passes=True))
    assert played.kept == X


def test_an_addition_passes_its_gradient_on_without_a_copy() -> None:
    tape = Tape(TOKENS)
    x = tape.input(4, WIDTH)
    played = tape.play(tape.run((x, tape.run((x,), 4, WIDTH)), 4, WIDTH, passes=True))
    assert played.backward == 2 * X  # the gradient of the sum, which is x's too, and that of the other summand's input


def test_scratch_lives_for_one_operation_in_each_direction() -> None:
    tape = Tape(TOKENS)
    x = tape.input(4, WIDTH)
    played = tape.play(tape.run((x,), 4, WIDTH, scratch=1000))
    assert (played.kept, played.forward, played.backward) == (0, X + 1000, 2 * X + 1000)


def test_a_python_variable_holds_what_no_operation_needs_any_more() -> None:
    def most(*, held: bool) -> int:
        tape = Tape(TOKENS)
        x = tape.input(4, WIDTH)
        first = tape.run((x,), 4, WIDTH)
        second = tape.run((first,), 4, WIDTH)
        third = tape.run((second,), 4, WIDTH)
        if held:
            tape.hold(first)
        return tape.play(third).forward

    assert (most(held=False), most(held=True)) == (2 * X, 3 * X)
