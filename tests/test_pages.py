"""Python blocks of the README and the pages run as they stand; links lead somewhere."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import disam_jax
from disam_jax import diagnostics, methods, testing
from disam_jax.evaluation import Realized
from disam_jax.passes.forward import DomainGradients, LossGrad, Pass
from disam_jax.perturbations.sized import each_element
from disam_jax.step import Losses

ROOT = Path(__file__).parents[1]
PAGES = {  # and how many Python blocks are in them
    "README.md": 2,
    "docs/index.md": 1,
    "docs/architecture.md": 0,
    "docs/quickstart.md": 8,
    "docs/idea.md": 8,
    "docs/methods.md": 0,
    "docs/which.md": 0,
    "docs/coming_from.md": 3,
    "docs/domain_generalization.md": 0,
    "docs/benchmarks.md": 0,
    "docs/clip.md": 0,
    "docs/sweeps.md": 0,
    "docs/batchnorm.md": 6,
    "docs/tuning.md": 4,
    "docs/scaling.md": 4,
    "docs/precision.md": 4,
    "docs/write_your_own.md": 6,
    "docs/differences.md": 0,
    "docs/faq.md": 0,
    "docs/citing.md": 0,
    "docs/costs.md": 0,
    "docs/tested.md": 0,
    "docs/examples/optax.md": 7,
    "docs/examples/doors.md": 10,
    "docs/examples/nnx.md": 6,
    "docs/examples/tpu.md": 6,
}
ONE_PROGRAM = {  # pages whose blocks build on one another
    "docs/quickstart.md",
    "docs/idea.md",
    "docs/write_your_own.md",
    "docs/batchnorm.md",
    "docs/tuning.md",
    "docs/examples/optax.md",
    "docs/examples/doors.md",
    "docs/examples/nnx.md",
    "docs/examples/tpu.md",
}
REFERENCE = sorted((ROOT / "docs/api").glob("*.md"))
# Not public: what a step and a record are given, and the default of `size=`.
GIVEN = [Losses, Pass, LossGrad, DomainGradients, Realized, each_element]


def blocks_of(page):
    """The page's Python blocks, each after as many empty lines as come before it there."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, m.start(1)) + m.group(1) for m in found]


def programs_of(page):
    blocks = blocks_of(page)
    return [blocks] if page in ONE_PROGRAM else [[block] for block in blocks]


PROGRAMS = [(page, i) for page in PAGES for i in range(len(programs_of(page)))]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "i"), PROGRAMS)
def test_block_runs(page, i):
    namespace = {}
    for block in programs_of(page)[i]:
        exec(compile(block, page, "exec"), namespace)


def test_the_readme_is_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(("page", "count"), PAGES.items())
def test_there_are_blocks(page, count):
    assert len(blocks_of(page)) == count


def test_a_door_changes_the_lines_that_it_says():
    """Of the two blocks of a section, what differs is what is marked, and as many lines."""
    sections = (ROOT / "docs/examples/doors.md").read_text().split("\n## ")
    doors = [
        section for section in sections if re.match(r".*: \d+ changed lines\n", section)
    ]
    assert len(doors) == 4
    for door in doors:
        before, after = re.findall(r"^```python\n(.*?)^```", door, flags=re.S | re.M)
        mark, kept = "  # changed", before.splitlines()
        marked = [line for line in after.splitlines() if line.endswith(mark)]
        new = [line for line in after.splitlines() if line.removesuffix(mark) not in kept]
        assert marked == new
        assert len(marked) == int(re.search(r": (\d+) changed", door).group(1)), door[:20]


CODE_COLUMNS = 92  # the site's code box is 94 wide in a window of 1280 pixels


@pytest.mark.parametrize("page", PAGES)
def test_code_does_not_run_out_of_its_box(page):
    blocks = re.findall(r"^```\w+\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    wide = [line for line in "".join(blocks).splitlines() if len(line) > CODE_COLUMNS]
    assert not wide


def test_the_methods_page_is_what_the_code_says():
    path = ROOT / "docs/make_methods.py"
    spec = importlib.util.spec_from_file_location("make_methods", path)
    make_methods = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_methods)
    assert (ROOT / "docs/methods.md").read_text() == make_methods.page()
    told = [name for names in make_methods.GROUPS.values() for name in names]
    public = {name for name, value in vars(methods).items() if inspect.isfunction(value)}
    assert {*told, "one_pass", "one_pass_by_domain"} == public  # those two make methods


def test_differences_that_help_to_choose_stand_where_they_were_measured():
    texts = [
        (ROOT / "docs" / name).read_text() for name in ("studies/report.md", "methods.md")
    ]
    measured = re.sub(r" (points|degrees)(?= \[)", "", " ".join(" ".join(texts).split()))
    page = " ".join((ROOT / "docs/which.md").read_text().split()).replace(" degrees", "")
    quoted = re.findall(r"[-+]?[\d.]+ \[[-+]?[\d.]+, [-+]?[\d.]+\]", page)
    assert len(quoted) > 20 and not [q for q in quoted if q not in measured]


def test_every_page_is_listed():
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/examples").glob("*.md")]
    assert {str(page.relative_to(ROOT)) for page in pages} == PAGES.keys() - {"README.md"}


@pytest.mark.parametrize("page", [*PAGES, *(str(p.relative_to(ROOT)) for p in REFERENCE)])
def test_linked_files_are_there(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_first_block_learns_the_sum(capsys):
    exec(compile(blocks_of("README.md")[0], "README.md", "exec"), {})
    numbers = [float(x) for x in re.findall(r"[-\d.]+", capsys.readouterr().out)]
    assert numbers == pytest.approx([1.0] * 5, abs=0.05)


def test_the_reference_holds_every_public_name_once():
    public = {
        f"{module.__name__}.{name}": value
        for module in (disam_jax, testing, diagnostics)
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    } | {value.__qualname__: value for value in [*GIVEN, disam_jax.nnx.Optimizer]}
    documented = []
    for page in REFERENCE:
        for path in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE):
            module, _, name = path.rpartition(".")
            documented.append(getattr(importlib.import_module(module), name))
    for path, value in public.items():
        assert sum(value is other for other in documented) == 1, path
    assert len(documented) == len(public)
