"""A sweep is planned: it is seen to be possible before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.run import make_config
from experiments.config.space import find_space
from experiments.data import DomainData
from experiments.data.opening import Where
from experiments.data.prepare import Prepared
from experiments.fields import check_at_least
from experiments.runs.sweep import Sweep
from experiments.training.numerics import environment
from experiments.training.parts import check_parts


def make_sweep(
    data: DomainData | Prepared,
    where: Where,
    *,
    methods: Sequence[str],
    draws: int,
    trials: int,
    unseen: Sequence[str] = (),
    pairs: bool = False,
    space: str = "domainbed",
    protocol: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    command: str = "",
) -> Sweep:
    """The plan of a sweep, seen to be possible before anything is trained.

    Args:
      data: that is trained on.
      where: its images are.
      methods: names in `METHODS`.
      draws: at least 1, the default among them.
      trials: at least 1.
      unseen: domains; none are all.
      pairs: whether to add the runs that leave-one-domain-out selection needs.
      space: name or file; see `find_space`.
      protocol: of the data set; None is its first.
      overrides: fields of every run, which are not drawn.
      command: that asks for it.

    Returns:
      The sweep.

    Raises:
      ValueError: something is unknown, or out of range, or the data is not enough.
    """
    check_at_least("draws", draws, 1)
    check_at_least("trials", trials, 1)
    for name in unseen:
        data.domain_index(name)
    if pairs and len(data.domains) < 3:
        raise ValueError(
            f"pairs needs a domain to train on beside the two left out; {data.name} has "
            f"{len(data.domains)} domains. Leave --pairs out."
        )
    fixed = {name: value for name, value in (overrides or {}).items() if value is not None}
    configs, drawn = {}, {}
    for method in methods:
        config = make_config(
            data=data.name,
            method=method,
            unseen=data.domains[0],
            seed=0,
            protocol=protocol,
            data_fingerprint=data.fingerprint,
            overrides=fixed,
        )
        found = find_space(space, config, fixed=frozenset(fixed))
        found.check(draws)
        configs[method] = dataclasses.asdict(config)
        drawn[method] = [
            [found.draw(draw, trial) for draw in range(draws)] for trial in range(trials)
        ]
    sweep = Sweep(
        data=data.name,
        where=_given(where),
        domains=list(data.domains),
        unseen=[name for name in data.domains if not unseen or name in unseen],
        pairs=pairs,
        draws=draws,
        trials=trials,
        space=space,
        methods=configs,
        drawn=drawn,
        command=command,
        commit=environment()["commit"],
    )
    for run in sweep.runs.values():
        if run.method == methods[0]:  # the others are trained on the same parts
            check_parts(sweep.config(run), data)
    return sweep


def _given(where: Where) -> dict[str, Any]:
    """The fields that are not at their defaults; a folder by its whole path."""
    return {
        field.name: str(value.resolve()) if isinstance(value, Path) else value
        for field in dataclasses.fields(where)
        if (value := getattr(where, field.name)) != field.default
    }
