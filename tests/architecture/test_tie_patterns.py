"""Ties of builds as patterns, and back to the parameters that they say."""

from __future__ import annotations

import pytest

from estimator.architecture.surveying.tie_patterns import agreed, tie_pairs, ties_hold
from estimator.architecture.tie_names import expanded, matched

LAYER = ("q.weight", "k.weight")


def layers(*numbers, stem="layers"):
    return {f"{stem}.{number}.{name}" for number in numbers for name in LAYER}


def shared(target, source, stem="layers"):
    return {f"{stem}.{target}.{name}": f"{stem}.{source}.{name}" for name in LAYER}


@pytest.mark.parametrize(
    ("builds", "patterns"),
    [
        pytest.param(
            [({"head.weight": "embed.weight"}, {"head.weight", "embed.weight"})],
            {"head.weight": ["embed.weight"]},
            id="one parameter",
        ),
        pytest.param(
            [({"a.patch.w": "patch.w", "a.patch.b": "patch.b"}, {"a.patch.w", "a.patch.b", "patch.w", "patch.b"})],
            {"a.patch": ["patch"]},
            id="all parameters of a module",
        ),
        pytest.param(
            [({"a.patch.w": "patch.w"}, {"a.patch.w", "a.patch.b", "patch.w", "patch.b"})],
            {"a.patch.w": ["patch.w"]},
            id="one of two parameters",
        ),
        pytest.param(
            [(shared(1, 0, "box") | shared(2, 0, "box"), layers(0, 1, 2, stem="box"))],
            {"box.*": ["box.0"]},
            id="all boxes with the first",
        ),
        pytest.param(
            [({f"d.{n}.w": f"e.{n}.w" for n in range(2)}, {f"{x}.{n}.w" for x in "de" for n in range(2)})],
            {"d": ["e"]},
            id="a whole stack",
        ),
        pytest.param(
            [({"b.0.w": "e.0.w"}, {"b.0.w", "b.1.w", "e.0.w"})], {"b.0.w": ["e.0.w"]}, id="only the first of a list"
        ),
        pytest.param(
            [
                (
                    {f"d.{n}.w": f"e.{n}.w" for n in range(count)},
                    {f"{x}.{n}.{y}" for x in "de" for n in range(count) for y in "wv"},
                )
                for count in (2, 3)
            ],
            {"d.*.w": ["e.*.w"]},
            id="layer by layer",
        ),
        pytest.param(
            [
                (shared(5, 2), layers(2, 5)),
                (shared(6, 1) | shared(7, 3), layers(1, 3, 6, 7)),
            ],
            {"layers.*": ["layers.%"]},
            id="in turn, where configs decide which layers",
        ),
    ],
)
def test_builds_agree_on_patterns_of_ties(builds, patterns):
    assert agreed([tie_pairs(ties, names) for ties, names in builds]) == patterns


@pytest.mark.parametrize(
    ("name", "target", "source", "partner"),
    [
        pytest.param("head.weight", "head.weight", "embed.weight", "embed.weight", id="itself"),
        pytest.param("a.patch.w", "a.patch", "patch", "patch.w", id="below a module"),
        pytest.param("a.patches.w", "a.patch", "patch", None, id="names end at a dot"),
        pytest.param("d.3.w", "d.*", "e.*", "e.3.w", id="the target's index"),
        pytest.param("box.2.q", "box.*", "box.0", "box.0.q", id="a fixed source"),
        pytest.param("box.q", "box.*", "box.0", None, id="no index"),
    ],
)
def test_a_pattern_leads_from_a_name_to_its_partner(name, target, source, partner):
    assert matched(name, target, source) == partner


@pytest.mark.parametrize(
    ("ties", "names", "holds"),
    [
        pytest.param({"head.weight": "embed.weight"}, {"head.weight", "embed.weight"}, True, id="tied"),
        pytest.param({}, {"head.weight", "embed.weight"}, False, id="both there, not tied"),
        pytest.param({}, {"embed.weight"}, None, id="no head: says nothing"),
    ],
)
def test_whether_a_build_has_the_ties(ties, names, holds):
    assert ties_hold("head.weight", "embed.weight", ties, names) is holds


def test_declared_modules_become_parameters_and_absent_sources_go():
    names = {"a.patch.w", "patch.w", "head.weight"}
    assert expanded([("a.patch", "patch"), ("head.weight", "embed.weight")], names) == {"a.patch.w": "patch.w"}
