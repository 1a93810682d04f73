"""What huggingface_hub's environment says: endpoint, cache, token, offline; nothing imported that is not needed."""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from estimator.errors import UsageError
from estimator.source.plain import plain
from estimator.source.redirects import origin
from estimator.source.transport import Line


class Settings(NamedTuple):
    """Where the Hub and its cache are."""

    endpoint: str  # without a slash at the end
    cache: str  # the folder of HF_HUB_CACHE
    offline: bool  # HF_HUB_OFFLINE


def hub_settings() -> Settings:
    """The settings in force. Raises UsageError where a variable holds what huggingface_hub can't read."""
    constants = _constants()
    try:
        origin(constants.ENDPOINT)
    except ValueError as error:
        what = f"{plain(constants.ENDPOINT, 100)!r} is no address of a Hub: {plain(error, 60)}."
        raise UsageError(what, where="HF_ENDPOINT", way_out="give one like https://huggingface.co") from error
    return Settings(endpoint=constants.ENDPOINT, cache=constants.HF_HUB_CACHE, offline=constants.is_offline_mode())


def open_line(endpoint: str, token: str | None, deadline: float) -> Line:
    """A line to the Hub with the token given, or else the one that huggingface_hub would use."""
    token = (token or "").strip() or _stored_token()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        way_out = "copy it again from https://huggingface.co/settings/tokens"
        raise UsageError("the token holds characters that no token has.", where="--token or HF_TOKEN", way_out=way_out)
    return Line(endpoint=endpoint, token=token, deadline=deadline, user_agent=_user_agent())


def _constants() -> Any:
    try:
        from huggingface_hub import constants
    except ValueError as error:
        what = f"huggingface_hub can't read its environment: {plain(error, 100)}."
        raise UsageError(what, where="the HF_* variables", way_out="unset the one that holds this value") from error
    return constants


def _stored_token() -> str | None:
    """The token of `hf auth login`, HF_TOKEN or a CI's exchange; huggingface_hub is asked only where one can be."""
    constants = _constants()
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    named = any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"))
    if not (named or os.path.exists(constants.HF_TOKEN_PATH) or "google.colab" in sys.modules):
        return None
    from huggingface_hub import get_token

    try:
        return get_token()
    except Exception as error:  # whatever a CI's exchange or an unreadable file brings up
        what = f"the stored token can't be read: {type(error).__name__}."
        way_out = "log in again with `hf auth login`, or set HF_TOKEN"
        raise UsageError(what, where=constants.HF_TOKEN_PATH, way_out=way_out) from error


def _user_agent() -> str:
    from huggingface_hub import __version__ as hub_version

    version = "{}.{}".format(*sys.version_info)
    return f"lora-size; hf_hub/{hub_version}; python/{version}"
