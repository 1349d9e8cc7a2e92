"""What a study trained, told by the configs of its runs: no answer goes beyond it."""

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from experiments.config.run import RunConfig
from experiments.devices import one_device
from experiments.results.table import Table
from experiments.studies.kit.run import load_once
from experiments.training.pattern import pattern
from experiments.training.program import init_state, make_program
from experiments.training.run import init_key

COLUMNS = (
    "data",
    "images",
    "network",
    "trained parameters",
    "optimizer",
    "batch",
    "augmentation",
    "steps",
)


def scope_of(configs: Collection[RunConfig]) -> list[dict[str, str]]:
    """A row for each data set and network, a value for each of `COLUMNS`."""
    kinds: dict[tuple[str, str, int], list[RunConfig]] = {}
    for config in configs:
        preset = config.preset
        kinds.setdefault((config.data, preset.model, preset.image_size), []).append(config)
    return [_row(kinds[kind]) for kind in sorted(kinds)]


def _row(configs: list[RunConfig]) -> dict[str, str]:
    first = configs[0]
    preset = first.preset
    data = load_once(first.data, preset.image_size)
    sources = len(data.domains) - 1
    presets = [config.preset for config in configs]
    flipped = ", mirrored" if data.flip else ""
    return {
        "data": f"{first.data}, {len(data.domains)} domains, {len(data.classes)} classes",
        "images": f"{sum(map(len, data.labels)):,} of {preset.image_size} x "
        f"{preset.image_size} pixels",
        "network": preset.model
        + ("" if preset.weights == "scratch" else ", pretrained on ImageNet"),
        "trained parameters": f"{_parameters(first, len(data.classes), sources):,}",
        "optimizer": f"{preset.optimizer}, learning rate "
        f"{_several([p.learning_rate for p in presets])} ({preset.schedule}), weight decay "
        f"{_several([p.weight_decay for p in presets])}",
        "batch": f"{_several([p.batch_size for p in presets])} of each source",
        "augmentation": f"shifts of up to {preset.shift} pixels{flipped}",
        "steps": _several([p.steps for p in presets]),
    }


def _several(values: list[float]) -> str:
    found = sorted(set(values))
    if len(found) <= 3:
        return ", ".join(f"{value:g}" for value in found)
    return f"{found[0]:g} to {found[-1]:g}"


def _parameters(config: RunConfig, classes: int, sources: int) -> int:
    program = make_program(pattern(config), classes, sources)
    state = init_state(program, init_key(config), one_device())
    return int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)))


def scope_table(scope: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    rows = [[row[name] for name in COLUMNS] for row in scope]
    return Table("What was trained", COLUMNS, rows)
