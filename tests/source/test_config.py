"""What a config.json may hold."""

from __future__ import annotations

import pytest

from estimator.errors import MalformedConfigError
from estimator.source.config import parse_config


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"{}", id="nothing"),
        pytest.param(b'{"x":' * 50 + b"1" + b"}" * 50, id="nested as deep as may be"),
        pytest.param(b'{"x":[' + b"{}," * 60 + b"{}]}", id="many side by side"),
        pytest.param(b'{"hidden_size": 64, "architectures": ["LlamaForCausalLM"]}', id="a model"),
        pytest.param(b'{"time_step_limit": [0.0, Infinity]}', id="a limit of Mamba2's"),
        pytest.param(b'{"rope_theta": 1e300}', id="a large number that is no size"),
        pytest.param(b'{"hidden_size": [64, 128]}', id="a size for each layer"),
        pytest.param(b'{"quantization_config": {"dtype": 5}}', id="a dtype of a quantiser's own"),
        *(
            pytest.param(b'{"torch_dtype": "%s"}' % name.encode(), id=f"stored as {name}")
            for name in ("float8_e4m3fnuz", "half", "bfloat16", "float4_e2m1fn_x2", "uint8", "bool", "cfloat", "qint8")
        ),
        pytest.param(b'{"dtype": "float32", "torch_dtype": "auto"}', id="an older field that is not read"),
        pytest.param(b'{"text_config": {"dtype": "auto"}}', id="a dtype in an object that may be no config's"),
        pytest.param(b'{"hidden_size": 1, "hidden_size": 64}', id="a name given twice, as Python reads it"),
    ],
)
def test_a_config_that_is_read(text: bytes) -> None:
    assert isinstance(parse_config(text, where="config.json"), dict)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(b"", "config.json is empty", id="empty"),
        pytest.param(b" \n", "config.json is empty", id="blank"),
        pytest.param(b'\xef\xbb\xbf{"hidden_size": 64}', "begins with a mark of the byte order", id="a mark"),
        pytest.param(b"null", "holds null, not an object", id="null"),
        pytest.param(b"7", "holds a number, not an object", id="a number"),
        pytest.param('{"a": 1}'.encode("utf-16"), "UTF-16", id="as PowerShell writes it"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", id="an LFS pointer"),
        pytest.param(b'{"text_config":' * 51 + b"1" + b"}" * 51, "nested", id="objects in each other"),
        pytest.param(b'{"x":' + b"[" * 50 + b"]" * 50 + b"}", "nested", id="lists in each other"),
        pytest.param(b"[]", "not an object", id="a list"),
        pytest.param(b"\xff\xfe{}", "not UTF-8", id="not UTF-8"),
        pytest.param(b"\n<!DOCTYPE html><html>", "web page", id="a web page"),
        pytest.param(b'{"tie_word_embeddings": "false"}', "'false'", id="a tie in words"),
        pytest.param(b"[" * 100_000, "nested", id="nested too deeply"),
        pytest.param(b'{"a": ' + b"9" * 5_000 + b"}", "not JSON", id="a number of 5,000 digits"),
        pytest.param(b" " * 20_000_001, "over 20,000,000 bytes", id="too long"),
        pytest.param(b"[" + b"{}," * 4_000_000 + b"{}]", "in memory", id="would fill the memory"),
        pytest.param(b'{"hidden_size": "64"}', "'64'", id="a size in words"),
        pytest.param(b'{"hidden_size": true}', "True", id="yes for a size"),
        pytest.param(b'{"vocab_size": -1}', "-1", id="a negative size"),
        pytest.param(b'{"num_hidden_layers": 1e9}', "num_hidden_layers", id="a size as a float"),
        pytest.param(b'{"n_embd": 999999999999999999}', "n_embd", id="larger than any model"),
        pytest.param(b'{"intermediate_size": Infinity}', "inf", id="an infinite size"),
        pytest.param(b'{"num_key_value_heads": NaN}', "nan", id="no number of heads"),
        pytest.param(b'{"head_dim": 1e308}', "head_dim", id="a width of 308 digits"),
        pytest.param(b'{"head_dim": 1' + b"0" * 400 + b"}", "head_dim", id="a width of 401 digits"),
        pytest.param(b'{"architectures": "Llama"}', "architectures", id="a class that is in no list"),
        pytest.param(b'{"architectures": [7]}', "architectures", id="a class that is a number"),
        pytest.param(b'{"model_type": {}}', "model_type", id="a type that is an object"),
        pytest.param(b'{"torch_dtype": "torch.bfloat16"}', "'torch.bfloat16'", id="a dtype with its module before it"),
        pytest.param(b'{"dtype": "bf16"}', "dtype is 'bf16'", id="a dtype's short name"),
        pytest.param(b'{"dtype": "float-16"}', "dtype is 'float-16'", id="nearly a dtype's name"),
        pytest.param(
            b'{"dtype": "auto", "torch_dtype": "half"}', "dtype is 'auto'", id="of two, the newer one is read"
        ),
        pytest.param(b'{"torch_dtype": 5}', "torch_dtype is 5", id="a dtype that is a number"),
        pytest.param(b'{"text_config": {"dtype": 5}}', "text_config.dtype is 5", id="a section's dtype"),
        pytest.param(b'{"\\n_config": {"dtype": []}}', "_config.dtype is []", id="a dtype in a section of odd name"),
    ],
)
def test_a_config_that_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(MalformedConfigError) as refused:
        parse_config(text, where="config.json")
    assert words in refused.value.what
    assert refused.value.what.isprintable()
