"""docs/results.md says what the results files say."""

import json

from benchmarks import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text() == page.render(page.RESULTS), "run: python -m benchmarks.page"


def test_every_claim_stands_on_the_page() -> None:
    files = sorted(page.RESULTS.glob("*.json"))
    text = page.render(page.RESULTS)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [file.stem for file in files]
    claims = [claim for file in files for claim in json.loads(file.read_text())["claims"]]
    assert claims
    for claim in claims:
        assert page.claim_row(claim) in text.splitlines()
