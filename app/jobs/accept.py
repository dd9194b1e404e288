"""Content negotiation between the two forms of a report (RFC 9110, section 12.5.1)."""


def prefers_html(accept: str) -> bool:
    """Whether an Accept header ranks `text/html` above `application/json`; without a wish, JSON it is."""
    weights = dict(_weighted(item) for item in accept.split(","))
    anything = weights.get("*/*", 0.0)
    json = weights.get("application/json", weights.get("application/*", anything))
    return weights.get("text/html", weights.get("text/*", anything)) > json


def _weighted(item: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media_type, float(quality)
    except ValueError:
        return media_type, 0.0
