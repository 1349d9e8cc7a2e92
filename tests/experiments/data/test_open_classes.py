import pytest

from experiments.data.benchmarks import BENCHMARKS
from experiments.data.open_classes import base_classes
from experiments.data.splits import PUBLISHED

DOMAIN_NET = BENCHMARKS["domain_net"].classes


def names(data, order):
    classes = BENCHMARKS[data].classes
    return {classes[label] for label in base_classes(classes, 0.5, order, data)}


@pytest.mark.parametrize(
    ("data", "base", "new"), [("office_home", 32, 33), ("domain_net", 172, 173)]
)
@pytest.mark.parametrize("order", ["sorted", "official"])
def test_halves_are_those_of_clipood_and_of_the_release(data, base, new, order):
    assert len(names(data, order)) == base
    assert len(BENCHMARKS[data].classes) - base == new


def test_by_the_official_order_three_classes_of_domain_net_are_others():
    sorted_, official = names("domain_net", "sorted"), names("domain_net", "official")
    assert sorted_ - official == {
        "The_Eiffel_Tower",
        "The_Great_Wall_of_China",
        "The_Mona_Lisa",
    }
    assert official - sorted_ == {"light_bulb", "lighter", "lighthouse"}
    assert set(PUBLISHED["domain_net"].classes) == set(DOMAIN_NET)
    assert names("office_home", "sorted") == names("office_home", "official")


def test_labels_are_positions_among_the_classes_as_they_come():
    assert base_classes(["d", "a", "c", "b"], 0.5) == (1, 3)
    # Capitals stand before small letters, as Python and ImageFolder sort.
    assert base_classes(["b", "T", "a"], 0.5) == (1,)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 65, 345])
def test_the_new_share_is_rounded_up_and_no_float_s_rounding_counts(count):
    classes = [f"{i:03d}" for i in range(count)]
    for tenths in range(10):
        new = -(-tenths * count // 10)
        if new == count:
            with pytest.raises(ValueError, match=f"leaves none of {count} classes"):
                base_classes(classes, tenths / 10)
        else:
            assert base_classes(classes, tenths / 10) == tuple(range(count - new))


def test_however_small_the_share_one_class_is_new():
    assert base_classes(["a", "b", "c"], 1e-7) == (0, 1)


def test_an_official_order_is_of_the_classes_that_are_there():
    last = PUBLISHED["domain_net"].classes[-4:]
    assert base_classes(last, 0.5, "official", "domain_net") == (0, 1)
    for data, classes in (("domain_net", ["cat", "a lynx"]), ("emoji_concepts", ["cat"])):
        with pytest.raises(ValueError, match=f"class_order is official, and {data} has no"):
            base_classes(classes, 0.5, "official", data)


def test_the_order_is_one_of_two():
    with pytest.raises(ValueError, match="unknown class_order 'random'; there are: sorted"):
        base_classes(["a", "b"], 0.5, "random")
