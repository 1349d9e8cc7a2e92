"""Records what the code of Andriushchenko et al. (ICML 2023) measures, for test_worst_case.

pip install torch==2.14.1 numpy
git clone REPOSITORY  # github, tml-epfl/sharpness-vs-generalization, commit 6d73be9
PYTHONPATH=sharpness-vs-generalization python tests/data/sharpness/record.py

It is written for a GPU: `cuda` is made to do nothing. As released a random start of the
worst case is an error, for a comma makes `init_fn` a tuple: what is recorded begins at w,
or, with the comma taken out, at random.
"""

import inspect
from pathlib import Path

import numpy as np
import sharpness
import torch

HERE = Path(__file__).parent
SIZES, CLASSES, EXAMPLES = (5, 6), 3, 20
RHOS = {("l2", False): 0.2, ("linf", False): 0.05, ("l2", True): 0.3, ("linf", True): 0.1}
ITERATIONS = 200
RESTARTS = 10
SAMPLES = 20_000
COMMA = "adaptive=adaptive),\n\n    def get_loss_and_err"


def repaired():
    """Their function without the comma."""
    source = inspect.getsource(sharpness)
    assert source.count(COMMA) == 1
    names = {}
    exec(source.replace(COMMA, COMMA.replace(",\n", "\n", 1)), names)
    return names["eval_APGD_sharpness"]


def main():
    torch.set_default_dtype(torch.float64)
    torch.Tensor.cuda = lambda self, *args: self
    rand_like = torch.rand_like
    torch.rand_like = lambda x, device=None: rand_like(x)
    torch.manual_seed(0)
    hidden, last = torch.nn.Linear(*SIZES), torch.nn.Linear(SIZES[-1], CLASSES)
    model = torch.nn.Sequential(hidden, torch.nn.Tanh(), last)
    x, y = torch.randn(EXAMPLES, SIZES[0]), torch.randint(CLASSES, (EXAMPLES,))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss_f = torch.nn.functional.cross_entropy
    for _ in range(200):  # near a minimum, where a rise is not the gradient's alone
        optimizer.zero_grad()
        loss_f(model(x), y).backward()
        optimizer.step()
    out = {"x": x, "y": y, "hidden": hidden.weight.T, "hidden_bias": hidden.bias}
    out |= {"last": last.weight.T, "last_bias": last.bias}
    out = {name: value.detach().numpy().copy() for name, value in out.items()}
    batches = [(x, None, y, None, None)]
    for (norm, adaptive), rho in RHOS.items():
        name = f"{norm}{'_adaptive' if adaptive else ''}"
        common = {"rho": rho, "adaptive": adaptive, "norm": norm}
        out[f"{name}_rho"] = np.array(rho)
        worst = sharpness.eval_APGD_sharpness(
            model, batches, loss_f, 0, 0, n_iters=ITERATIONS, rand_init=False, **common
        )
        out[f"{name}_worst"] = np.array(worst[0])
        worst = repaired()(
            model, batches, loss_f, 0, 0, n_iters=ITERATIONS, n_restarts=RESTARTS, **common
        )
        out[f"{name}_repaired"] = np.array(worst[0])
    for adaptive in (False, True):
        common = {"rho": 0.1, "adaptive": adaptive, "norm": "l2"}
        found = sharpness.eval_average_sharpness(
            model, batches, loss_f, n_iters=SAMPLES, **common
        )
        out[f"average{'_adaptive' if adaptive else ''}"] = np.array(found[0])
    np.savez_compressed(HERE / "recorded.npz", **out)


if __name__ == "__main__":
    main()
