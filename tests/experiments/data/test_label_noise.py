import numpy as np
import pytest

from experiments.config.run import make_config
from experiments.data import load
from experiments.data.label_noise import with_wrong_labels
from experiments.training.parts import memory_parts


def test_that_share_of_the_labels_is_another_class_any_as_likely():
    data = load("rotated_digits", image_size=8)
    found = with_wrong_labels(data, 0.4, range(6), seed=0)
    before, after = (np.concatenate(d.labels) for d in (data, found))
    wrong = before != after
    # 1797 images: a mean of 718.8 with a deviation of 20.8.
    assert abs(wrong.sum() - 0.4 * len(wrong)) < 4 * np.sqrt(0.24 * len(wrong))
    steps = np.bincount((after - before)[wrong] % 10, minlength=10)
    expected = wrong.sum() / 9
    assert steps[0] == 0
    assert (abs(steps[1:] - expected) < 4.5 * np.sqrt(expected)).all()
    again = with_wrong_labels(data, 0.4, range(6), seed=0)
    assert all(map(np.array_equal, again.labels, found.labels))


@pytest.mark.parametrize(("noisy", "wrong"), [("all", (0, 1)), ("first", (0,))])
def test_only_what_sources_train_on_has_wrong_labels(noisy, wrong):
    data = load("colored_digits", image_size=8)

    def parts(label_noise):
        return memory_parts(
            make_config(
                data="colored_digits",
                method="erm",
                unseen="-90%",
                seed=1,
                overrides={"label_noise": label_noise, "noisy_sources": noisy},
            ),
            data,
        )

    (clean, _), (train, heldout) = parts(0.0), parts(0.5)
    truth = dict(zip(np.concatenate(data.groups), np.concatenate(data.labels), strict=True))
    for domain, groups in enumerate(heldout.groups):
        assert heldout.labels[domain].tolist() == [truth[group] for group in groups]
    changed = [
        d
        for d, (a, b) in enumerate(zip(clean.labels, train.labels, strict=True))
        if not np.array_equal(a, b)
    ]
    assert changed == list(wrong)
