"""Claims that can be wrong, and the four answers that a few seeds can give to them.

Claims of a family are answered together: the p-values of their differences, and those of
their equivalences, are adjusted by Holm, whichever way a difference points.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from experiments.results.statistics import (
    Estimate,
    detectable,
    equivalence,
    estimate,
    holm,
    p_text,
    ratio_text,
    sign_flip,
)
from experiments.studies.kit.margins import MEASURES, Measure
from experiments.studies.kit.values import Values

SEEN = "seen here"
OPPOSITE = "the opposite seen here"
NO_DIFFERENCE = "no difference that matters here"
CANNOT_TELL = "cannot be told"
ANSWERS = SEEN, OPPOSITE, NO_DIFFERENCE, CANNOT_TELL
PAPERS, OURS = "papers", "ours"
LEVEL = 0.05
MINUS = "\N{MINUS SIGN}"


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs that are compared with others.

    Attributes:
      condition: of the values.
      method: of the values.
    """

    condition: str
    method: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a measure is larger in one arm than in the other, or equal.

    Attributes:
      text: the claim as a sentence.
      source: who claims it and where, e.g. `analogue of DISAM, Table 1: 64.5 against 63.9`.
      whose: `PAPERS` or `OURS`.
      where: the setting it is tested in, in a few words.
      measure: a key of `MEASURES`.
      larger: the arm whose values are claimed to be larger.
      smaller: the other one; None is 0, of an arm that holds differences itself.
      equal: whether the claim is that they are equal.
      family: claims adjusted together have the same; empty is `where`.
      note: what else speaks for the answer, e.g. a proof.
    """

    text: str
    source: str
    whose: str
    where: str
    measure: str
    larger: Arm
    smaller: Arm | None
    equal: bool = False
    family: str = ""
    note: str = ""

    @property
    def contrast(self) -> str:
        """What is less what, e.g. `DISAM - SAM`, or divided by it, as its measure says."""
        if self.smaller is None:
            return self.larger.method
        names = [self.larger.method, self.smaller.method]
        if self.larger.condition != self.smaller.condition:
            names = [f"{a.method} ({a.condition})" for a in (self.larger, self.smaller)]
        ratio = MEASURES[self.measure].compared == "ratio"
        return f"{names[0]} {'/' if ratio else MINUS} {names[1]}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim and its answer, with all that the answer came from.

    Attributes:
      claim: the sentence.
      source: who claims it and where.
      whose: `PAPERS` or `OURS`.
      where: the setting.
      contrast: what is less what.
      answer: one of `ANSWERS`.
      effect: the difference with its interval, in words.
      because: that, and what the tests say.
      measure: a key of `MEASURES`, in whose unit the numbers below are; of a ratio they
        are logarithms.
      mean: of the paired differences, larger less smaller.
      low: of their 95 % interval.
      high: of it.
      margin: the smallest difference that matters.
      p: of the paired t-test, two-sided.
      holm: the same, adjusted.
      sign_flip: of the sign-flip test, not adjusted.
      detectable: the smallest difference that such seeds show in 80 % of all studies.
      seeds: how many.
      note: what else speaks for the answer.
    """

    claim: str
    source: str
    whose: str
    where: str
    contrast: str
    answer: str
    effect: str
    because: str
    measure: str
    mean: float
    low: float
    high: float
    margin: float
    p: float
    holm: float
    sign_flip: float
    detectable: float
    seeds: int
    note: str = ""


def answer(difference: Estimate, p: float, p_equal: float, margin: float) -> str:
    """The answer to a claim that a difference is positive.

    Args:
      difference: the estimate of what the claim says is positive.
      p: of a difference of 0, adjusted for the claims that are tested beside it.
      p_equal: of a difference beyond the margin (`equivalence`), adjusted the same way.
      margin: the smallest difference that matters.

    Returns:
      No difference that matters, where p_equal < 0.025, for which the 95 % interval must
      lie within the margin; else seen, or the opposite, where p < 0.05; else it cannot be
      told.
    """
    within = -margin < difference.low and difference.high < margin
    if within and p_equal < LEVEL / 2:
        return NO_DIFFERENCE
    if p < LEVEL:
        return SEEN if difference.mean > 0 else OPPOSITE
    return CANNOT_TELL


def answer_equal(difference: Estimate, p: float, p_equal: float, margin: float) -> str:
    """The answer to a claim that a difference is 0, or too small to matter.

    Args and tests are those of `answer`.

    Returns:
      Seen, where there is no difference that matters; the opposite, where the difference
      is apart from 0 and its whole interval beyond the margin; else it cannot be told.
    """
    if answer(difference, p, p_equal, margin) == NO_DIFFERENCE:
        return SEEN
    beyond = difference.low > margin or difference.high < -margin
    return OPPOSITE if beyond and p < LEVEL else CANNOT_TELL


def answer_claims(claims: Iterable[Claim], values: Values) -> list[Finding]:
    """The findings of claims, in their order.

    Args:
      claims: those of one family one after another.
      values: of the study.

    Returns:
      The findings; a claim of arms that were not measured has none.
    """
    there = [claim for claim in claims if is_measured(claim, values)]
    return [
        finding
        for _, family in groupby(there, key=lambda claim: claim.family or claim.where)
        for finding in _test_family(list(family), values)
    ]


def is_measured(claim: Claim, values: Values) -> bool:
    """Whether there are values of both arms."""
    arms = [arm for arm in (claim.larger, claim.smaller) if arm]
    return all((arm.condition, arm.method, claim.measure) in values for arm in arms)


def differences(claim: Claim, values: Values) -> np.ndarray:
    """What the claim says is positive, per seed; seeds of which a run diverged left out.

    Raises:
      ValueError: one arm has a seed, or an unseen domain of it, that the other has not.
    """
    _refuse_unpaired(claim, values)
    scale = np.log if MEASURES[claim.measure].compared == "ratio" else np.asarray

    def of(arm: Arm) -> np.ndarray:
        return scale(values.per_seed(arm.condition, arm.method, claim.measure))

    found = of(claim.larger) - (of(claim.smaller) if claim.smaller else 0.0)
    return found[np.isfinite(found)]


def _refuse_unpaired(claim: Claim, values: Values) -> None:
    if claim.smaller is None:
        return
    larger, smaller = (
        values.cells(arm.condition, arm.method, claim.measure)
        for arm in (claim.larger, claim.smaller)
    )
    alone = sorted(larger ^ smaller)
    if alone:
        seed, domain = alone[0]
        raise ValueError(
            f"{claim.contrast} on {claim.where} is paired by seed and unseen domain, and "
            f"{len(alone)} values of {claim.measure} are of one arm alone, the first of "
            f"seed {seed}{domain and f' on {domain}'}: measure both arms on the same."
        )


def _test_family(claims: Sequence[Claim], values: Values) -> list[Finding]:
    found = [differences(claim, values) for claim in claims]
    estimates = [estimate(x) for x in found]
    margins = [MEASURES[claim.measure].margin for claim in claims]
    differ = holm([e.p for e in estimates])
    alike = holm([equivalence(e, m) for e, m in zip(estimates, margins, strict=True)])
    findings = []
    for i, (claim, difference) in enumerate(zip(claims, estimates, strict=True)):
        measure = MEASURES[claim.measure]
        tell = answer_equal if claim.equal else answer
        told = tell(difference, differ[i], alike[i], measure.margin)
        if measure.lower_bound and told != SEEN:
            told = CANNOT_TELL
        flipped = sign_flip(found[i])
        effect = in_words(difference, measure)
        findings.append(
            Finding(
                claim=claim.text,
                source=claim.source,
                whose=claim.whose,
                where=claim.where,
                contrast=claim.contrast,
                answer=told,
                effect=effect,
                because=f"{effect}, Holm p {p_text(differ[i])}, sign-flip p "
                f"{p_text(flipped)}{claim.note and f'; {claim.note}'}",
                measure=claim.measure,
                mean=_short(difference.mean),
                low=_short(difference.low),
                high=_short(difference.high),
                margin=_short(measure.margin),
                p=_short(difference.p),
                holm=_short(differ[i]),
                sign_flip=_short(flipped),
                detectable=_short(detectable(difference)),
                seeds=difference.count,
                note=claim.note,
            )
        )
    return findings


def in_words(difference: Estimate, measure: Measure) -> str:
    """E.g. `+0.31 points [-0.12, +0.74]`, or `ratio 1.040 [1.019, 1.062]`."""
    if measure.compared == "ratio":
        return f"ratio {ratio_text(difference)}"
    return difference.interval("+.2f", measure.scale, measure.unit)


def _short(number: float) -> float:
    return float(f"{number:.5g}")
