"""A step is followed in a handful of files."""

import pytest

from benchmarks.reading import Entered, measure


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("sam", Entered(files=8, functions=36, calls=78, depth=7)),
        ("disam, record=True", Entered(files=9, functions=45, calls=104, depth=7)),
    ],
)
def test_a_step_is_followed_in_few_files(name, most):
    for count, bound, what in zip(measure(name), most, Entered._fields, strict=True):
        assert count <= bound, (what, count)
