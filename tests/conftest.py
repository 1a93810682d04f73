"""Draws are the same on every run: `pytest --hypothesis-profile=default` draws anew."""

from hypothesis import settings

settings.register_profile("the same draws", derandomize=True, database=None)
settings.load_profile("the same draws")
