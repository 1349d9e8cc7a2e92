"""What `value_and_grad` takes when it is made, and what at the call."""

import jax.numpy as jnp
import pytest

import disam_jax as dj


def loss_fn(w):
    return w @ w


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain_weights": jnp.ones(1)}, "domain_weights, .* go to the function that it"),
        ({"loss_scale": 2.0}, "got loss_scale"),
        ({"record": False}, "got record"),
        ({"axis": "data"}, "unexpected keyword argument 'axis'; did you mean 'axis_name'"),
        ({"compute_type": "float16"}, "did you mean 'compute_dtype'"),
        ({"rate": 0.1}, "got rate"),
    ],
)
def test_other_options_are_refused_by_name(options, message):
    with pytest.raises(TypeError, match=message):
        dj.value_and_grad(loss_fn, dj.sam(), **options)


def test_options_hold_at_every_call():
    grad_fn = dj.value_and_grad(
        loss_fn, dj.sam(0.5), ascent_loss_fn=lambda w: w[0], compute_dtype="bfloat16"
    )
    params = jnp.array([3.0, 4.0])
    (evaluation, grads), _ = grad_fn(params, dj.sam(0.5).init(params))
    assert grads.tolist() == [7.0, 8.0]  # climbs w[0] alone
    assert evaluation.ascent_losses == 3.0
    assert evaluation.realized is not None
