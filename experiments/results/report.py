"""The report of a comparison: Markdown tables around the figures."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.config.protocols import find_protocol
from experiments.config.run import RunConfig
from experiments.files import write_whole
from experiments.methods.registry import find_method
from experiments.results.labels import COLORS, label
from experiments.results.summary import Row, summarize
from experiments.results.table import grid
from experiments.training.compare import Comparison
from experiments.training.metrics import AVERAGES
from experiments.training.numerics import environment

SHARED = """\
Unseen concepts: images of the unseen domain that show what was trained on in no domain. All
images: also those that show what was trained on in another domain."""

NOT_SHARED = """\
Unseen domain: all images of it; no domain shows what another one does."""

LEGEND = """\
In-domain: the held-out parts of the source domains. More is better. All are means over the
unseen domains at the last step: nothing was selected. Beside them the paired difference to
the first method, seed by seed, with its 95 % interval. Not told apart: it may be chance, at
5 % for all methods together (Holm). Loss spread: standard deviation over the source domains
of the training loss, mean of the last logged steps. Gradients: steps times gradients of a
whole batch per step."""

FIGURE = """\
![Differences in accuracy](accuracy.png)

Accuracy less that of the first method, on all unseen domains and on each: the mean with its
95 % interval and, of few methods, a dot per seed."""

SELECTION = """\
Accuracy on the scored part of the unseen domain (`python -m experiments table` prints it):
where the domains share concepts the unseen concepts, else DomainBed's 80 %, which the
papers report. Training-domain validation: the checkpoint with the best mean accuracy on the
held-out parts of the source domains. Oracle: chosen by what is not scored of the unseen
domain, among the last checkpoints alone, so it differs from the last step only between
several configurations. SWAD: weights averaged over the loss valley. BMA: over all steps,
the first and the last the most."""

OPEN_CLASSES = """\
Some classes are new: no image of them was trained on. Base, new and total are told among
all classes, as Table 3 of Zhang et al., ICLR 2024; within: among base or new ones alone;
harmonic: 2 base new / (base + new). All images of the unseen domain, means over the domains
that have images of the half; differences to the first method are in total too."""

Column = tuple[str, Callable[[Row], str]]
METHOD: Column = ("method", lambda row: label(row.method))
IN_DOMAIN: Column = ("in-domain %", lambda row: row.in_domain.percent())


def write_report(comparison: Comparison, out: Path, command: str) -> list[Row]:
    """Writes `report.md` and its PNGs; curves only for as many methods as have a colour.

    Args:
      comparison: to report.
      out: the folder.
      command: that makes the numbers again.

    Returns:
      The rows of the table.
    """
    from experiments.results import figures  # late: Matplotlib takes every command a second

    rows = summarize(comparison.records)
    if len(rows) > len(COLORS):
        figures.ranking(rows, out / "accuracy.png")
    elif rows:
        methods, unseen = _trained(rows), list(rows[0].scores)
        if len(rows) > 1:
            figures.differences(rows, out / "accuracy.png")
        if methods:
            figures.spread(comparison.curves, methods, unseen, out / "spread.png")
            figures.convergence(comparison.curves, methods, unseen, out / "convergence.png")
    write_whole(out / "report.md", _markdown(comparison, rows, command))
    return rows


def _trained(rows: Sequence[Row]) -> list[str]:
    """Methods that have training losses; zero-shot has none."""
    return [row.method for row in rows if row.loss_spread]


def headline(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of the main table.

    How long a step took is not among them: runs that follow one another on a machine with
    other work cannot be compared in time; `benchmarks` interleaves steps.
    """
    less: Column = (
        f"less {label(rows[0].method)} (points)",
        lambda row: row.difference.points() if row.difference else "",
    )
    gradients: Column = (
        "gradients",
        lambda row: f"{row.steps} x {row.gradients_per_step:.2f}" if row.steps else "0",
    )
    if rows[0].halves:
        halves = [_half_column("last_step", half) for half in ("base", "new", "total")]
        return (METHOD, *halves, less, IN_DOMAIN, gradients)
    spread: Column = (
        "loss spread",
        lambda row: row.loss_spread.plain() if row.loss_spread else "",
    )
    shared = _share_concepts(rows)
    scored = "unseen concepts %" if shared else "unseen domain %"
    whole: Column = ("all images %", lambda row: row.out_of_domain.percent())
    return (
        METHOD,
        (scored, lambda row: row.unseen_concepts.percent()),
        less,
        *([whole] if shared else []),
        IN_DOMAIN,
        spread,
        gradients,
    )


def _share_concepts(rows: Sequence[Row]) -> bool:
    """Whether some images of an unseen domain show what was trained on in another one."""
    return any(row.unseen_concepts != row.out_of_domain for row in rows)


def verdict(rows: Sequence[Row]) -> str:
    """What the differences to the first method tell, in a line; empty of one method."""
    first = label(rows[0].method)
    told: dict[str, dict[str, float]] = {
        "above": {},
        "below": {},
        "not told apart from": {},
    }
    for row in rows:
        if row.difference:
            mean = row.difference.estimate.mean
            way = "above" if mean > 0 else "below"
            way = way if row.difference.told_apart else "not told apart from"
            told[way][label(row.method)] = 100 * mean
    parts = [f"{way} {first}: {_listed(means)}" for way, means in told.items() if means]
    found = "; ".join(parts)
    return (
        f"{found[0].upper()}{found[1:]} (points on unseen domains, at the last step)."
        if found
        else ""
    )


def _listed(means: dict[str, float]) -> str:
    """Each with its difference; of more than have a colour, how many they are."""
    if len(means) > len(COLORS):
        least, most = min(means.values()), max(means.values())
        return f"{len(means)} methods, {least:+.1f} to {most:+.1f}"
    return ", ".join(f"{name} {mean:+.1f}" for name, mean in means.items())


def unfinished(comparison: Comparison, rows: Sequence[Row]) -> str:
    """What the means leave out, for runs of it did not finish; empty where nothing is."""
    failed = [config for config, _ in comparison.failures]
    found = {row.method: row.seeds for row in rows}
    if not failed or not rows:
        return ""
    fewer = []
    for name in dict.fromkeys(config.method_name for config in failed):
        asked = {c.seed for c in comparison.configs if c.method_name == name}
        if found.get(name, 0) < len(asked):
            fewer.append(f"{label(name)} {found.get(name, 0)} of {len(asked)}")
    domains = dict.fromkeys(c.unseen for c in failed if c.unseen not in rows[0].scores)
    first = comparison.configs[0].method_name
    said = []
    if fewer:
        said.append(
            "A seed counts where its runs finished on every unseen domain, and so there "
            f"are fewer seeds of some methods: {', '.join(fewer)}."
        )
    if domains:
        said.append(
            f"Of {', '.join(domains)} no run finished; the means are of the others."
        )
    if first not in found:
        said.append(
            f"Of {label(first)} there is none, and the differences are to "
            f"{label(rows[0].method)} in its place."
        )
    return " ".join(said)


def _half_column(rule: str, half: str) -> Column:
    def cell(row: Row) -> str:
        found = row.halves.get(rule, {}).get(half)
        return found.percent() if found else ""

    return f"{half.replace('_', ' ')} %", cell


def _open_classes(rows: Sequence[Row]) -> list[str]:
    """A table for each selection rule of base, new and all classes."""
    rules = dict.fromkeys(rule for row in rows for rule in row.halves)
    if not rules:
        return []
    parts = ["## Open classes", OPEN_CLASSES]
    for rule in rules:
        halves = next(row.halves[rule] for row in rows if rule in row.halves)
        columns = [METHOD, *(_half_column(rule, half) for half in halves)]
        there = [row for row in rows if rule in row.halves]
        parts += [f"{_rule_name(rule)}:", _table(columns, there)]
    return parts


def _rule_name(rule: str) -> str:
    return rule.upper() if rule in AVERAGES else rule.replace("_", " ").capitalize()


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    names, cells = zip(*columns, strict=True)
    return grid(names, [[cell(row) for cell in cells] for row in rows])


def _domain_columns(rows: Sequence[Row]) -> list[Column]:
    def column(domain: str) -> Column:
        return domain, lambda row: row.by_domain[domain].percent()

    average: Column = ("average", lambda row: row.unseen_concepts.percent())
    worst: Column = ("worst", lambda row: row.worst_domain[0])
    names = [column(domain) for domain in rows[0].scores]
    return [METHOD, *names, average, worst]


def _selection_columns(rows: Sequence[Row]) -> list[Column]:
    def column(rule: str) -> Column:
        return (
            _rule_name(rule),
            lambda row: row.selected[rule].percent() if rule in row.selected else "",
        )

    rules = dict.fromkeys(rule for row in rows for rule in row.selected)
    if not rules:  # of records that do not say what is not trained on of a checkpoint
        return []
    return [METHOD, *(column(rule) for rule in rules)]


def _markdown(comparison: Comparison, rows: list[Row], command: str) -> str:
    parts = [f"# {comparison.configs[0].data}: leave one domain out"]
    if rows:
        parts += [_what_was_done(comparison, rows), *_tables(rows)]
    if _trained(rows) and len(rows) <= len(COLORS):
        parts.append(CURVES)
    if comparison.failures:
        parts += [
            "## Runs that did not finish",
            "\n".join(f"- `{config.name}`: {why}" for config, why in comparison.failures),
        ]
    return "\n\n".join([*parts, *_how_it_was_made(comparison, command)]) + "\n"


def _what_was_done(comparison: Comparison, rows: Sequence[Row]) -> str:
    noise = 100 * comparison.configs[0].preset.label_noise
    said = [
        comparison.about,
        f"{noise:.0f} % of the training labels are wrong." if noise else "",
        "Each method is trained on all domains but one and tested on that one; "
        f"seeds: {rows[0].seeds}; mean ± standard deviation over seeds.",
        unfinished(comparison, rows),
    ]
    return " ".join(sentence for sentence in said if sentence)


def _tables(rows: Sequence[Row]) -> list[str]:
    selected = _selection_columns(rows)
    shared = _share_concepts(rows)
    scored = "unseen concepts" if shared and not rows[0].halves else "all images"
    told = verdict(rows)
    return [
        *([f"**{told}**"] if told else []),
        _table(headline(rows), rows),
        f"{SHARED if shared else NOT_SHARED}\n{LEGEND}",
        *([FIGURE] if len(rows) > 1 else []),
        *_open_classes(rows),
        "## By unseen domain",
        f"Accuracy in % on {scored} of each domain, when it was the one left out.",
        _table(_domain_columns(rows), rows),
        *(["## By selection rule", SELECTION, _table(selected, rows)] if selected else []),
    ]


CURVES = """\
## Do the domains converge alike?

![Spread of the domain losses](spread.png)

Above how far the losses of the source domains lie apart, their standard deviation, under
the first method; below that of the others divided by it, seed by seed: under 1 they lie
closer together.

![Convergence of the source domains](convergence.png)

The training loss of each source domain: means over the runs that are trained on it."""


def _how_it_was_made(comparison: Comparison, command: str) -> list[str]:
    machine = environment()
    commits = ", ".join(sorted({r["commit"] for r in comparison.records})) or "none"
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    values = {c.method: c.hyperparameters for c in comparison.configs}
    methods = [(find_method(name), chosen) for name, chosen in values.items()]
    return [
        "## How it was made",
        f"    {command}",
        f"Commit {commits}; {machine['processor']}, {machine['cpu_count']} CPUs, "
        f"{machine['device_count']} {machine['device']['kind']} device(s); {packages}.",
        *_protocols(comparison.configs),
        "\n".join(
            f"- {label(method.name)}: "
            + ", ".join(f"{name} {getattr(chosen, name)}" for name in method.reads)
            for method, chosen in methods
            if method.reads
        ),
    ]


def _protocols(configs: Sequence[RunConfig]) -> list[str]:
    """A paragraph for the training of each tuning; of later ones what they differ in."""
    parts, first = [], {}
    for config in {c.preset.tuning: c for c in configs}.values():
        _, protocol = find_protocol(config.data, config.protocol)
        own = dataclasses.asdict(config.preset)
        said = {k: v for k, v in own.items() if k not in first or first[k] != v}
        parts.append(
            f"Protocol {config.protocol}: {protocol.reference}. "
            + ", ".join(f"{name} {value}" for name, value in said.items())
            + "."
        )
        first = first or own
    return parts
