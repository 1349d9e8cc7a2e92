"""Model selection: what a run's log says of its accuracy on the unseen domain.

A rule chooses a checkpoint by a validation score and reads the unseen domain's accuracy
there. The rules are those of Gulrajani and Lopez-Paz, ICLR 2021, appendix D; leave-one-
domain-out *cross-validation*, which they also define, needs further runs: it is one of the
rules over a sweep's draws, `results.over_draws`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

Lines = Sequence[dict[str, Any]]
HALVES = "out_of_domain_accuracy/"


@dataclasses.dataclass(frozen=True)
class Selected:
    """What a rule chose.

    Attributes:
      step: of the checkpoint.
      validation: the score it was chosen by; a sweep compares runs by it.
      scored: accuracy on the unseen domain's part that is reported: DomainBed's 80 %, as
        the papers; where concepts of it were trained on, the others alone.
      in_split: accuracy on DomainBed's 80 %, whatever was trained on.
      whole: accuracy on all images of the unseen domain.
      halves: of open classes the same on base and new classes, see `half_accuracies`.
    """

    step: int
    validation: float
    scored: float
    in_split: float
    whole: float
    halves: dict[str, float] = dataclasses.field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Its fields; without open classes there are no halves."""
        fields = dataclasses.asdict(self)
        return fields if self.halves else {k: v for k, v in fields.items() if k != "halves"}


def training_domain_validation(lines: Lines, unseen: str) -> Selected:
    """The checkpoint of the best mean accuracy on the source domains' held-out parts.

    Args:
      lines: of the run's metrics.
      unseen: the domain whose accuracy is read.

    Returns:
      The first such checkpoint.

    Raises:
      ValueError: the run was never evaluated.
    """
    best = max(evaluations(lines), key=lambda line: line["in_domain_accuracy"])
    return _selected(best, unseen, best["in_domain_accuracy"])


def oracle(lines: Lines, unseen: str) -> Selected:
    """The last checkpoint, validated on the part of the unseen domain that is not scored.

    No early stopping: the unseen domain chooses between configurations alone, so that for
    one run this is the last step. Arguments and errors are those of
    `training_domain_validation`.
    """
    last = evaluations(lines)[-1]
    return _selected(last, unseen, last["validation_accuracy"])


def last_step(lines: Lines, unseen: str) -> Selected:
    """The last checkpoint, validated as `training_domain_validation` is."""
    last = evaluations(lines)[-1]
    return _selected(last, unseen, last["in_domain_accuracy"])


SELECTION_RULES: dict[str, Callable[[Lines, str], Selected]] = {
    "training_domain_validation": training_domain_validation,
    "oracle": oracle,
    "last_step": last_step,
}


def evaluations(lines: Lines) -> list[dict[str, Any]]:
    """The lines that evaluate a checkpoint."""
    evaluated = [line for line in lines if line["kind"] == "evaluation"]
    if not evaluated:
        raise ValueError("the run has no evaluation to select from")
    return evaluated


def _selected(line: dict[str, Any], unseen: str, validation: float) -> Selected:
    return Selected(
        step=line["step"],
        validation=validation,
        scored=line[f"scored_accuracy/{unseen}"],
        in_split=line[f"in_split_accuracy/{unseen}"],
        whole=line["out_of_domain_accuracy"],
        halves={
            name.removeprefix(HALVES): value
            for name, value in line.items()
            if name.startswith(HALVES)
        },
    )
