"""What a study trained, told by the configs of its runs: no answer goes beyond it."""

from collections.abc import Collection, Iterable
from typing import Any

import jax
import numpy as np

from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.models.registry import MODELS
from experiments.results.table import Table
from experiments.studies.kit.run import load_once
from experiments.training.pattern import pattern
from experiments.training.program import make_program, shapes

FIXED = ("data", "images", "network", "trained parameters", "optimizer", "augmentation")
VARIED = ("learning rate", "weight decay", "images of each source in a batch", "steps")
Scope = dict[str, Any]


def scope_of(configs: Collection[RunConfig]) -> list[Scope]:
    """What was trained, for each data set, network, tuning and size of the images.

    Returns:
      Mappings of `FIXED` to text and of `VARIED` to the values that there were.
    """
    kinds: dict[tuple[Any, ...], list[RunConfig]] = {}
    for config in configs:
        preset = config.preset
        kind = config.data, preset.model, preset.tuning, preset.image_size
        kinds.setdefault(kind, []).append(config)
    return [_scope(kinds[kind]) for kind in sorted(kinds)]


def _scope(configs: list[RunConfig]) -> Scope:
    first, presets = configs[0], [config.preset for config in configs]
    preset = first.preset
    data = load_once(first.data, preset.image_size)
    size = preset.image_size
    seen = "pictures and names" if MODELS[preset.model].names_classes else "ImageNet"
    pretrained = "" if preset.weights == "scratch" else f", pretrained on {seen}"
    tuned = "" if preset.tuning == "finetune" else f", {preset.tuning}"
    return {
        "data": f"{first.data}, {len(data.domains)} domains, {len(data.classes)} classes",
        "images": f"{sum(map(len, data.labels)):,} of {size} x {size} pixels",
        "network": f"{preset.model}{pretrained}{tuned}",
        "trained parameters": f"{_parameters(first, data):,}",
        "optimizer": f"{preset.optimizer}, {preset.schedule} schedule",
        "augmentation": f"shifts of up to {preset.shift} pixels"
        + (", mirrored" if data.flip else ""),
        "learning rate": sorted({p.learning_rate for p in presets}),
        "weight decay": sorted({p.weight_decay for p in presets}),
        "images of each source in a batch": sorted({p.batch_size for p in presets}),
        "steps": sorted({p.steps for p in presets}),
    }


def _parameters(config: RunConfig, data: DomainData) -> int:
    program = make_program(pattern(config), data.classes, len(data.domains) - 1)
    state, _ = shapes(program)
    return int(sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)))


def scope_table(scopes: Iterable[Scope]) -> Table:
    """A column for each; those that differ in `VARIED` alone are one."""
    merged: dict[tuple[str, ...], dict[str, set[float]]] = {}
    for scope in scopes:
        varied = merged.setdefault(tuple(scope[name] for name in FIXED), {})
        for name in VARIED:
            varied.setdefault(name, set()).update(scope[name])
    columns = [
        (*fixed, *(_several(varied[name]) for name in VARIED))
        for fixed, varied in merged.items()
    ]
    names, *rows = zip((*FIXED, *VARIED), *columns, strict=True)
    return Table("What was trained", names, rows)


def _several(values: Collection[float]) -> str:
    found = sorted(values)
    if len(found) <= 3:
        return ", ".join(f"{value:g}" for value in found)
    return f"{found[0]:g} to {found[-1]:g}"
