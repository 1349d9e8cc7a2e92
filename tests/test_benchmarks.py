"""The benchmark of step costs: what it writes and counts, never what a clock says."""

import collections
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import compiling, growth, step_cost
from benchmarks.cases import IMAGE_DOMAINS, classifier, mlp, rematerialized
from benchmarks.figures import family_of
from benchmarks.measure import Setup, compile_step, kept_bytes, measure
from benchmarks.methods import METHODS, NAIVE, STANDARD
from benchmarks.pytorch import installed
from benchmarks.pytorch import table as beside_pytorch
from benchmarks.tpu_compile import KEYS, chips_of, collectives, compiled, moved
from benchmarks.trace import PARTS, REST, parts_of, traced
from experiments.results.labels import COLORS

pytestmark = pytest.mark.slow
ON_A_TPU = Path(__file__).parents[1] / "benchmarks/results/tpu_compile.json"
PINNED = {"model", "method", "dtype", "time_ratio", "flops_ratio"}
SETUPS = [
    Setup("sam"),
    Setup("sagm"),
    Setup("disam"),
    Setup("disam", donated=False),
    Setup("disam", remat=True),
    Setup("erm by hand"),
]


@pytest.fixture(scope="module")
def case():
    return mlp(width=32, depth=2, batch_size=64)


@pytest.fixture(scope="module")
def result():
    records = measure(mlp(width=256, depth=2), SETUPS, seconds=0.0)
    left_out = [{"model": "resnet50", "method": "asam", "why": "which is slow"}]
    return {"records": records, "left_out": left_out, "environment": {}}


def test_every_setup_has_a_record_with_the_pinned_fields(result):
    assert all(record.keys() >= PINNED for record in result["records"])
    found = [Setup(r["method"], r["remat"], r["donated"]) for r in result["records"]]
    assert found == [Setup("erm"), *SETUPS]


def test_operations_of_two_gradients(result):
    ratio = {(r["method"], r["remat"]): r["flops_ratio"] for r in result["records"]}
    for method in ("sam", "sagm", "disam"):
        assert 1.95 < ratio[method, False] <= 2.02, method
    assert 1.95 < ratio["disam", True] <= 2.1
    assert ratio["erm by hand", False] == pytest.approx(1.0, abs=1e-2)


def test_operations_do_not_grow_with_the_domains():
    def ratios(method):
        few, many = (mlp(width=256, depth=2, domains=domains) for domains in (2, 64))
        return [flops(case, method) / flops(case, "erm") for case in (few, many)]

    few, many = ratios("disam")
    assert many == pytest.approx(few, abs=1e-3)


def flops(case, method):
    return compile_step(case, Setup(method)).flops


@pytest.mark.parametrize("method", ["sam by hand", "optax.contrib.sam"])
def test_others_take_the_step_of_sam(case, method):
    assert_same_step(case, method, "sam")


@pytest.mark.parametrize("method", [*NAIVE, "disam (recorded)"])
def test_others_take_the_step_of_disam(case, method):
    assert_same_step(case, method, "disam")


def assert_same_step(case, method, like):
    steps = []
    for name in (method, like):
        step, state = METHODS[name](case)
        params, _ = jax.jit(step)(case.params, state, case.batch)
        steps.append(
            jax.tree.map(lambda new, old: np.asarray(new - old), params, case.params)
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-7), *steps)


def test_what_is_computed_again_is_not_kept():
    case = classifier("patchnet", image_size=16, per_domain=4)
    assert kept_bytes(rematerialized(case)) < kept_bytes(case)


def test_results_take_the_place_of_what_is_donated(case):
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(case.params))
    taken = compile_step(case, Setup("erm")).step.memory_analysis().alias_size_in_bytes
    assert taken >= 2 * parameters  # and their momentum


def test_half_precision_is_of_the_arithmetic_alone():
    case = mlp("bfloat16", width=32, batch_size=64)
    assert {leaf.dtype for leaf in jax.tree.leaves(case.params)} == {np.dtype("float32")}
    products = str(jax.make_jaxpr(case.mean_loss)(case.params, case.batch))
    assert "bf16[64,32] = dot_general" in products


def test_files_of_step_cost(result, tmp_path):
    step_cost.write(result, tmp_path / "cost.json")
    assert json.loads((tmp_path / "cost.json").read_text()).keys() == result.keys()
    text = (tmp_path / "cost.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| mlp")]
    assert len(rows) == len(result["records"])
    assert "disam, rematerialized" in text and "disam, not donated" in text
    assert "Not measured on resnet50, which is slow: asam." in text
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_growth(result, tmp_path):
    records = [{**r, "axis": a.name} for a in growth.AXES for r in result["records"]]
    growth.write({"records": records, "environment": {}}, tmp_path / "growth.json")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "growth.json").read_text())["records"] == records


def test_a_method_that_skips_ascents_costs_what_it_takes_on_average(case):
    erm, sam = flops(case, "erm"), flops(case, "sam")
    found = compile_step(case, Setup("interval_sam"))
    assert found.cycle == 5 and found.ascents == pytest.approx(0.2)
    assert found.flops == pytest.approx(sam, rel=0.01)  # the dearer branch
    assert sam / erm == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("method", "gradients"),
    [("part_sam", 1.25), ("ksam", 1 / 3 + 0.5), ("dgsam", 1.25), ("disam+stale", 5 / 3)],
)
def test_what_a_cheap_method_computes_is_what_its_entry_says(case, method, gradients):
    # The last layer and the first have other shares of a pass in so small a network.
    assert flops(case, method) / flops(case, "erm") == pytest.approx(gradients, rel=0.1)


def test_every_method_has_the_colour_of_its_family():
    assert {family_of(method) for method in STANDARD} <= COLORS.keys()


@pytest.mark.parametrize("models", [["nothing"], ["vit_b16"]])
def test_a_model_that_is_not_of_the_suite_is_named(models):
    with pytest.raises(ValueError, match=f"{models[0]}.*mlp"):
        step_cost.run("quick", models)


def test_compiling_counts_lines(case):
    found = {name: compiling.record(case, name)["lines"] for name in ("erm", "disam")}
    assert 0 < found["erm"] < found["disam"]


def test_a_program_tells_which_part_of_the_method_each_operation_is_of(case):
    def products(method):
        text = compile_step(case, Setup(method)).step.as_text()
        found = parts_of(text)
        return {p: sum(of == p for of in found.values()) for p in (*PARTS, REST)}

    assert all(products("sagm")[part] for part in ("ascend", "perturb", "descend"))
    erm = products("erm")
    assert erm["descend"] and not erm["ascend"] and not erm["perturb"]


def test_the_profile_of_a_step_shows_its_parts_one_after_another(case):
    found = traced(case, "sam")
    ends = {part: max(o.start for o in found if o.part == part) for part in PARTS[:3]}
    assert ends["ascend"] <= ends["perturb"] <= ends["descend"]


def test_collectives_are_counted_with_what_they_move():
    text = """HloModule jit_step
%few (p: f32[4]) -> f32[4] {
  ROOT %e = f32[4]{0} all-reduce(%p), channel_id=4, to_apply=%add
}

%many (p: f32[4]) -> f32[4] {
  %f = f32[4]{0} all-reduce(%p), channel_id=5, to_apply=%add
  ROOT %g = f32[4]{0} all-reduce(%f), channel_id=6, to_apply=%add
}

%begins (p: bf16[8]) -> bf16[16] {
  ROOT %n = bf16[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

%ends (p: bf16[8]) -> bf16[16] {
  ROOT %o = bf16[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

%all-reduce-scatter.1 (p: f32[8]) -> f32[2] {
  %q = f32[8]{0} all-reduce(%p), channel_id=8, to_apply=%add
  ROOT %r = f32[2]{0} dynamic-slice(%q), dynamic_slice_sizes={2}
}

%all-reduce-scatter.2 (p: f32[8]) -> f32[2] {
  %s = f32[8]{0} all-reduce(%p), channel_id=8, to_apply=%add
  ROOT %t = f32[2]{0} dynamic-slice(%s), dynamic_slice_sizes={2}
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[4,2], z: f32[]) -> f32[] {
  %a = (f32[4,2]{1,0}, bf16[8]{0}) all-reduce-start(%x, %y), channel_id=1, to_apply=%add
  %b = f32[4,2]{1,0} all-reduce-done(%a)
  %h = f32[4]{0} conditional(%i, %x, %x), branch_computations={%few, %many}
  ROOT %c = f32[] all-reduce(%z), channel_id=2, to_apply=%add
  %d = bf16[16]{0:T(256)} all-gather(%w), dimensions={0}
  %j = bf16[16]{0} fusion(%w), calls=%begins
  %k = bf16[16]{0} fusion(%j), calls=%ends
  %l = f32[2]{0} fusion(%x), calls=%all-reduce-scatter.1
  %m = f32[2]{0} fusion(%l), calls=%all-reduce-scatter.2
}
"""
    assert collectives(text) == {
        "all-gather": {"count": 2, "bytes": 64, "largest": 32},
        "all-reduce": {"count": 4, "bytes": 84, "largest": 48},
        "reduce-scatter": {"count": 2, "bytes": 64, "largest": 32},
    }


@pytest.fixture(scope="module")
def on_a_tpu():
    """(topology, model, pixels, sharded) -> method -> record."""
    found = collections.defaultdict(dict)
    for record in json.loads(ON_A_TPU.read_text())["records"]:
        found[tuple(record[key] for key in KEYS[:-1])][record["method"]] = record
    return found


def test_on_a_tpu_disam_is_sam(on_a_tpu):
    for setting, by_method in on_a_tpu.items():
        sam, disam = by_method["sam"], by_method["disam"]
        for key in ("flops", "bytes_accessed", "temporary_bytes"):
            assert disam[key] == pytest.approx(sam[key], rel=0.002), (setting, key)
        assert moved(disam) - moved(sam) <= 4 * IMAGE_DOMAINS, setting  # their losses
        counts = [
            {k: v["count"] for k, v in r["collectives"].items()} for r in (sam, disam)
        ]
        assert counts[0] == counts[1], setting


def test_on_a_tpu_nothing_that_grows_with_the_parameters_moves_beyond_twice(on_a_tpu):
    for setting, by_method in on_a_tpu.items():
        for method, record in by_method.items():
            most = 2 * moved(by_method["erm"]) + 256  # losses of the domains, norms
            assert moved(record) <= most, (setting, method)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="the TPU's compiler")
@pytest.mark.parametrize("sharded", [False, True])
def test_steps_of_a_toy_compile_for_a_tpu(sharded):
    case = mlp("bfloat16", width=256, depth=2, domains=3, batch_size=96)
    chips = chips_of("v5e:2x2")
    erm, sam, disam = (compiled(case, m, chips, sharded) for m in ("erm", "sam", "disam"))
    assert disam["flops"] == pytest.approx(sam["flops"], rel=1e-3)
    assert 1.9 < sam["flops"] / erm["flops"] < 2.05
    assert moved(sam) <= 2 * moved(erm) + 256 and moved(disam) <= moved(sam) + 64


def test_a_peer_that_is_not_installed_is_named():
    with pytest.raises(ImportError, match="no_torch is not installed: pip install torch"):
        installed("no_torch")


def test_a_row_for_each_step_beside_pytorch():
    ratio = {"over_erm": [2.0, 1.9, 2.1], "over_sam_in_pytorch": [0.5, 0.4, 0.6]}
    rows = beside_pytorch([{"model": "a", "method": "sam", "milliseconds": 12.4} | ratio])
    assert rows.splitlines()[2:] == [
        "| a | sam | 12 | 2.00 (1.90-2.10) | 0.50 (0.40-0.60) |"
    ]
