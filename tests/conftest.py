"""Draws are the same on every run, however slow the machine is: `pytest --hypothesis-profile=default` draws anew."""

from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("the same draws", derandomize=True, database=None, **UNHURRIED)
settings.load_profile("the same draws")
