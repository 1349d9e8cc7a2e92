"""Records as finished runs leave them."""


def record(method, domain, seed, out, inside=0.9):
    return {
        "method": method,
        "unseen_domain": domain,
        "seed": seed,
        "in_domain_accuracy": inside,
        "out_of_domain_accuracy": out,
        "out_of_domain_heldout_accuracy": out / 2,
        "loss_spread": 0.1 * (seed + 1),
        "steps": 6,
        "gradients_per_step": 1.0 if method == "erm" else 2.0,
    }


def curves_of(name, domains, steps=3, loss=1.0):
    """Lines of metrics as a run of this name leaves them."""
    losses = {f"loss/{domain}": loss for domain in domains}
    lines = [
        {"step": step, "kind": "train", "loss_spread": 0.1, **losses}
        for step in range(1, steps + 1)
    ]
    return {name: lines}
