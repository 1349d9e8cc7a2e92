import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import DomainData
from experiments.training.evaluation import NEW, SEEN, Score, evaluation_line, score
from experiments.training.feed import make_feed

# Concept 0 to 19 is drawn in all styles, the others in one.
GROUPS = {"a": [*range(20), *range(40, 50)], "b": range(20), "c": range(30)}


def some_concepts_shared():
    groups = [np.array(g, np.int32) for g in GROUPS.values()]
    return DomainData(
        name="some_shared",
        domains=tuple(GROUPS),
        classes=("even", "odd"),
        images=tuple(
            np.broadcast_to(g.astype(np.uint8)[:, None, None, None], (len(g), 8, 8, 3))
            for g in groups
        ),
        labels=tuple(g % 2 for g in groups),
        groups=tuple(groups),
        flip=False,
        description="an image is its concept's number in all its pixels",
    )


def predict(images):
    """Right of every third concept."""
    concepts = np.asarray(images)[:, 0, 0, 0].astype(int)
    return np.eye(2)[(concepts + (concepts % 3 != 0)) % 2]


def accuracy(concepts):
    return np.mean([concept % 3 == 0 for concept in concepts])


@pytest.mark.parametrize("seed", range(3))
def test_unseen_concepts_are_exactly_those_not_trained_on(seed):
    config = make_config(data="colored_digits", method="erm", unseen="c", seed=seed)
    data = some_concepts_shared()
    feed = make_feed(config, data)
    assert len(feed.images.labels) == data.counts().sum()  # the same for every seed
    out_split = score(predict, {name: read() for name, read in feed.out_split.items()})
    in_split = {"c": score(predict, {k: read() for k, read in feed.in_split["c"].items()})}
    line = evaluation_line(1, "evaluation", "c", out_split, in_split)
    drawn = np.sum(feed.images.counts)  # what is behind them fills up
    trained = set(np.unique(np.asarray(feed.images.images)[:drawn]))
    unseen = [concept for concept in GROUPS["c"] if concept not in trained]
    assert 10 < len(unseen) < 20  # those of c alone, and those held out
    assert line["unseen_concept_accuracy"] == pytest.approx(accuracy(unseen))
    assert line["scored_accuracy/c"] == line["unseen_concept_accuracy"]
    seen = [concept for concept in GROUPS["c"] if concept in trained]
    assert line["validation_accuracy"] == pytest.approx(accuracy(seen))
    assert line["out_of_domain_accuracy"] == pytest.approx(accuracy(GROUPS["c"]))


def test_where_no_concept_is_shared_all_images_count_and_80_percent_are_scored():
    parts = {"a": Score(0.5, 1.0, 20), "b": Score(0.9, 1.0, 20)}
    line = evaluation_line(1, "evaluation", "a", parts, {"a": {NEW: Score(0.7, 1.0, 80)}})
    assert line["unseen_concept_accuracy"] == pytest.approx(0.66)
    assert line["out_of_domain_accuracy"] == pytest.approx(0.66)
    assert line["scored_accuracy/a"] == line["in_split_accuracy/a"] == 0.7
    assert line["validation_accuracy"] == 0.5
    assert line["in_domain_accuracy"] == 0.9


def test_where_all_concepts_are_shared_those_held_out_are_scored():
    parts = {"a": Score(0.5, 1.0, 20), "b": Score(0.9, 1.0, 20)}
    line = evaluation_line(1, "evaluation", "a", parts, {"a": {SEEN: Score(0.7, 1.0, 80)}})
    assert line["unseen_concept_accuracy"] == line["scored_accuracy/a"] == 0.5
    assert line["validation_accuracy"] == line["in_split_accuracy/a"] == 0.7
