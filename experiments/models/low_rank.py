"""LoRA: a low-rank change of a transformer's attention (Hu et al., ICLR 2022)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from experiments.models.tuning import Params, Tuning

CHANGED = ("qkv", "proj")  # the two products of an attention


@dataclasses.dataclass(frozen=True)
class LowRank(Tuning):
    """Trains A and B of W + A B for each product of the backbone's attentions.

    A [in, rank] is drawn from N(0, 1 / in) and B [rank, out] is 0, so that the tuned model
    begins as the model. rho is a length in (A, B) and none in W: (c A, B / c) is the same W
    for every c, and at first, where B is 0, moving A does not move W at all.

    Attributes:
      trained: `lora`, and what else is trained as it is.
      rank: at least 1.

    References:
      Hu et al., ICLR 2022, equation 3, with their alpha equal to the rank.
    """

    rank: int = 8

    def added(self, params: Params, key: jax.Array) -> Params:
        """`lora`: A and B under the path of each kernel."""
        kernels = changed_kernels(params["backbone"])
        keys = jax.random.split(key, len(kernels))
        pairs = {}
        for key, (path, kernel) in zip(keys, kernels.items(), strict=True):
            inputs, outputs = kernel.shape
            pairs[(*path, "a")] = jax.random.normal(key, (inputs, self.rank)) / inputs**0.5
            pairs[(*path, "b")] = jnp.zeros((self.rank, outputs))
        return {"lora": traverse_util.unflatten_dict(pairs)}

    def weights(self, params: Params, classes: Sequence[int] | None = None) -> Params:
        """The backbone's with W + A B."""
        params = super().weights(params, classes)
        backbone: dict[Any, Any] = traverse_util.flatten_dict(params["backbone"])
        pairs: dict[Any, Any] = traverse_util.flatten_dict(params["lora"])
        for path in changed_kernels(params["backbone"]):
            a, b = pairs[(*path, "a")], pairs[(*path, "b")]
            backbone[path] = backbone[path] + a @ b
        others = {name: tree for name, tree in params.items() if name != "lora"}
        return others | {"backbone": traverse_util.unflatten_dict(backbone)}


def changed_kernels(backbone: Params) -> dict[tuple[str, ...], Any]:
    """Path -> kernel of the attentions' products.

    Raises:
      ValueError: the backbone has none.
    """
    flat = traverse_util.flatten_dict(backbone)
    found = {
        path: leaf
        for path, leaf in flat.items()
        if path[-1] == "kernel" and path[-3:-1] in {("attn", name) for name in CHANGED}
    }
    if not found:
        raise ValueError(
            "lora changes the attentions of a transformer, and this model has none: take "
            "--tuning finetune or linear."
        )
    return found
