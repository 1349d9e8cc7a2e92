"""What is measured of a model at a moment of its training: name -> a mapping of numbers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from disam_jax import diagnostics
from experiments.config.run import RunConfig
from experiments.data import DomainData
from experiments.data.augment import scale_pixels
from experiments.data.holdout import concepts_seen
from experiments.models.classifier import make_classifier
from experiments.training.evaluation import (
    SEEN,
    in_chunks,
    not_trained_on,
    pooled,
    score,
)
from experiments.training.feed import by_concept
from experiments.training.halves import half_accuracies
from experiments.training.parts import known_classes, seen_classes
from experiments.training.program import TrainState

RADIUS = 0.05  # of the sharpness, whatever rho the run was trained with
BATCHES = 8  # batches of the gradients' variance
LARGEST = 512  # images of a domain that a measure looks at
FEW = 128  # those that a large model's does


class Trained(NamedTuple):
    """A model at a moment of its run.

    Attributes:
      config: of the run.
      predict: state -> what makes logits of uint8 images.
      state: of the run.
      train: the images of all domains, less those held out.
      heldout: those.
      sources: positions of the domains that are trained on, in `train`.
    """

    config: RunConfig
    predict: Callable[[TrainState], Callable[[np.ndarray], np.ndarray]]
    state: TrainState
    train: DomainData
    heldout: DomainData
    sources: list[int]


def scores(trained: Trained) -> dict[str, Any]:
    """Accuracy and loss: held-out parts of the sources, and three of the unseen domain.

    unseen_concept: images of what was not trained on in any domain. out_of_domain: all
    images. seen_concept: images of what was trained on, drawn otherwise, where there are
    such. With open classes also of the unseen domain's images `base`, `new` and so on, see
    `half_accuracies`; what is held out of the sources is then of base classes.
    """
    config, heldout = trained.config, trained.heldout
    unseen, seen = config.unseen, seen_classes(config, heldout.classes)
    heldout = heldout.subset(known_classes(config, heldout, heldout.labels))
    parts = {
        name: in_chunks(heldout.images[d], heldout.labels[d])
        for d, name in enumerate(heldout.domains)
    }
    d = trained.train.domain_index(unseen)
    reads = by_concept(trained.train, d, concepts_seen(trained.train, trained.sources)[d])
    parts |= {kind: read() for kind, read in reads.items()}
    found = score(trained.predict(trained.state), parts, seen)
    held, others = found.pop(unseen), {kind: found.pop(kind) for kind in reads}
    of_unseen = {
        "unseen_concept": not_trained_on(held, others),
        "out_of_domain": pooled([held, *others.values()]),
    }
    if SEEN in others:
        of_unseen["seen_concept"] = others[SEEN]
    sources = list(found.values())
    halves = half_accuracies(of_unseen["out_of_domain"].halves)
    return {
        "in_domain_accuracy": float(np.mean([part.accuracy for part in sources])),
        "in_domain_loss": float(np.mean([part.loss for part in sources])),
        **{f"{name}_accuracy": part.accuracy for name, part in of_unseen.items()},
        **{f"{name}_loss": part.loss for name, part in of_unseen.items()},
        **{f"{half}_accuracy": accuracy for half, accuracy in halves.items()},
    }


def averaged_scores(trained: Trained) -> dict[str, Any]:
    """`scores` of the weights averaged over the steps, each name after `averaged_`."""
    state = trained.state.with_scored(trained.state.average)
    found = scores(trained._replace(state=state))
    return {f"averaged_{name}": value for name, value in found.items()}


def unseen_sharpness(trained: Trained) -> dict[str, Any]:
    """How sharp the loss is on unseen concepts of the unseen domain: by four measures.

    Variance of the gradient over mini-batches (DISAM's Fig. 6 and appendix C.3), the
    increase of the loss within RADIUS (one ascent and ten), and the top eigenvalue of the
    Hessian.
    """
    return _on_unseen(_unseen_sharpness, trained, LARGEST)


def _unseen_sharpness(loss: Any, params: Any, batch: Any) -> dict[str, Any]:
    def whole(params: Any) -> jax.Array:
        return loss(params, batch)

    key = jax.random.key(0)
    top = diagnostics.hessian_top_eigenvalues(whole, params, 1, key, iterations=12)
    climbed = diagnostics.sharpness(whole, params, RADIUS, steps=10)
    return {
        **_unseen_flatness(loss, params, batch),
        "sharpness_10": jnp.sum(climbed),
        "top_eigenvalue": jnp.sum(top),
    }


def unseen_flatness(trained: Trained) -> dict[str, Any]:
    """Two measures of `unseen_sharpness` that large models can afford, on few images."""
    return _on_unseen(_unseen_flatness, trained, FEW)


def _unseen_flatness(loss: Any, params: Any, batch: Any) -> dict[str, Any]:
    batches = jax.tree.map(lambda x: x.reshape(BATCHES, -1, *x.shape[1:]), batch)
    climbed = diagnostics.sharpness(lambda p: loss(p, batch), params, RADIUS)
    return {
        "gradient_variance": diagnostics.gradient_variance(loss, params, batches),
        "sharpness": jnp.sum(climbed),
    }


def _on_unseen(
    measures: Callable[..., dict[str, Any]], trained: Trained, most: int
) -> dict[str, Any]:
    measure = _compiled(measures, trained)
    found = measure(trained.state, *_some(*unseen_concepts(trained), most))
    return {f"unseen_{name}": float(value) for name, value in found.items()}


def source_sharpness(trained: Trained) -> dict[str, Any]:
    """The increase of each source domain's own training loss within RADIUS."""
    measure = _compiled(_own_sharpness, trained)
    found = [
        measure(trained.state, *_some(*trained_on(trained, d), LARGEST))
        for d in trained.sources
    ]
    return {"source_sharpness": [float(x) for x in found]}


def _own_sharpness(loss: Any, params: Any, batch: Any) -> Any:
    return jnp.sum(diagnostics.sharpness(lambda p: loss(p, batch), params, RADIUS))


def domain_gradients(trained: Trained) -> dict[str, Any]:
    """Loss and gradient of each source, from which DISAM's ascent follows for every lam.

    On BATCHES batches as the run draws them, up to a whole number of which there are clean
    training images: batch_losses [B, M] and batch_grams [B, M, M], the products of the
    domains' gradients; domain_losses [M] and domain_gram [M, M] of all of them together.
    """
    size = trained.config.preset.batch_size
    parts = {d: trained_on(trained, d) for d in trained.sources}
    count = min(BATCHES, *(len(labels) // size for _, labels in parts.values()))
    # A step draws the domains each by itself: not the same concepts of all.
    shown = [_some(*part, count * size, count, seed=d) for d, part in parts.items()]
    # [B, M, size, ...]
    images, labels = (
        jnp.stack([x.reshape(count, size, *x.shape[1:]) for x in arrays], axis=1)
        for arrays in zip(*shown, strict=True)
    )
    found = _compiled(_domain_gradients, trained)(trained.state, images, labels)
    return {name: _to_six_digits(value) for name, value in found.items()}


def _domain_gradients(loss: Any, params: Any, batches: Any) -> dict[str, jax.Array]:
    flat, unflatten = ravel_pytree(params)
    of_domain = jax.value_and_grad(lambda w, batch: loss(unflatten(w), batch))

    def add(total: jax.Array, batch: Any) -> tuple[jax.Array, Any]:
        losses, gradients = jax.lax.map(lambda domain: of_domain(flat, domain), batch)
        return total + gradients, (losses, _gram(gradients))

    count, domains = batches[1].shape[:2]
    start = jnp.zeros((domains, flat.size), flat.dtype)
    total, (losses, grams) = jax.lax.scan(add, start, batches)
    return {
        "domain_losses": jnp.mean(losses, 0),
        "domain_gram": _gram(total / count),
        "batch_losses": losses,
        "batch_grams": grams,
    }


def _gram(gradients: jax.Array) -> jax.Array:
    return jnp.matmul(gradients, gradients.T, precision="highest")


def _to_six_digits(values: Any) -> Any:
    return np.vectorize(lambda x: float(f"{x:.6g}"))(np.asarray(values, float)).tolist()


def trained_on(trained: Trained, domain: int) -> tuple[np.ndarray, np.ndarray]:
    """The training images of a source, by its position, and their labels."""
    return trained.train.images[domain], trained.train.labels[domain]


def unseen_concepts(trained: Trained) -> tuple[np.ndarray, np.ndarray]:
    """The images of the unseen domain whose concept no source shows, and their labels."""
    unseen, heldout = trained.config.unseen, trained.heldout
    d, held = trained.train.domain_index(unseen), heldout.domain_index(unseen)
    new = ~concepts_seen(trained.train, trained.sources)[d]
    images, labels = trained_on(trained, d)
    return (
        np.concatenate([images[new], heldout.images[held]]),
        np.concatenate([labels[new], heldout.labels[held]]),
    )


def _some(
    images: np.ndarray,
    labels: np.ndarray,
    most: int,
    batches: int = BATCHES,
    seed: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Some images and their labels, the same in every run, as many as batches divide."""
    order = np.random.default_rng(seed).permutation(len(labels))[:most]
    order = order[: len(order) - len(order) % batches]
    return jnp.asarray(images[order]), jnp.asarray(labels[order])


def _compiled(measure: Callable[..., Any], trained: Trained) -> Callable[..., Any]:
    preset = trained.config.preset
    classes = len(trained.train.classes)
    return _compile(measure, preset.model, classes, preset.batch_norm, preset.dtype)


@functools.lru_cache(maxsize=16)  # the same for all runs of a model
def _compile(
    measure: Callable[..., Any], name: str, classes: int, batch_norm: str, dtype: str
) -> Callable[..., Any]:
    """`measure` of (loss, params, batch), as a function of (state, images, labels)."""
    model = make_classifier(name, classes, batch_norm=batch_norm, dtype=dtype)

    @jax.jit
    def compiled(state: TrainState, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            images, labels = batch
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, _ = model.apply(variables, scale_pixels(images), train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses)

        return measure(loss, state.params, (images, labels))

    return compiled


PROBES: dict[str, Callable[[Trained], dict[str, Any]]] = {
    "scores": scores,
    "averaged_scores": averaged_scores,
    "unseen_sharpness": unseen_sharpness,
    "unseen_flatness": unseen_flatness,
    "source_sharpness": source_sharpness,
    "domain_gradients": domain_gradients,
}
