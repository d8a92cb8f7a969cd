"""Run every notebook of this directory from top to bottom, in its fast setting.

    python examples/run_notebooks.py [--full] [--out DIRECTORY]

The executed notebooks are written to the directory, `results/notebooks` by default.
"""

import argparse
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main():
    """Execute the notebooks; an error in a cell ends the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the setting a reader runs")
    parser.add_argument("--out", default="results/notebooks")
    arguments = parser.parse_args()
    os.environ["JAXSCI_FAST"] = "0" if arguments.full else "1"
    here = Path(__file__).parent
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(here.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": here}}
        ).execute()
        nbformat.write(notebook, out / path.name)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
