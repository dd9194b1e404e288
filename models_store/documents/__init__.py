"""Typed documents: job spec, events, inspections, report. Pydantic only, so that a client may import them."""
