"""eps from `ascent_loss_fn`, the descent of `loss_fn`: the ascent is on other examples."""

import numpy as np
import pytest

import disam_jax as dj
from tests.family import bilateral_gradient, grad, unit
from tests.problems import LAM, RHO, loss_fn, start, stream, to_flat, to_tree
from tests.steps import gradient, whole_batch

pytestmark = pytest.mark.usefixtures("x64")
CLIMB = dj.variance_penalized(LAM)


def perturbed(w, small, whole):
    return grad(whole, w + RHO * unit(grad(small, w, LAM)))


FORMS = {
    "disam": (dj.disam(RHO, LAM), perturbed),
    "late, a step without ascent": (
        dj.late_sam(RHO, 1),
        lambda w, small, whole: grad(whole, w),
    ),
    "ae": (dj.ae_sam(RHO, -10.0, ascent=CLIMB), perturbed),  # always above so low a bound
    "gradient-norm": (
        dj.gradient_norm_penalty(RHO, 0.7, ascent=CLIMB),
        lambda w, small, whole: 0.3 * grad(whole, w) + 0.7 * perturbed(w, small, whole),
    ),
    "bilateral": (
        dj.bilateral_sam(RHO, 0.15, ascent=CLIMB),
        lambda w, small, whole: bilateral_gradient(w, small, whole, LAM),
    ),
    "bilateral, one objective": (dj.bilateral_sam(RHO, 0.15), bilateral_gradient),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_ascent_may_be_on_other_examples(name):
    tx, expected = FORMS[name]
    small, whole = stream(2)
    options = whole_batch(whole) | {"ascent_loss_fn": loss_fn(small)}
    found = to_flat(gradient(tx, to_tree(start()), **options))
    np.testing.assert_allclose(found, expected(start(), small, whole), rtol=1e-12)
