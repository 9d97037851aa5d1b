"""What objects say in another process, which has them by cloudpickle."""

import os
import pickle
import subprocess
import sys

import cloudpickle

from tests import ROOT

SCRIPT = (
    "import pickle, sys; things = pickle.load(open(sys.argv[1], 'rb')); "
    "pickle.dump({name: say(thing) for name, (thing, say) in things.items()}, open(sys.argv[2], 'wb'))"
)


def said_elsewhere(things, folder):
    """{name: say(thing)} of {name: (thing, say)}; `folder` is one to write to."""
    given, taken = folder / "given", folder / "taken"
    given.write_bytes(cloudpickle.dumps(things))
    command = [sys.executable, "-c", SCRIPT, str(given), str(taken)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return pickle.loads(taken.read_bytes())
