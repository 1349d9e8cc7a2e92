"""Records as finished runs leave them."""


def record(method, domain, seed, out, inside=0.9):
    return {
        "method": method,
        "unseen_domain": domain,
        "seed": seed,
        "in_domain_accuracy": inside,
        "unseen_concept_accuracy": out / 2,
        "out_of_domain_accuracy": out,
        "loss_spread": 0.1 * (seed + 1),
        "steps": 6,
        "gradients_per_step": 1.0 if method == "erm" else 2.0,
    }


def curves_of(name, domains, steps=3, loss=1.0, spread=0.1):
    """Lines of metrics as a run of this name leaves them."""
    losses = {f"loss/{domain}": loss for domain in domains}
    lines = [
        {"step": step, "kind": "train", "loss_spread": spread, **losses}
        for step in range(1, steps + 1)
    ]
    return {name: lines}


DOMAINS = ("env0", "env1", "env2", "env3")


def ended(
    method,
    trial,
    draw,
    unseen,
    evaluations=None,
    *,
    state="finished",
    data="d",
    domains=DOMAINS,
):
    """A sweep's record of a run with one or two unseen domains.

    `evaluations` are (step, (in, out) accuracy of every one of the domains).
    """
    first, second = (*unseen, "")[:2]
    there = {
        "method": method,
        "penalty": "none",
        "data": data,
        "unseen_domain": first,
        "also_unseen_domain": second,
        "seed": trial,
        "trial": trial,
        "draw": draw,
        "state": state,
    }
    if state != "finished":
        return there | {"why": "made up"}
    steps, accuracies = zip(*evaluations, strict=True)
    columns = {"step": list(steps)}
    for i, domain in enumerate(domains):
        columns[f"out_split_accuracy/{domain}"] = [a[i][1] for a in accuracies]
    for domain in unseen:
        i = domains.index(domain)
        columns[f"in_split_accuracy/{domain}"] = [a[i][0] for a in accuracies]
        columns[f"scored_accuracy/{domain}"] = [a[i][0] for a in accuracies]
    sources = [i for i, domain in enumerate(domains) if domain not in unseen]
    columns["in_domain_accuracy"] = [
        sum(a[i][1] for i in sources) / len(sources) for a in accuracies
    ]
    columns["validation_accuracy"] = columns[f"out_split_accuracy/{first}"]
    columns["out_of_domain_accuracy"] = [
        sum(a[domains.index(first)]) / 2 for a in accuracies
    ]
    return there | {"evaluations": columns}
