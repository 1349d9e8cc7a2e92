"""Records of before runs were scored on what was not trained on, read as those of now.

Such a record has the accuracy on the unseen domain and on each of its two parts. Which of
them shows what was trained on follows from the data.
"""

from typing import Any

from experiments.data import DATASETS
from experiments.data.benchmarks import BENCHMARKS

Record = dict[str, Any]
SHARED = "emoji_styles"  # alone has domains that all show the same concepts


def comparison_record(record: Record) -> Record:
    """A comparison's record as those of now are.

    A selection rule's `scored` accuracy stays missing where some of its checkpoint's images
    show what was trained on: it was not kept.

    Raises:
      ValueError: the data are unknown here, or the record has no accuracy.
    """
    if "unseen_concept_accuracy" in record:
        return record
    shared = _shares_concepts(record)
    kept = "out_of_domain_heldout_accuracy" if shared else "out_of_domain_accuracy"
    if kept not in record:
        raise ValueError(
            f"{record.get('file', 'results')}: a record on {record['data']} has neither "
            f"unseen_concept_accuracy nor {kept}, as those of a comparison have: run its "
            "command again, in another folder."
        )
    unseen = record[kept]
    if shared:
        return {**record, "unseen_concept_accuracy": unseen}
    rules = {
        name: {**value, "scored": value["in_split"]}
        for name, value in record.items()
        if isinstance(value, dict) and "in_split" in value
    }
    return {**record, **rules, "unseen_concept_accuracy": unseen}


def sweep_record(run: Record) -> Record:
    """A sweep's record of a finished run as those of now are.

    Raises:
      ValueError: the data are unknown here.
    """
    columns, unseen = run["evaluations"], run["unseen_domain"]
    if "validation_accuracy" in columns:
        return run
    scored, rest = "in_split_accuracy", "out_split_accuracy"
    if _shares_concepts(run):
        scored, rest = rest, scored
    left_out = filter(None, (unseen, run["also_unseen_domain"]))
    added = {f"scored_accuracy/{d}": columns[f"{scored}/{d}"] for d in left_out}
    added["validation_accuracy"] = columns[f"{rest}/{unseen}"]
    return {**run, "evaluations": {**columns, **added}}


def _shares_concepts(record: Record) -> bool:
    data = record["data"]
    if data not in (*DATASETS, *BENCHMARKS, "folder"):
        raise ValueError(
            f"a record on {data} does not say what was not trained on, for it was made "
            "before that was scored: run its command again, in another folder."
        )
    return data == SHARED
