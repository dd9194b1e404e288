"""Print every measured claim in benchmarks/results, with its goal; exit 1 if one of them does not hold.

A results file is a JSON object with a list `claims` of `{name, issue, value, goal, holds}`.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Claim(NamedTuple):
    name: str
    issue: int
    value: str
    goal: str
    holds: bool
    source: str


def read(folder: Path) -> list[Claim]:
    return [
        Claim(claim["name"], claim["issue"], str(claim["value"]), str(claim["goal"]), claim["holds"], file.name)
        for file in sorted(folder.glob("*.json"))
        for claim in json.loads(file.read_text())["claims"]
    ]


def main() -> int:
    claims = read(RESULTS)
    table = Table(title=f"{len(claims)} claims in {RESULTS.relative_to(RESULTS.parents[1])}")
    for heading in ("issue", "claim", "value", "goal", "holds", "measured in"):
        table.add_column(heading, overflow="fold")
    for claim in sorted(claims, key=lambda claim: claim.issue):
        verdict = "[green]yes[/green]" if claim.holds else "[red]no[/red]"
        table.add_row(str(claim.issue), claim.name, claim.value, claim.goal, verdict, claim.source)
    Console().print(table)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
