"""What the Hub's refusals mean, said with the way out.

The Hub tells apart by X-Error-Code: RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo. 401 means missing, or
private without a token that may see it. Source: huggingface_hub 2.4.0, utils/_http.py (`hf_raise_for_status`).
"""

from __future__ import annotations

import json
import time

from estimator.errors import GatedError, LoraSizeError, NetworkError, NotFoundError
from estimator.source.plain import plain
from estimator.source.retries import come_back_in
from estimator.source.transport import Answer, Line, shown

_A_DAY = 86_400  # seconds
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_missing_entry(answer: Answer) -> bool:
    """Whether the repository was there and only the file was not, or the Hub does not say which of them."""
    return answer.status == 404 and error_code(answer) in ("EntryNotFound", "")


def error_code(answer: Answer) -> str:
    """The Hub's own word for the fault, or ""."""
    return answer.headers.get("x-error-code", "") or answer.said.get("x-error-code", "")


def refusal(line: Line, answer: Answer, *, id_: str, revision: str) -> LoraSizeError:
    """The error that an answer with a status of 300 or more stands for."""
    code, status = error_code(answer), answer.status
    said = _said(line, answer)
    if code == "GatedRepo":
        return _gated(line, id_)
    if code == "RevisionNotFound":
        what = f"{id_} has no revision {plain(revision, 100)!r}."
        way_out = f"see {shown(line.endpoint)}/{id_}/refs for branches and tags"
        return NotFoundError(what, where="--revision", way_out=way_out)
    if status == 401 and "nvalid" in said:
        return GatedError(f"the Hub does not accept the token: {said}.", where=shown(line.endpoint), way_out=_LOG_IN)
    if code == "RepoNotFound" or status in (401, 404):
        return _missing(line, id_)
    if status == 403:
        what = f"the Hub denies access to {id_}: {said or '403 Forbidden'}."
        return GatedError(what, where=shown(answer.url), way_out=f"use a token that may read {id_}; {_LOG_IN}")
    if status == 429:
        return _rate_limited(answer)
    if status == 503 and (seconds := come_back_in(answer.headers)):
        return _come_back("the Hub is not to be reached for a while (status 503).", answer, seconds)
    what = f"the Hub answered with status {status}{': ' + said if said else ''}."
    return NetworkError(what, where=shown(answer.url), way_out="try again later; --offline answers from what is cached")


def _gated(line: Line, id_: str) -> GatedError:
    ask = f"ask for access at {shown(line.endpoint)}/{id_}"
    way_out = f"{ask}; the token in use has none yet" if line.token else f"{ask}, then {_LOG_IN}"
    return GatedError(f"access to {id_} is gated, and not granted here.", where="--model", way_out=way_out)


def _missing(line: Line, id_: str) -> NotFoundError:
    if line.token:
        way_out = "check the spelling; if it is private, use a token that may read it"
    else:
        way_out = f"check the spelling; if it is private, {_LOG_IN}"
    return NotFoundError(f"the Hub shows no model {id_}: it is missing, or private.", where="--model", way_out=way_out)


def _rate_limited(answer: Answer) -> NetworkError:
    what, seconds = "the Hub's rate limit is reached.", come_back_in(answer.headers)
    if seconds is not None and seconds <= _A_DAY:
        return _come_back(what, answer, seconds)
    when = "in a few minutes" if seconds is None else f"in {seconds / _A_DAY:,.0f} days"
    way_out = f"try again {when}, or log in: limits are higher with a token"
    return NetworkError(what, where=shown(answer.url), way_out=way_out)


def _come_back(what: str, answer: Answer, seconds: float) -> NetworkError:
    clock = "%H:%M:%S" if seconds <= _A_DAY else "%Y-%m-%d %H:%M"
    at = time.strftime(clock, time.localtime(time.time() + seconds))
    return NetworkError(what, where=shown(answer.url), way_out=f"try again in {seconds:,.0f} seconds (at {at})")


def _said(line: Line, answer: Answer) -> str:
    """The server's own words, on one line, without the token should it have echoed it, and without HTML."""
    words = answer.headers.get("x-error-message", "")
    if not words and answer.body[:1] == b"{":
        try:
            error = json.loads(answer.body).get("error")
            words = error if isinstance(error, str) else ""
        except (ValueError, RecursionError):
            words = ""
    return plain(line.silent(words).strip().rstrip("."), 160)
