"""Faulty lines of a batch: each is answered in JSON, and none stops the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.cli.main import main


def test_one_faulty_line_never_stops_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "{",
        "[]",
        '{"id": 1, "model": 5}',
        '{"id": 2, "model": "gpt2", "lora": {"r": "8"}}',
        '{"id": 3, "model": "gpt2"}',
    ]
    (tmp_path / "requests.jsonl").write_text("\n".join(lines))
    with pytest.raises(SystemExit) as end:
        main(["batch", str(tmp_path / "requests.jsonl"), "--offline"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert end.value.code == 1
    assert codes == ["usage", "usage", "usage", "invalid_lora", None]
    assert "(line 2)" in answers[1]["error"]["message"]
    assert answers[-1]["result"]["adapter"]["parameters"] == 294_912


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param(b'{"id": NaN, "model": "gpt2"}', "usage", id="an id that is no JSON"),
        pytest.param(b'{"id": [1e400], "model": "gpt2"}', "usage", id="an id that JSON can't say"),
        pytest.param(b'{"model": "gpt2", "lora": {"lora_alpha": 1e400}}', "invalid_lora", id="an endless alpha"),
        pytest.param(b'{"model": "gpt2", "lora": {"alpha_pattern": {"a": 1e400}}}', "invalid_lora", id="one of many"),
        pytest.param(b"[" * 100_000, "usage", id="nested"),
        pytest.param(b'{"model": "no/such", "offline": false}', "offline", id="a line that would ask the network"),
        pytest.param(b'\xef\xbb\xbf{"model": "gpt2"}', None, id="a mark of the byte order"),
        pytest.param(
            b'{"model": "gpt2", "config": "\\u001b[2J\\u0000"}', "not_found", id="a path that clears the screen"
        ),
        pytest.param(b"x" * 101, "usage", id="over the limit"),
        pytest.param(b'{"model": "gpt2"}' + b" " * 1_000, "usage", id="over the limit by spaces"),
        pytest.param(b'{"model": "gpt2", "task": "seq_cls"}\r', None, id="a task in small letters, for Windows"),
    ],
)
def test_every_line_of_a_batch_is_answered_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: bytes, code: str | None
) -> None:
    monkeypatch.setattr("estimator.jobs.batch.MAX_LINE_BYTES", 100)
    (tmp_path / "requests.jsonl").write_bytes(line + b"\n" + b'{"id": 7, "model": "gpt2"}')
    with pytest.raises(SystemExit):
        main(["batch", str(tmp_path / "requests.jsonl"), "--offline"])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    first, second = (json.loads(text, parse_constant=refuse) for text in capsys.readouterr().out.splitlines())
    assert first.get("error", {}).get("code") == code
    assert first.get("error", {}).get("message", "").isprintable()
    assert len(line) <= 100 or "over 100 bytes" in first["error"]["message"]
    assert second["id"] == 7
    assert "result" in second
