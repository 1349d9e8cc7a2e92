"""A digest names a value by all that it holds, and outlives new fields."""

import dataclasses
import hashlib
import json

import pytest

from experiments.fields import digest, option


@dataclasses.dataclass(frozen=True)
class Inner:
    rho: float = 0.05


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    named: dict[str, Inner] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class InnerToday(Inner):
    radius: float | None = option(None, "of something", later=True)


CASES = [
    lambda inner: Outer(inner()),
    lambda inner: Outer(several=(inner(), inner(rho=0.1))),
    lambda inner: Outer(named={"a": inner()}),
    lambda inner: {"a": [inner()]},
]


@pytest.mark.parametrize("made", CASES)
def test_a_later_field_changes_a_digest_where_it_is_set(made):
    assert digest(made(InnerToday)) == digest(made(Inner))
    set_there = made(lambda **fields: InnerToday(radius=0.0, **fields))
    assert digest(set_there) != digest(made(Inner))


def test_a_digest_is_of_sorted_json():
    text = json.dumps({"rho": 0.1}, sort_keys=True)
    whole = hashlib.sha256(text.encode()).hexdigest()
    assert digest(Inner(0.1)) == whole[:16]
    assert digest(Inner(0.1), length=24) == whole[:24]
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
