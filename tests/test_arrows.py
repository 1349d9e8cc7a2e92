"""Imports point one way, from room to room; docs/architecture.md draws them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each line may import from those below it, and not from its own.
EXPERIMENTS = (
    ("cli",),
    ("studies",),
    ("results",),
    ("runs",),
    ("training",),
    ("config",),
    ("methods", "data"),
    ("models", "devices"),
    ("files",),
    ("fields",),
)
DISAM_JAX = (
    ("testing",),
    ("diagnostics",),
    ("wrappers", "methods", "nnx"),
    ("sharpness",),
    ("step",),
    ("domains", "combinations", "perturbations", "objectives", "when"),
    ("evaluation",),
    ("passes",),
    ("rules",),
    ("hyperparameters", "composed"),
    ("trees",),
)


def rooms_imported(file, package):
    """The rooms of the package that a file imports from."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.split(".")
            if module[0] == package:
                yield from [module[1]] if module[1:] else [a.name for a in node.names]


@pytest.mark.parametrize(
    ("package", "floors"), [("experiments", EXPERIMENTS), ("disam_jax", DISAM_JAX)]
)
def test_no_arrow_points_back_up(package, floors):
    floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    entries = {entry.stem for entry in (ROOT / package).iterdir()}
    assert floor_of.keys() == entries - {"__init__", "__main__", "__pycache__", "py"}
    for room, floor in floor_of.items():
        place = ROOT / package / room
        for file in place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]:
            for other in set(rooms_imported(file, package)) - {room}:
                assert floor_of[other] > floor, f"{file.relative_to(ROOT)} -> {other}"
