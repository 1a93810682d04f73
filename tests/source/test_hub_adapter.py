"""Adapters on the Hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedConfigError,
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
    OfflineError,
)
from estimator.source.find_adapter import find_adapter
from estimator.source.hub_adapter import find_adapter_on_hub
from tests.hub.checks import SHORT, TIMEOUT
from tests.hub.faults import header, refuse, say, silence
from tests.hub.handler import Fault
from tests.hub.laid_down import snapshot
from tests.hub.models import (
    OLDER,
    Repo,
    header_of,
    text_file,
    weights_file,
)
from tests.hub.standin import StandIn

LORA = {"base_model.model.q.lora_A.weight": ("F32", (8, 64)), "base_model.model.q.lora_B.weight": ("F32", (64, 8))}


def adapter(**more: object) -> Repo:
    files = {
        "adapter_config.json": text_file(json.dumps({"peft_type": "LORA", "r": 8})),
        "adapter_model.safetensors": weights_file(header_of(LORA)),
    }
    return Repo("org/adapter", files, **more)  # type: ignore[arg-type]


def test_an_adapter(hub: StandIn) -> None:
    hub.add(adapter())
    found = find_adapter_on_hub("org/adapter")
    assert found.config == {"peft_type": "LORA", "r": 8}
    (file,) = found.files
    assert file.actual_bytes == 8 + (file.header_length or 0) + 4_096
    hub.seen.clear()
    assert find_adapter_on_hub("org/adapter", offline=True) == found._replace(source="cache")
    assert hub.seen == []


def test_an_adapter_without_a_safetensors_file(hub: StandIn) -> None:
    hub.add(Repo("org/adapter", {"adapter_config.json": adapter().files["adapter_config.json"]}))
    assert find_adapter_on_hub("org/adapter").files == ()


def test_what_is_no_fault_of_the_name_keeps_its_place(hub: StandIn) -> None:
    hub.faults["resolve config"] = refuse(418)
    with pytest.raises(NetworkError) as caught:
        find_adapter("org/adapter")
    assert caught.value.where.startswith(hub.endpoint)


def test_an_adapter_downloaded_by_others(hub: StandIn, tmp_path: Path) -> None:
    snapshot(tmp_path / "cache", adapter())
    assert find_adapter_on_hub("org/adapter", offline=True).config["r"] == 8
    next(tmp_path.rglob("adapter_config.json")).write_text("{")
    with pytest.raises(OfflineError):
        find_adapter_on_hub("org/adapter", offline=True)


@pytest.mark.parametrize(
    ("route", "fault", "expected", "timeout"),
    [
        pytest.param(
            "resolve config", refuse(404, "EntryNotFound"), NotFoundError, TIMEOUT, id="a model, not an adapter"
        ),
        pytest.param("resolve config", refuse(403, "GatedRepo"), GatedError, TIMEOUT, id="gated"),
        pytest.param("cached config", say(b"[]"), MalformedConfigError, TIMEOUT, id="a list"),
        pytest.param("cached config", say(b"{"), MalformedConfigError, TIMEOUT, id="no JSON"),
        pytest.param("cached config", say(b" " * 20_000_001), MalformedConfigError, TIMEOUT, id="a config of 20 MB"),
        pytest.param("cdn", say(b"<html>"), MalformedHeaderError, TIMEOUT, id="HTML"),
        pytest.param("resolve shard", header("X-Repo-Commit", OLDER), NetworkError, TIMEOUT, id="pushed in between"),
        pytest.param("cdn", silence(60), NetworkError, SHORT, id="never answers"),
    ],
)
def test_an_adapter_goes_wrong(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError], timeout: float
) -> None:
    hub.add(adapter())
    hub.faults[route] = fault
    with pytest.raises(expected):
        find_adapter_on_hub("org/adapter", timeout=timeout)


@pytest.mark.parametrize(
    ("adapter_id", "expected"),
    [
        pytest.param("org/private", NotFoundError, id="private, or missing"),
        pytest.param("org/gated", GatedError, id="gated"),
        pytest.param("a--b", NotFoundError, id="no id"),
    ],
)
def test_an_adapter_that_is_not_shown_is_no_fault_of_its_base(
    hub: StandIn, adapter_id: str, expected: type[LoraSizeError]
) -> None:
    hub.add(replace(adapter(private=True), id="org/private"))
    hub.add(replace(adapter(gated=True), id="org/gated"))
    with pytest.raises(expected) as caught:
        find_adapter(adapter_id)
    assert caught.value.where == "--adapter"


def test_nothing_cached_of_an_adapter(hub: StandIn) -> None:
    with pytest.raises(OfflineError):
        find_adapter_on_hub("org/adapter", offline=True)


@pytest.mark.parametrize("place", ["a folder", "the Hub"])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param(b'{"r": 8, "lora_dropout": NaN}', None, id="a number that is none"),
        pytest.param(b'{"r": 8, "note": "' + b"x" * 6_000_000 + b'"}', None, id="6 MB"),
        pytest.param(b'\xef\xbb\xbf{"r": 8}', "adapter_config.json begins with a mark of the byte order", id="a mark"),
        pytest.param(b'"r"', "adapter_config.json holds a text, not an object", id="no object"),
        pytest.param(b"<html>", "adapter_config.json is a web page", id="a page"),
    ],
)
def test_a_config_is_read_as_peft_reads_it_wherever_it_lies(
    hub: StandIn, tmp_path: Path, place: str, text: bytes, what: str | None
) -> None:
    hub.add(Repo("org/adapter", {"adapter_config.json": text_file(text)}))
    (tmp_path / "adapter_config.json").write_bytes(text)
    name = "org/adapter" if place == "the Hub" else str(tmp_path)
    if what is None:
        config = find_adapter(name).config
        assert config is not None
        assert config["r"] == 8
        return
    with pytest.raises(MalformedConfigError, match=what):
        find_adapter(name)
