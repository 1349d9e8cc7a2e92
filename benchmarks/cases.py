"""Models to measure on: parameters, a batch with as many examples of each domain, losses.

The batch is an argument of the losses and no constant of theirs: a compiler that knew the
images would do part of the work beforehand.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import disam_jax as dj
from experiments.models.classifier import make_classifier

CLASSES = 7  # of PACS
IMAGE_DOMAINS = 3  # the source domains of four, one left out


class Batch(NamedTuple):
    """Examples, each with its domain; domain after domain.

    Attributes:
      inputs: [B, ...].
      labels: int32 [B].
      domains: int32 [B], in [0, M).
    """

    inputs: jax.Array
    labels: jax.Array
    domains: jax.Array


class Case(NamedTuple):
    """What a step is measured on.

    Attributes:
      model: its name.
      dtype: of the arithmetic; parameters are float32.
      params: of the model.
      batch: the one batch of every step.
      num_domains: M; each has the same number of examples.
      example_losses: (params, inputs, labels) -> cross-entropies [B].
      image_size: pixels along a side; 0 for vectors.
    """

    model: str
    dtype: str
    params: Any
    batch: Batch
    num_domains: int
    example_losses: Callable[[Any, jax.Array, jax.Array], jax.Array]
    image_size: int = 0

    def domain_losses(self, params: Any, batch: Batch) -> jax.Array:
        """The mean loss of each domain, [M]."""
        losses = self.example_losses(params, batch.inputs, batch.labels)
        means, _ = dj.domain_means(losses, batch.domains, self.num_domains)
        return jnp.asarray(means)

    def mean_loss(self, params: Any, batch: Batch) -> jax.Array:
        """The mean over the batch, which is that over the domains too: a scalar."""
        return self.example_losses(params, batch.inputs, batch.labels).mean()


def mlp(
    dtype: str = "float32",
    *,
    width: int = 512,
    depth: int = 4,
    domains: int = 4,
    batch_size: int = 256,
) -> Case:
    """A ReLU network of square layers and a linear head."""
    rng = np.random.default_rng(0)

    def kernel(inputs: int, outputs: int) -> jax.Array:
        values = rng.normal(size=(inputs, outputs)) * (2 / inputs) ** 0.5
        return jnp.asarray(values, jnp.float32)

    params = [kernel(width, width) for _ in range(depth)] + [kernel(width, CLASSES)]
    inputs = jnp.asarray(rng.normal(size=(batch_size, width)), jnp.float32)

    def layer(h: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.nn.relu(h @ kernel.astype(dtype))

    def example_losses(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        h = functools.reduce(layer, params[:-1], inputs.astype(dtype))
        return cross_entropy(h.astype(jnp.float32) @ params[-1], labels)

    batch = balanced(inputs, domains)
    return Case("mlp", dtype, params, batch, domains, example_losses)


def classifier(
    model: str, dtype: str = "float32", *, image_size: int, per_domain: int
) -> Case:
    """A model of the experiments with its linear head, BatchNorm's statistics frozen.

    Args:
      model: a key of the experiments' `BACKBONES`.
      dtype: of the backbone's arithmetic.
      image_size: pixels along a side.
      per_domain: images of each of the three domains.
    """
    module = make_classifier(model, CLASSES, batch_norm="frozen", dtype=dtype)
    shape = (IMAGE_DOMAINS * per_domain, image_size, image_size, 3)
    images = jax.random.uniform(jax.random.key(0), shape)
    init = jax.jit(functools.partial(module.init, train=False))
    variables = dict(init(jax.random.key(1), images[:1]))
    params = variables.pop("params")

    def example_losses(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        logits, _ = module.apply({"params": params, **variables}, inputs, train=True)  # pyright: ignore[reportGeneralTypeIssues]
        return cross_entropy(logits, labels)

    batch = balanced(images, IMAGE_DOMAINS)
    return Case(model, dtype, params, batch, IMAGE_DOMAINS, example_losses, image_size)


def rematerialized(case: Case) -> Case:
    """The case with a backward pass that keeps products and convolutions alone.

    What lies between them (activations, norms, softmax) is computed again from those.
    `jax.checkpoint` with nothing kept would save no memory here: one pass over the whole
    model computes all of it again at once.
    """
    losses = jax.checkpoint(case.example_losses, policy=_is_product)  # pyright: ignore[reportPrivateImportUsage]
    return case._replace(example_losses=losses)


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("dot_general", "conv_general_dilated")


def balanced(inputs: jax.Array, domains: int) -> Batch:
    """A batch of these inputs, domain after domain, with labels that go round."""
    size = len(inputs)
    if size % domains:
        raise ValueError(f"{size} examples do not divide among {domains} domains")
    labels = jnp.arange(size, dtype=jnp.int32) % CLASSES
    ids = jnp.repeat(jnp.arange(domains, dtype=jnp.int32), size // domains)
    return Batch(inputs, labels, ids)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Of each example, [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
