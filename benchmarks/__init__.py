"""Measurements of what a step costs; results are kept as JSON with the machine named."""
