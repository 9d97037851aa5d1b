"""The log-likelihood of a simulation that a collection in PEtab's format has beside its data.

    python -m benchmarks.petab_simulated MEASUREMENTS.tsv SIMULATION.tsv

for normal noise whose sizes are numbers in the table of measurements; and which data it hangs on. Nothing is solved, and nothing of
adjode is used: a published value can be told from what the files say.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

SAME = ["observableId", "simulationConditionId", "time"]
SHOWN = 3


def terms(measurements: pd.DataFrame, simulation: pd.DataFrame) -> pd.DataFrame:
    """A row for each measurement, with the simulation and the logarithm of its density, the least likely first."""
    both = measurements.merge(simulation[[*SAME, "simulation"]], on=SAME, validate="one_to_one")
    if len(both) != len(measurements):
        raise ValueError(f"{len(measurements) - len(both)} of {len(measurements)} measurements have no simulation.")
    sigma = both["noiseParameters"].astype(float)
    off = (both["measurement"] - both["simulation"]) / sigma
    both["log_density"] = -0.5 * off**2 - np.log(sigma) - 0.5 * np.log(2.0 * np.pi)
    return both.sort_values("log_density")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs=2, metavar="FILE", help="of measurements, and of simulated data")
    found = terms(*(pd.read_csv(path, sep="\t") for path in parser.parse_args().tables))
    print(f"log-likelihood: {found['log_density'].sum():.9g}")
    print(found[[*SAME, "measurement", "noiseParameters", "simulation", "log_density"]].head(SHOWN).to_string(index=False))


if __name__ == "__main__":
    main()
