"""Tensors of a list's layers, loaded together, go where each would go alone."""

from __future__ import annotations

import re

import pytest

from estimator.architecture import load
from estimator.architecture.choose import choose
from estimator.architecture.class_lookup import lookup_for
from tests.architecture.test_build import CASES, checkpoint_of, read


@pytest.mark.parametrize("renamed", [False, True], ids=["as stored", "without the first part of each name"])
@pytest.mark.parametrize("beyond", [False, True], ids=["its layers", "layers beyond its own"])
@pytest.mark.parametrize("case", CASES)
def test_layers_together_go_where_each_goes_alone(case, beyond, renamed, monkeypatch):
    truth = read(case)
    facts = choose(truth["config"], None)
    tensors = dict(checkpoint_of(truth).tensors)
    if beyond:
        names = {name: re.sub(r"(?<=\.)0(?=\.)", "900", name, count=1) for name in tensors}
        tensors |= {names[name]: tensor._replace(name=names[name]) for name, tensor in tensors.items()}
    if renamed:
        tensors = {
            short: tensor._replace(name=short) for name, tensor in tensors.items() if (short := name.partition(".")[2])
        }
    lookup = lookup_for(truth["config"], facts)
    together = load.load(tensors, facts, lookup)
    monkeypatch.setattr(load, "_run", lambda *_: {})
    alone = load.load(tensors, facts, lookup)
    assert list(together.parameters.items()) == list(alone.parameters.items())
    assert together.unexpected == alone.unexpected
