"""What a plan says of the length of sequences: the positions that a model has, and where no layer sees words."""

from __future__ import annotations

import pytest

from estimator.jobs.planning.plan import plan
from estimator.request.request import Request
from estimator.sizes.memory.training import Training


def test_more_tokens_than_positions_are_said() -> None:
    answer = plan(Request(model="openai-community/gpt2"), Training(sequence_length=2048))
    assert "beyond_positions" in {note.code for note in answer.notes}


@pytest.mark.parametrize(
    ("model", "architecture", "kind"),
    [
        pytest.param("google/vit-base-patch16-224-in21k", "ViTModel", "vit", id="its config names no positions"),
        pytest.param("openai/clip-vit-base-patch32", "CLIPVisionModel", "clip_vision_model", id="words' are beside it"),
        pytest.param("openai/whisper-small", "WhisperForAudioClassification", "whisper", id="those of a decoder"),
    ],
)
def test_where_no_layer_sees_words_their_number_decides_nothing(model: str, architecture: str, kind: str) -> None:
    request = Request(model=model, targets="q,v", offline=True)
    request = request._replace(set={"architectures": [architecture], "model_type": kind})
    answer = plan(request, Training(batch_size=1), 24 * 10**9)
    assert (answer.fits, answer.largest["sequence_length"]) == ("yes", None)
    assert not {"positions_unknown", "beyond_positions"} & {note.code for note in answer.notes}
    assert answer.memory == plan(request, Training(batch_size=1, sequence_length=1)).memory
