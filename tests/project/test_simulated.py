"""The log-likelihood of a simulation from tables alone."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")


def test_terms():
    from scipy.stats import norm

    from benchmarks.petab_simulated import terms

    key = {"observableId": ["a", "a", "b"], "simulationConditionId": ["c"] * 3, "time": [0.0, 1.0, 1.0]}
    measured = pd.DataFrame({**key, "measurement": [1.0, 2.0, 3.0], "noiseParameters": [0.1, 0.2, 0.3]})
    simulated = pd.DataFrame({**key, "simulation": [1.1, 2.0, 0.0]})
    found = terms(measured, simulated.iloc[::-1])
    expected = norm.logpdf([1.0, 2.0, 3.0], [1.1, 2.0, 0.0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(found["log_density"], np.sort(expected), rtol=1e-14)
    assert found["observableId"].iloc[0] == "b"
    with pytest.raises(ValueError, match="1 of 3 measurements have no simulation"):
        terms(measured, simulated.iloc[:2])
