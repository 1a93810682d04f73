"""What a module that the file lacks shares with one that it holds."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from estimator.architecture.sharing import Sharing


class Facts(NamedTuple):
    ties: tuple[tuple[str, str, str], ...]


EMBED, BOX, PATCH = {"weight": 1}, {"fc": {"weight": 2}}, {"proj": {"weight": 3}}
STORED = {"embed": EMBED, "box": {"0": BOX}, "patch": PATCH, "layers": {"1": {"block": BOX}, "3": {"block": PATCH}}}


def sharing(*ties):
    return Sharing(Facts(ties), lambda path: path == "on", STORED)


@pytest.mark.parametrize(
    ("tie", "path", "found"),
    [
        pytest.param(("head.weight", "embed.weight", ""), "head", EMBED, id="a parameter of the module"),
        pytest.param(("head.weight", "embed.weight", "?off"), "head", {}, id="the config does not tie them"),
        pytest.param(("head.weight", "embed.weight", "?on"), "head", EMBED, id="the config ties them"),
        pytest.param(("box.*", "box.0", ""), "box.4", BOX, id="a whole module, by the pattern's first"),
        pytest.param(("box.*", "box.0", ""), "box.4.fc", BOX["fc"], id="what is below it"),
        pytest.param(("a.patch", "patch", ""), "a", {"patch": PATCH}, id="what is above it"),
        pytest.param(("a.patch", "nowhere", ""), "a.patch", {}, id="the source is not stored either"),
        pytest.param(("head.weight", "embed.weight", ""), "other", {}, id="another module"),
    ],
)
def test_branch_of_a_module_that_the_file_lacks(tie, path, found):
    assert sharing(tie).branch(path, {}) == found
    assert sharing(tie).is_tied(path) is bool(found)


def test_what_is_stored_stays():
    assert sharing(("head.weight", "embed.weight", "")).branch("head", {"weight": 9}) == {"weight": 9}


def test_layers_share_in_turn():
    """Zamba2 of two blocks: the hybrid layers are a, b, a, b; the file holds the first two."""
    turns = sharing(("layers.*.block", "layers.%.block", ""))
    stored = {1: BOX, 3: PATCH}
    found = [turns.branch(f"layers.{number}.block", stored.get(number, {})) for number in (1, 3, 5, 8)]
    assert found == [BOX, PATCH, BOX, PATCH]
    assert turns.pairs == [("layers.5.block", "layers.1.block"), ("layers.8.block", "layers.3.block")]
