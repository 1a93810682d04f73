"""A process that reads one model from a stand-in Hub, forked from a server that has imported what reading takes."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from huggingface_hub import constants

import estimator.source.online  # noqa: F401  # imported once, by the server
from estimator.checkpoint.index import to_checkpoint
from estimator.errors import LoraSizeError
from estimator.source.hub import find_on_hub

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "httpcore2", "httpx2", "truststore"])  # the latter for a session


class Reading:
    """A model that is being read in a process of its own."""

    def __init__(self, endpoint: str, folder: Path, id_: str, *, offline: bool = False) -> None:
        self._answer, answer = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(target=_read, args=(answer, endpoint, str(folder), id_, offline))
        self._process.start()
        answer.close()

    def ended(self) -> Any:
        """Revision and tensors, or the code of an error."""
        answer = self._answer.recv() if self._answer.poll(120) else "nothing"
        self._process.join()
        return answer

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self._process.kill()
        self._process.join()


def _read(answer: Connection, endpoint: str, folder: str, id_: str, offline: bool) -> None:
    constants.ENDPOINT, constants.HF_HUB_OFFLINE = endpoint, False
    constants.HF_HUB_CACHE, constants.HF_TOKEN_PATH = f"{folder}/hub", f"{folder}/token"
    try:
        found = find_on_hub(id_, offline=offline, timeout=60.0)
        answer.send([found.revision, sorted(map(str, to_checkpoint(found.files, found.index).tensors))])
    except LoraSizeError as error:
        answer.send(error.code)
