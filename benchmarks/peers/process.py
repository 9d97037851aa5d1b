"""The other end of benchmarks/peers/worker.py."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.checkout import ROOT, command

_CACHES = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class WorkerError(RuntimeError):
    """A contender failed, or its process ended."""


def environment(cache: str | None) -> dict[str, str]:
    """Whatever a library keeps on disk goes to the folder `cache`, if there is one; one thread."""
    jax = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return os.environ | ({} if cache is None else dict.fromkeys(_CACHES, cache)) | ONE_THREAD | jax


class Worker:
    """A running worker for one library; use it in a `with` statement.

    Parameters
    ----------
    peer : str
    cache : path or None
        Where compiled code is kept; None leaves that to the library.
    patience : float
        Seconds that one answer may take.
    checkout : path, optional
        Whose adjode is measured, if not this one's.
    """

    def __init__(self, peer: str, cache: str | None, patience: float = 600.0, checkout: Path | None = None):
        self.peer, self.patience = peer, patience
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the worker
        self.started = time.perf_counter()
        module, folder = "benchmarks.peers.worker", checkout or ROOT
        task = command(checkout, module, "main", peer) if checkout else [sys.executable, "-m", module, peer]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(task, cwd=folder, env=environment(cache), text=True, bufsize=1, **pipes)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *ignored: Any) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises
        ------
        WorkerError
            With the contender's own message, or the last lines that a process printed before it ended.
        """
        try:
            print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], self.patience)[0]:
                self.process.kill()
                raise WorkerError(f"no answer within {self.patience:g} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise WorkerError(f"its process ended ({self.process.returncode}): {self.log.read()[-300:].strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


class Pool:
    """One worker for each library, started when it is first asked, and again where its process has ended."""

    def __init__(self, cache: str, patience: float):
        self.cache, self.patience = cache, patience
        self.workers: dict[str, Worker] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *ignored: Any) -> None:
        for worker in self.workers.values():
            worker.__exit__()

    def ask(self, peer: str, do: str, **what: Any) -> dict[str, Any]:
        worker = self.workers.get(peer)
        if worker is not None and worker.process.poll() is not None:
            worker.__exit__()
            worker = None
        if worker is None:
            worker = self.workers[peer] = Worker(peer, self.cache, self.patience)
        return worker.ask(do, **what)
