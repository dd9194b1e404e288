"""The two papers on CIFAR-10 (issue 4).

    python -m benchmarks.papers random-masks      # paper 2: the best of N random masks, its own network
    python -m benchmarks.papers heuristic         # paper 1: the estimator gamma, CIFAR forms of VGG16 and ResNet34

Both need the extra `bench` and the shared folder beside the checkout, and write results/papers.json row by
row; what was stopped goes on where it was.
"""

import argparse
from typing import Any

from benchmarks import machine, paper_heuristic, paper_random_masks, results

FILE = results.FOLDER / "papers.json"
PAPERS = {"random-masks": paper_random_masks, "heuristic": paper_heuristic}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    papers = parser.add_subparsers(dest="paper", required=True)
    for name, paper in PAPERS.items():
        paper.add_arguments(papers.add_parser(name, description=paper.__doc__))
    arguments = parser.parse_args()
    kept = results.read(FILE)
    parts: dict[str, dict[str, Any]] = {name: kept.get(name, {}) for name in PAPERS}

    def keep(found: dict[str, Any]) -> None:
        parts[arguments.paper] = found
        contents = {"machine": machine.describe("onnxruntime", "torch", "numpy"), **parts}
        results.write(FILE, contents, paper_random_masks.claims(parts["random-masks"]))

    if arguments.paper == "random-masks":
        paper_random_masks.run(arguments, keep)
    else:
        paper_heuristic.run(arguments, parts["heuristic"], keep)


if __name__ == "__main__":
    main()
