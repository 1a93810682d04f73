"""The stand-in Hub, for whole estimates."""

from tests.source.conftest import hub as hub
