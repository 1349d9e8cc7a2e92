"""Conventions of the public surface, checked on every public name."""

import inspect
import re
import sys
from pathlib import Path

import pytest

import disam_jax as dj

PUBLIC = {
    name: value
    for name, value in vars(dj).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
DIAGNOSTICS = {
    name: value
    for name, value in vars(dj.diagnostics).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
DOCUMENTED = PUBLIC | {f"diagnostics.{name}": value for name, value in DIAGNOSTICS.items()}
FUNCTIONS = {name: f for name, f in DOCUMENTED.items() if inspect.isfunction(f)}
PUBLISHED = {
    "sam", "gsam", "sagm", "disam", "erm", "sharpness_aware", "weighted_mean",
    "domain_variance", "variance_penalized", "vrex", "ascend", "ascend_adaptively",
    "ascend_and_match", "average", "take_perturbed", "subtract_orthogonal", "domain_means",
}  # fmt: skip
PINNED = {
    "sam", "gsam", "sagm", "disam", "sharpness_aware", "variance_penalized",
    "value_and_grad", "pop_evaluation", "vmap_domains", "domain_means", "domain_shares",
}  # fmt: skip


def test_the_pinned_names_are_there():
    assert PUBLIC.keys() >= PINNED


def test_dependencies_are_jax_optax_and_chex_alone():
    roots, doors = set(), {"disam_jax.nnx"}  # there once it is asked for; of Flax
    for module in (dj, *vars(dj).values(), *vars(dj.diagnostics).values()):
        if not inspect.ismodule(module) or module.__name__ in doors:
            continue
        if module.__name__.startswith("disam_jax"):
            roots |= {
                value.__name__.split(".")[0]
                for value in vars(module).values()
                if inspect.ismodule(value)
            }
    third_party = roots - sys.stdlib_module_names
    assert third_party <= {"disam_jax", "jax", "optax", "chex", "numpy"}


@pytest.mark.parametrize("name", DOCUMENTED.keys())
def test_docstring(name):
    doc = inspect.getdoc(DOCUMENTED[name])
    assert doc
    first = doc.splitlines()[0]
    assert first.endswith(".") and len(first) <= 92
    if name in FUNCTIONS:
        assert ">>>" in doc
        for parameter in inspect.signature(DOCUMENTED[name]).parameters:
            # By itself, or as in "mask, ascent, descent: as in `sam`."
            assert re.search(rf"^ *(\w+, )*{parameter}(, \w+)*:", doc, re.M), parameter
        assert "Returns:" in doc
    if name in PUBLISHED:
        assert "References:" in doc


@pytest.mark.parametrize("name", ["sam", "gsam", "sagm", "disam", "sharpness_aware"])
def test_what_is_not_a_papers_symbol_is_keyword_only(name):
    for parameter in inspect.signature(PUBLIC[name]).parameters.values():
        if parameter.name not in {"rho", "alpha", "lam", "perturbation"}:
            assert parameter.kind is parameter.KEYWORD_ONLY


def test_experiments_and_benchmarks_use_public_names_only():
    root = Path(__file__).parents[2]
    for folder in ("experiments", "benchmarks"):
        for file in (root / folder).rglob("*.py"):
            text = file.read_text()
            imported = re.findall(r"(?:from|import) disam_jax\.(\w+)", text)
            assert set(imported) <= {"testing", "diagnostics"}, file
            used = set(re.findall(r"\bdj\.(\w+)", text)) - {"diagnostics"}
            assert used <= PUBLIC.keys(), (file, used - PUBLIC.keys())
            measured = set(re.findall(r"\bdiagnostics\.(\w+)\(", text))
            assert measured <= DIAGNOSTICS.keys(), (file, measured - DIAGNOSTICS.keys())
