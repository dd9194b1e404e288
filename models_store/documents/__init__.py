"""Typed documents: job spec, events, inspections, report. No database, so that a client may import them."""
