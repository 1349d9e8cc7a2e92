"""Every method of the package, with what it wants and what it costs."""

import optax

import disam_jax as dj

CLIMB = dj.variance_penalized(0.1)
# The method and its evaluations of the loss per step; None where the data decide.
METHODS = {
    "erm": (dj.erm(), 1),
    "sam": (dj.sam(), 2),
    "gsam": (dj.gsam(0.05, 0.2), 2),
    "sagm": (dj.sagm(), 2),
    "disam": (dj.disam(), 2),
    "asam": (dj.asam(), 2),
    "layerwise_sam": (dj.layerwise_sam(), 2),
    "linf_sam": (dj.linf_sam(), 2),
    "sam_on": (dj.sam_on(), 2),
    "unnormalized_sam": (dj.unnormalized_sam(), 2),
    "nuclear_sam": (dj.nuclear_sam(), 2),
    "spectral_sam": (dj.spectral_sam(), 2),
    "le_sam": (dj.le_sam(), 2),
    "fisher_sam": (dj.fisher_sam(), 2),
    "zsharp": (dj.zsharp(), 2),
    "friendly_sam": (dj.friendly_sam(), 2),
    "vasso": (dj.vasso(), 2),
    "gradient_norm_penalty": (dj.gradient_norm_penalty(), 2),
    "wsam": (dj.wsam(), 2),
    "stable_sam": (dj.stable_sam(), 2),
    "multi_step_sam": (dj.multi_step_sam(steps=3), 4),
    "bilateral_sam": (dj.bilateral_sam(), 3),
    "cr_sam": (dj.cr_sam(), 3),
    "gam": (dj.gam(), 4),
    "interval_sam": (dj.interval_sam(period=5), 1.2),
    "looksam": (dj.looksam(period=5, ascent=CLIMB), 1.2),
    "late_sam": (dj.late_sam(start=4), 1.6),
    "rst": (dj.rst(probability=1.0), 2),
    "ae_sam": (dj.ae_sam(), None),
    "ae_sam, never": (dj.ae_sam(threshold=1e3), 1),
    "momentum_sam": (dj.momentum_sam(), 1),
    "noise_sam": (dj.noise_sam(), 1),
    "dgsam": (dj.dgsam(), 4 / 3),
    "async_sam": (dj.async_sam(), 2),
    "sampa": (dj.sampa(0.1), 2),
    "tilted_sam": (dj.tilted_sam(samples=2, radius=0.05), 4),
    "bsam": (dj.bsam(1e4, weight_decay=0.0), 2),
    "sassha": (dj.sassha(period=3), 2),
    "disam, by domain": (dj.one_pass_by_domain(dj.ascend(), ascent=CLIMB), 1),
    "fish": (dj.fish(1e-3), 1),
    "pgrad": (dj.pgrad(1e-3), 1),
    "sam, pcgrad": (dj.sam(descent=dj.pcgrad()), 2),
    "sam, group_dro": (dj.sam(ascent=dj.group_dro()), 2),
    "disam, one pass": (dj.one_pass(dj.ascend(), ascent=CLIMB), 1),
}
# One of each kind of step.
KINDS = (
    "erm", "disam", "gsam", "gam", "looksam", "ae_sam", "momentum_sam", "dgsam",
    "nuclear_sam", "spectral_sam", "sassha", "disam, by domain", "masked", "scaled",
    "sam by micro-batch",
)  # fmt: skip
BY_MICRO_BATCH = {"dgsam", "fish", "pgrad", "disam, by domain"}

# What is no method by itself and holds one, and methods whose parts are another way round.
COMPOSED = {
    "disam+sagm, descent": dj.sagm(ascent=CLIMB, combine_with="descent"),
    "masked": dj.sam(mask=lambda params: {name: name != "bias" for name in params}),
    "sam by micro-batch": dj.per_micro_batch(dj.sam()),
    "scaled": dj.scale_loss(dj.disam()),
    "before a clip": optax.chain(dj.disam(), optax.clip_by_global_norm(0.1)),
    "decoupled": dj.wsam_decoupled(optax.sgd(0.1), 0.1),
    "before genie": optax.chain(dj.disam(), dj.genie(drop=0.0, noise=False)),
    "polyak": dj.polyak_step(dj.disam()),
    "scheduled": dj.disam(rho=optax.linear_schedule(0.0, 0.1, 5)),
}


def wants_micro_batches(name):
    """Whether the update is given the domains as micro-batches."""
    return name in BY_MICRO_BATCH or name == "sam by micro-batch"
