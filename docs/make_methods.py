"""Writes docs/methods.md from the code: formula, slots, cost, when to use it, reference.

python docs/make_methods.py            write it
python docs/make_methods.py --check    exit 1 if it is not what the code says
"""

import inspect
import json
import re
import sys
from pathlib import Path

import disam_jax as dj
from experiments.methods import METHODS
from experiments.results.summary import summarize
from experiments.results.table import grid

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
COSTS = ROOT / "benchmarks" / "results" / "family_cost_cpu.json"
ACCURACY = ROOT / "docs" / "results" / "emoji_styles_family" / "results.json"

GROUPS = {
    "The four that the rest is measured against": ("sam", "gsam", "sagm", "disam"),
    "Less than two gradients per step": (
        "interval_sam", "looksam", "late_sam", "rst", "ae_sam", "momentum_sam",
        "noise_sam", "dgsam", "fish", "pgrad",
    ),
    "Another eps": (
        "asam", "layerwise_sam", "linf_sam", "sam_on", "unnormalized_sam", "nuclear_sam",
        "spectral_sam", "le_sam", "fisher_sam", "zsharp", "friendly_sam", "vasso",
        "async_sam", "sampa",
    ),
    "Another use of the two gradients": (
        "gradient_norm_penalty", "wsam", "wsam_decoupled", "stable_sam", "functional_sam",
    ),
    "More points": ("multi_step_sam", "bilateral_sam", "cr_sam", "gam", "tilted_sam"),
    "In place of an optimizer, or with its state": ("bsam", "sassha", "genie"),
}  # fmt: skip


def costs() -> dict[str, dict[str, dict]]:
    """Model -> method -> its record in the benchmark."""
    found: dict[str, dict[str, dict]] = {}
    for record in json.loads(COSTS.read_text())["records"]:
        found.setdefault(record["model"], {})[record["method"]] = record
    return found


def parts_of(name: str) -> dict[str, str]:
    """The docstring of a method: first line, text, slots, when, reference."""
    doc = inspect.getdoc(getattr(dj, name)) or ""
    head, _, rest = doc.partition("\n\n")
    text = rest.partition("Example:")[0]
    found = {"head": head, "slots": "", "when": "", "text": []}
    for paragraph in filter(None, (p.strip() for p in text.split("\n\n"))):
        for key in ("Slots", "When"):
            if paragraph.startswith(f"{key}: "):
                found[key.lower()] = _line(paragraph.removeprefix(f"{key}: "))
                break
        else:
            found["text"].append(_line(paragraph))
    found["text"] = "\n\n".join(found["text"])
    found["reference"] = _line(doc.partition("References:\n")[2])
    return found


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _call(name: str) -> str:
    parameters = inspect.signature(getattr(dj, name)).parameters.values()
    shown = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return f"dj.{name}({', '.join(shown)})"


UNMEASURED = {"late_sam": "1, then 2"}  # it has one of two costs, and no mean of them


def _cost_table() -> str:
    found = costs()
    models = list(found)
    columns = ["method", "gradients per step", "operations / ERM's"]
    columns += [f"time / ERM's: {models[0]}", *models[1:]]
    columns += [
        "unseen concepts %, 800 gradients",
        "less ERM (points)",
        "DISAM's objective",
    ]
    lines = []
    rows = {row.method: row for row in summarize(_accuracies()["records"])}
    for name, method in METHODS.items():
        records = [found[model].get(name) for model in models]
        row = rows.get(name)
        first = records[0]
        cells = [
            f"{r['time_ratio']:.2f} ({r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f})"
            if r
            else UNMEASURED.get(name, "")
            for r in records
        ]
        operations = f"{first['flops_ratio']:.2f}" if first else UNMEASURED.get(name, "")
        # AE-SAM's is what the data made of it here.
        gradients = method.gradients(method.defaults, 3)
        told = "by the data" if name == "ae_sam" else f"{gradients:.2f}"
        told_apart = row and row.difference
        difference = told_apart.estimate.interval("+.1f", 100) if told_apart else ""
        accuracies = row.unseen_concepts.percent() if row else "", difference
        lines.append(
            [f"`{name}`", told, operations, *cells, *accuracies, _takes_objective(name)]
        )
    return grid(columns, lines)


def _accuracies() -> dict:
    return json.loads(ACCURACY.read_text())


def _experiments_table() -> str:
    lines = []
    for name, method in METHODS.items():
        values = ", ".join(f"{key} {getattr(method.defaults, key)}" for key in method.reads)
        lines.append((f"`{name}`", method.description, values))
    return grid(("name", "is", "hyperparameters"), lines)


def _takes_objective(name: str) -> str:
    if name.startswith("disam"):
        return "is one"
    of_sam = ("part_sam", "ksam", "adaptive_sam", "polyak_sam")
    makers = dict.fromkeys(of_sam, "sam")
    make = getattr(dj, makers.get(name, name), None)
    if make is None:  # a slot of it is taken
        return "no"
    if name == "momentum_sam":
        return "`one_pass(..., ascent=...)`, 1.67"
    takes = "ascent" in inspect.signature(make).parameters
    return "`ascent=`" if takes else "no"


HEAD = """\
# Methods

<!-- Written by docs/make_methods.py from the code; edit the docstrings instead. -->

Every method is a value made of parts: the ascent objective, the perturbation, the descent objective and the combination
([the idea](idea.md)); some leave steps out (`when`), or are steps of their own (`method_from_step`). Most take `mask`, `ascent` and `descent`, so DISAM's objective
`dj.variance_penalized(lam)` goes into most of them, and all take what `update` takes: micro-batches, devices, loss
scale, float16 ([scaling](scaling.md), [precision](precision.md)).

## What they cost

Gradients of the whole batch per step at [the experiments' default hyperparameters](#by-name-in-the-experiments), which for
momentum SAM, l-inf SAM, GSAM and a few more are not the library's (3 source domains), compiled operations and time beside
ERM's: median and quartiles of interleaved rounds, over whole periods where a method leaves ascents out. Then the accuracy
on the unseen style of `emoji_styles`, on concepts that were trained on in no style, mean and standard deviation over 3
seeds, where every run may take 800 gradients of a batch: ERM 800 steps, SAM 400, GAM 200; and what it is above ERM's, paired
by seed, with its 95 % interval, which is of one method alone. Nothing was tuned.

"""

CONVOLUTIONS = """\
!!! warning "Convolutions on a CPU"
    What leaves ascents out (`when=`, `ae_sam`) does so in a conditional, and XLA for the CPU runs convolutions inside
    conditionals about 25 times slower, as it does inside loops: a step of `interval_sam` on the small ResNet took 2.2 s
    where SAM's took 0.11 s. There, take `part_sam` or a one-pass method. On an accelerator this was not measured.
"""

FINDINGS = """\
What the accuracies say, of a small network (PatchNet, from scratch) trained for few steps:

- Three seeds tell none of the 60 methods apart from ERM, all together (Holm), not even those that fail. Of any other a
  difference of a few points either way may be chance; no interval lies above 0.
- Three fail at their default hyperparameters, and tell the most frequent class or little more: LookSAM, with and without DISAM,
  whose alpha of 0.7 makes of the orthogonal part about ten times what it is at so small a rho (the cosine of the two
  gradients is 0.999), and bilateral SAM with a constant lower radius.
- The means of what brings a rate or an optimizer of its own, which nobody tuned, are 5 to 13 points below ERM's: GENIE,
  bSAM, SASSHA and Polyak's step.
- On all images of the unseen style, four fifths of which show concepts that were trained on in other styles, what else spends
  two gradients a step, and so takes half of ERM's steps, has means 2 to 5 points below ERM's (WSAM and the layer-wise form 11);
  on unseen concepts they are between 1.1 and 3.7 below (theirs 8.3 and 7.6). How much of the difference is memory three seeds
  cannot tell.
- Of one gradient a step, group DRO, the masks, Agr-Sum, PCGrad, GGA-L, Fish and PGrad have means between 1.0 below and 0.7
  above ERM's.
  AND-mask and SAND-mask are one mask here, to the last digit: the signs of three domains agree in all or in a third, and
  where gradients vary so little SAND-mask's edge is a step.
- The cost of AE-SAM and of late SAM was counted as 1.5 and took 1.41 (it ascended in 41 % of the steps) and 1.62 (its start
  is a step, not a share of the run).
"""

NOT_HERE = """\
## What is not here, and why

| method | why |
|---|---|
| R-SAM (Liu et al., NeurIPS 2022) | fits `method_from_step` (noise, then an ascent from the noisy point); its exact form could not be verified, and `noise_sam` is another method |
| ESAM (Du et al., ICLR 2022) | its choice of examples needs the losses at w + eps before the second gradient; `ksam` chooses at w. A `perturbed_loss_fn` that ranks its own examples is ESAM's second half |
| Sparse SAM, Eigen-SAM, X-SAM | a mask or an eigenvector that is refreshed every so often by passes of another kind |
| Universal SAM (ICML 2024) | derivatives of the loss along random directions in place of eps: fits `method_from_step`; nobody has asked for it |
| Focal-SAM (ICML 2025) | SAM with a weight for each class: give the classes as domains, and objectives with those weights as `ascent` and `descent` |
| Flat-LoRA (ICML 2025) | moves frozen weights, and eps is of what is trained: it belongs into `loss_fn` |
| GGA (CVPR 2025) | 250 random moves of the weights at each step of a short phase; its other form, GGA-L, is `erm(descent=alignment_noise())` |
| Lookbehind-SAM | interpolates weights after several inner steps: an optimizer around this one |
| SAF, MESA, UDIM | a term of the loss, not a step: add it to `loss_fn` |
| FAD (ICCV 2023) | no code was found, and its formula could not be read: nothing that a port could be checked by. `gam` is of its kind, zeroth and first order of flatness |
| MeCAM (arXiv 2412.11542) | the same: three terms, SAM's gap and meta-learning's beside the loss, whose exact form was not to be had; the code that was promised was not found |
"""


def page() -> str:
    """The whole page."""
    machine = json.loads(COSTS.read_text())["environment"]
    lines = [HEAD + _cost_table(), ""]
    lines.append(
        f"`python -m benchmarks step_cost --family --models patchnet --out {COSTS.relative_to(ROOT)}`, commit "
        f"{machine['commit']}, {machine['cpu_count']} cores of an {machine['processor']}, "
        f"jax {machine['packages']['jax']}; figure and all columns stand "
        "beside it. More time than their operations tell take what sorts, ranks or draws "
        "(ZSharp, K-SAM, noise_sam, bSAM), what turns each matrix by products of small ones "
        "(nuclear and spectral SAM), and the small batches one after another of DGSAM, Fish "
        "and PGrad. Of SASSHA the operations count the curvature, which it asks for in one "
        "step of ten; `sam_on` climbs without the gradient of the other layers.\n"
    )
    lines.append(CONVOLUTIONS)
    lines.append(
        f"Accuracies: `{_accuracies()['command']}`; commits, figure and all columns in [the "
        f"report]({ACCURACY.parent.relative_to(PAGE.parent)}/report.md).\n"
    )
    lines.append(FINDINGS)
    for title, names in GROUPS.items():
        lines.append(f"## {title}\n")
        for name in names:
            parts = parts_of(name)
            lines.append(f"### `{_call(name)}`\n")
            lines.append(f"{_line(parts['head'])}\n")
            if parts["text"]:
                lines.append(f"{parts['text']}\n")
            bullets = {"Slots": parts["slots"], "When": parts["when"]}
            lines += [f"- {key}: {value}" for key, value in bullets.items() if value]
            if name in METHODS:
                lines.append(f"- In the experiments: `{name}`")
            lines.append(f"- {parts['reference']}\n")
    lines += ["## By name in the experiments", "", _experiments_table(), "", NOT_HERE]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/methods.md is not what the code says: python docs/make_methods.py")
