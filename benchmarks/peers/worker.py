"""A process that holds one library: it builds contenders, and times them when it is asked to.

    python -m benchmarks.peers.worker PEER

reads one JSON object a line and answers each with one line; `benchmarks.compare` starts it and speaks to it. A process of its own
for each library keeps their threads, compilers and crashes apart. It waits for a line while others are measured.

    {"do": "make", "contender": NAME, "case": NAME, "tol": x}   builds and evaluates once: gradient, seconds
    {"do": "measure", the same three, "seconds": x}             evaluates for about so long: seconds, and CPU seconds, for one
    {"do": "drop"}                                              forgets all that was built
    {"do": "memory"}                                            peak memory of this process, bytes
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from benchmarks import peers
from benchmarks.cases import Gradient, case


def peak_memory() -> int | None:
    """The largest resident set of this process; None where the system does not say."""
    try:
        with open("/proc/self/status") as lines:
            kilobytes = next(line for line in lines if line.startswith("VmHWM"))
        return 1024 * int(kilobytes.split()[1])
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Bench:
    """The contenders of one library, built on demand."""

    def __init__(self, peer: str):
        self.contenders = {one.name: one for one in peers.module(peer).contenders()}
        self.built: dict = {}

    def make(self, contender: str, case_name: str, tol: float) -> dict:
        problem = case(case_name)
        start = time.perf_counter()
        evaluate = self.contenders[contender].make(problem, tol)
        gradient: Gradient = evaluate(problem.u0, problem.theta)
        first = time.perf_counter() - start
        again = first  # where that is long, the first turn will say how much of it was compilation
        if first < 2.0:
            start = time.perf_counter()
            evaluate(problem.u0, problem.theta)
            again = time.perf_counter() - start
        self.built[contender, case_name, tol] = evaluate, again
        plain = {name: np.asarray(part, dtype=float).tolist() for name, part in gradient._asdict().items()}
        return {"gradient": plain, "seconds": first}

    def measure(self, contender: str, case_name: str, tol: float, seconds: float) -> dict:
        evaluate, estimate = self.built[contender, case_name, tol]
        problem = case(case_name)
        u0, theta = problem.u0, problem.theta
        repeats = int(seconds / max(estimate, 1e-7))
        if repeats > 1:
            self._spend(evaluate, u0, theta, 1 + repeats // 4)  # the others' turns have emptied the processor's caches
        start = time.process_time()
        spent = self._spend(evaluate, u0, theta, max(1, repeats))
        cpu = (time.process_time() - start) / max(1, repeats)
        self.built[contender, case_name, tol] = evaluate, min(estimate, spent)
        return {"seconds": spent, "cpu": cpu}

    @staticmethod
    def _spend(evaluate, u0, theta, repeats: int) -> float:
        if hasattr(evaluate, "seconds"):
            return evaluate.seconds(u0, theta, repeats)
        start = time.perf_counter()
        for _ in range(repeats):
            evaluate(u0, theta)
        return (time.perf_counter() - start) / repeats

    def answer(self, do: str, *, contender: str = "", case: str = "", tol: float = 0.0, seconds: float = 0.0) -> dict:
        if do == "make":
            return self.make(contender, case, tol)
        if do == "measure":
            return self.measure(contender, case, tol, seconds)
        if do == "drop":
            self.built.clear()
        return {"bytes": peak_memory()}


def main(peer: str) -> None:
    # libraries may print: they shall not print into the answers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bench = Bench(peer)
    for line in sys.stdin:
        try:
            answer = bench.answer(**json.loads(line))
        except Exception as problem:
            answer = {"error": f"{type(problem).__name__}: {problem}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
