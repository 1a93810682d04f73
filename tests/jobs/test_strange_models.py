"""Whole estimates of strange models on the Hub: an answer, or one clean refusal, whatever config.json and headers say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import LoraSizeError
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.plan import plan
from estimator.report.document import to_document
from estimator.request.request import Request
from estimator.sizes.memory.training import Training
from tests.hub.models import CONFIG, TINY, Repo, data_bytes, header_of, text_file, weights_file
from tests.hub.standin import StandIn
from tests.jobs.packed import CONFIG as PACKED
from tests.jobs.packed import write

HEADER = header_of(TINY)
END = data_bytes(HEADER)
TEXT = json.dumps(CONFIG).encode()


def adapter_of(hub: StandIn, config: bytes, header: bytes | None = HEADER, data: int | None = END) -> dict[str, Any]:
    files = {"config.json": text_file(config)}
    if header is not None:
        files["model.safetensors"] = weights_file(header, data)
    hub.add(Repo("org/x", files))
    request = Request(model="org/x", online=True, timeout=8.0, lora={"target_modules": ["q_proj"]})
    document = to_document(estimate(request))
    assert json.dumps(document).isprintable()
    return document


def code_of(hub: StandIn, *what: Any) -> str:
    try:
        adapter_of(hub, *what)
        return "answered"
    except LoraSizeError as error:
        refused = error
    assert f"{refused.what}{refused.where}{refused.way_out}".isprintable()
    return refused.code


def with_(**fields: Any) -> bytes:
    return json.dumps({**CONFIG, **fields}).encode()


@pytest.mark.parametrize(
    ("config", "code"),
    [
        pytest.param(b"\xef\xbb\xbf" + TEXT, "malformed_config", id="a mark of the byte order"),
        pytest.param(TEXT.decode().encode("utf-16"), "malformed_config", id="UTF-16"),
        pytest.param(TEXT.decode().encode("utf-32"), "malformed_config", id="UTF-32"),
        pytest.param(TEXT[:-1] + b',"x":"\xe9"}', "malformed_config", id="Latin 1"),
        pytest.param(TEXT[:-1] + b',"hidden_size":64}', "answered", id="a field twice"),
        pytest.param(TEXT[:-1] + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "malformed_config", id="10,000 deep"),
        pytest.param(TEXT[:-1] + b',"x":' + b"[" * 500 + b"]" * 500 + b"}", "malformed_config", id="500 deep"),
        pytest.param(b"// model\n" + TEXT, "malformed_config", id="a comment"),
        pytest.param(TEXT.replace(b'"', b"'"), "malformed_config", id="Python's quotes"),
        pytest.param(TEXT + TEXT, "malformed_config", id="two objects"),
        pytest.param(b"\0" * 100, "malformed_config", id="zeros"),
        pytest.param(b"   ", "malformed_config", id="spaces"),
        pytest.param(with_(num_hidden_layers=10**9), "unsupported", id="a billion layers"),
        pytest.param(with_(num_hidden_layers=10**30), "malformed_config", id="more layers than atoms"),
        pytest.param(with_(num_hidden_layers=True), "malformed_config", id="yes for layers"),
        pytest.param(with_(hidden_size=float("nan")), "malformed_config", id="NaN"),
        pytest.param(with_(vocab_size=float("inf")), "malformed_config", id="Infinity"),
        pytest.param(with_(vocab_size=-1), "malformed_config", id="minus one"),
        pytest.param(with_(architectures=[None]), "malformed_config", id="a class that is null"),
        pytest.param(with_(architectures={}), "malformed_config", id="an object of classes"),
        pytest.param(with_(architectures=["../../x"]), "answered", id="a class that is a path"),
        pytest.param(with_(architectures=["\x1b[2J"]), "answered", id="a class of escape codes"),
        pytest.param(with_(model_type=["llama"]), "malformed_config", id="a list of types"),
        pytest.param(with_(auto_map={"AutoModel": "../../etc/x--y.Z"}), "answered", id="code of its own"),
        pytest.param(with_(auto_map=7), "answered", id="code that is a number"),
        pytest.param(with_(quantization_config={"quant_method": "\x1b[31m"}), "answered", id="an unknown quantiser"),
        pytest.param(with_(quantization_config={"quant_method": []}), "answered", id="a list of quantisers"),
        pytest.param(with_(text_config=[1]), "answered", id="a list for the text model"),
        pytest.param(with_(id2label=[1]), "answered", id="a list of labels"),
        pytest.param(with_(rope_scaling="x"), "malformed_config", id="a word for the scaling"),
        pytest.param(with_(layer_types=["full_attention"] * 100_000), "malformed_config", id="100,000 types of layers"),
        pytest.param(with_(**{f"k{number}": number for number in range(50_000)}), "answered", id="50,000 more fields"),
        pytest.param(with_(note="x" * 3_000_000), "answered", id="3 MB of text"),
    ],
)
def test_the_config_of_a_model_with_headers(hub: StandIn, config: bytes, code: str) -> None:
    assert code_of(hub, config) == code


@pytest.mark.parametrize("field", ["num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"])
@pytest.mark.parametrize("value", [True, -1, 64.5, "64", {}], ids=repr)
def test_shapes_do_not_come_from_a_size_that_is_none(hub: StandIn, field: str, value: object) -> None:
    assert code_of(hub, with_(**{field: value}), None) == "malformed_config"


def with_tensor(text: str, name: str = "more.weight") -> bytes:
    return HEADER.rstrip(b" ")[:-1] + b',"%s":%s}' % (name.encode(), text.encode())


def tensor(dtype: str = '"F32"', shape: str = "[4]", begin: str = str(END), end: str = str(END + 16)) -> bytes:
    return with_tensor(f'{{"dtype":{dtype},"shape":{shape},"data_offsets":[{begin},{end}]}}')


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        pytest.param(tensor(), END + 16, "answered", id="a tensor that nobody loads"),
        pytest.param(tensor(begin=str(END - 16), end=str(END)), END, "malformed_header", id="one over another"),
        pytest.param(tensor(begin=str(END + 8), end=str(END + 24)), END + 24, "malformed_header", id="a hole"),
        pytest.param(tensor(begin=str(END + 16), end=str(END)), END, "malformed_header", id="backwards"),
        pytest.param(tensor(begin="true"), END, "malformed_header", id="yes for a place"),
        pytest.param(tensor(end=str(2**64)), END, "malformed_header", id="a place of 2^64"),
        pytest.param(tensor(shape="[4.0]"), END + 16, "malformed_header", id="a dimension with a point"),
        pytest.param(tensor(shape="[-2,-2]"), END + 16, "malformed_header", id="minus two times minus two"),
        pytest.param(tensor(shape="[4294967296,4294967296]"), END, "malformed_header", id="2^64 elements"),
        pytest.param(tensor(shape="[" + "9" * 6_000 + "]"), END, "malformed_header", id="6,000 digits"),
        pytest.param(tensor(shape="[" + "1," * 50_000 + "4]"), END + 16, "answered", id="50,000 dimensions"),
        pytest.param(tensor('"f32"'), END + 16, "malformed_header", id="a dtype in small letters"),
        pytest.param(tensor("null"), END + 16, "malformed_header", id="no dtype"),
        pytest.param(tensor('"F4"', "[8]", end=str(END + 4)), END + 4, "answered", id="8 numbers of 4 bits"),
        pytest.param(tensor('"F4"', "[7]", end=str(END + 4)), END + 4, "malformed_header", id="7 numbers of 4 bits"),
        pytest.param(tensor('"F6_E2M3"', "[4]", end=str(END + 3)), END + 3, "answered", id="4 numbers of 6 bits"),
        pytest.param(tensor('"F6_E3M2"', "[3]", end=str(END + 3)), END + 3, "malformed_header", id="3 of 6 bits"),
        pytest.param(tensor('"F8_E8M0"', "[16]"), END + 16, "answered", id="exponents alone"),
        pytest.param(tensor(shape="[0]", end=str(END)), END, "answered", id="a tensor of nothing"),
        pytest.param(with_tensor("null"), END, "malformed_header", id="null for a tensor"),
        pytest.param(with_tensor("[1]"), END, "malformed_header", id="a list for a tensor"),
        pytest.param(b"\xef\xbb\xbf" + HEADER, END, "malformed_header", id="a mark of the byte order"),
        pytest.param(HEADER.rstrip(b" ") + b"\0" * 8, END, "malformed_header", id="padded with zeros"),
        pytest.param(HEADER.rstrip(b" ") + b"x", END, "malformed_header", id="more behind the object"),
        pytest.param(HEADER.replace(b"model.norm", b"model\xff.norm"), END, "malformed_header", id="no UTF-8"),
        pytest.param(HEADER.replace(b"model.norm", b"\\ud800.norm"), END, "malformed_header", id="half a letter"),
        pytest.param(HEADER.replace(b"model.norm", b"\\u001b[2J"), END, "answered", id="a name of escape codes"),
        pytest.param(HEADER.replace(b"model.norm", "\u202enorm".encode()), END, "answered", id="text turned around"),
        pytest.param(HEADER.replace(b"model.norm", b"../../etc/x"), END, "answered", id="a name that is a path"),
        pytest.param(HEADER.replace(b"model.norm", b"a." * 99_000), END, "malformed_header", id="99,000 parts"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 0, "malformed_header", id="10,000 deep"),
        pytest.param(b"{}", 0, "malformed_header", id="no tensors"),
        pytest.param(b"[]", 0, "malformed_header", id="a list"),
        pytest.param(b"null", 0, "malformed_header", id="null"),
    ],
)
def test_a_strange_header_is_refused_by_its_code(hub: StandIn, header: bytes, data: int, code: str) -> None:
    assert code_of(hub, TEXT, header, data) == code


def test_a_convolution_of_no_dimensions_is_refused(hub: StandIn) -> None:
    """Mamba's has as many groups as its weight has rows."""
    config = json.dumps({"model_type": "mamba", "architectures": ["MambaForCausalLM"], "num_hidden_layers": 1})
    header = header_of({"backbone.layers.0.mixer.conv1d.weight": ("F32", [])})
    assert code_of(hub, config.encode(), header, 4) == "malformed_header"


def test_a_norm_of_no_elements_is_planned_without(tmp_path: Path) -> None:
    hollow = {"model.layers.0.input_layernorm.weight": ("BF16", 0)}
    write(tmp_path, None, lambda out, into: {".weight": ("BF16", out, into)}, PACKED, more=hollow)
    answer = plan(Request(model=str(tmp_path), targets="qv"), Training(batch_size=1))
    assert answer.memory.device.lower > 0


@pytest.mark.parametrize("data", [END + 1_000, END - 1, 0])
def test_a_file_of_another_size_is_a_mismatch(hub: StandIn, data: int) -> None:
    document = adapter_of(hub, TEXT, HEADER, data)
    assert document["cross_check"]["status"] == "mismatch"
    (file,) = document["cross_check"]["files"]
    assert (file["expected_bytes"] - file["actual_bytes"]) == END - data


MODULES = 30  # the root and model, embedding, head and norm, the list of layers; twice a layer with 11 modules in it
UNKNOWN = with_(architectures=["Nobodys"], model_type="nobodys")


@pytest.mark.parametrize(
    ("bound", "most", "text", "code"),
    [
        pytest.param("checkpoint.index.MAX_TENSORS", len(TINY) - 1, TEXT, "malformed_header", id="tensors"),
        pytest.param("checkpoint.index.MAX_NAMES", len("".join(TINY)) - 1, TEXT, "malformed_header", id="names"),
        pytest.param("checkpoint.index.MAX_MODULES", MODULES - 1, TEXT, "malformed_header", id="modules"),
        pytest.param("checkpoint.index.MAX_MODULES", MODULES, TEXT, "answered", id="just so many modules"),
        pytest.param(
            "architecture.inference.infer._MOST_TENSORS", len(TINY) - 1, UNKNOWN, "unsupported", id="unknown tensors"
        ),
        pytest.param(
            "architecture.inference.infer._MOST_MODULES", MODULES - 1, UNKNOWN, "unsupported", id="unknown modules"
        ),
        pytest.param(
            "architecture.inference.infer._MOST_MODULES",
            MODULES,
            UNKNOWN,
            "answered",
            id="just so many unknown modules",
        ),
    ],
)
def test_more_than_a_model_has(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch, bound: str, most: int, text: bytes, code: str
) -> None:
    monkeypatch.setattr(f"estimator.{bound}", most)
    assert code_of(hub, text) == code
