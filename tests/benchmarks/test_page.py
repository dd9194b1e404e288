"""docs/results.md says what the results files say."""

from benchmarks import page


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text() == page.render(page.RESULTS), "run: python -m benchmarks.page"


def test_every_claim_stands_on_the_page() -> None:
    text = page.PAGE.read_text()
    for file in page.RESULTS.glob("*.json"):
        assert f"## {file.stem}\n" in text
        assert file.read_text().count('"holds": false') <= text.count("**no**")
