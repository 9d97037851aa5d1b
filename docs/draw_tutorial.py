"""Draw the figure of the tutorial by the tutorial's own code: docs/tutorial.svg.

    python -m docs.draw_tutorial

in the folder of the repository.
"""

import contextlib
import shutil
import tempfile

from docs.drawing import DOCS, plt, save
from tests.project.pages import blocks_of, run

DATA = DOCS.parent / "examples" / "data" / "hudson_bay.csv"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copy(DATA, folder)
        namespace = {}
        for block in blocks_of((DOCS / "tutorial.md").read_text()):
            run(block, namespace)
    save(plt.gcf(), "tutorial.svg")
