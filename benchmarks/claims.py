"""Print every measured claim in benchmarks/results, with its goal; exit 1 if one of them does not hold.

python -m benchmarks.claims
"""

import sys

from rich.console import Console
from rich.table import Table

from benchmarks import results


def main() -> int:
    claims = [(claim, name) for name, each in results.all_claims(results.FOLDER).items() for claim in each]
    table = Table(title=f"{len(claims)} claims in {results.FOLDER.relative_to(results.FOLDER.parents[1])}")
    for heading in ("issue", "claim", "value", "goal", "holds", "measured in"):
        table.add_column(heading, overflow="fold")
    for claim, name in sorted(claims, key=lambda pair: pair[0].issue):
        verdict = "[green]yes[/green]" if claim.holds else "[red]no[/red]"
        table.add_row(str(claim.issue), claim.name, claim.value, claim.goal, verdict, name)
    Console().print(table)
    return 0 if all(claim.holds for claim, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
