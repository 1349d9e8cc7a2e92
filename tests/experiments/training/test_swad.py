import collections

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training.swad import loss_valley, running_mean, segments_needed
from tests.float32 import assert_close


class OnlineValley:
    """SWAD's release as it goes: queues of segments, fed one evaluation at a time.

    A model begun from a segment is overwritten by its first update, as torch's
    AveragedModel counts from zero.
    """

    def __init__(self, n_converge, n_tolerance, ratio):
        self.n_converge, self.n_tolerance, self.ratio = n_converge, n_tolerance, ratio
        self.converging = collections.deque(maxlen=n_converge)
        self.smooth = collections.deque(maxlen=n_tolerance)
        self.start, self.threshold, self.dead, self.updates = None, None, False, []

    def feed(self, segment, loss):
        if self.dead:
            return
        self.converging.append((segment, loss))
        self.smooth.append((segment, loss))
        if self.start is None:
            self.look_for_convergence()
            return
        if self.smooth[0][0] < self.start:
            return
        if min(loss for _, loss in self.smooth) > self.threshold:
            self.dead = True
            return
        self.updates.append(self.smooth[0][0])

    def look_for_convergence(self):
        queue = list(self.converging)
        if len(queue) < self.n_converge or np.argmin([loss for _, loss in queue]) != 0:
            return
        self.start = queue[0][0]
        self.threshold = np.mean([loss for _, loss in queue]) * (1 + self.ratio)
        if self.n_tolerance < self.n_converge:
            for i in range(self.n_converge - self.n_tolerance):
                self.updates.append(queue[1 + i][0])
        elif self.n_tolerance > self.n_converge:
            early = list(self.smooth)[: self.n_tolerance - self.n_converge + 1]
            first = 0
            for i in reversed(range(len(early))):
                if early[i][1] > self.threshold:
                    first = i + 1
                    break
            self.updates += [segment for segment, _ in early[first + 1 :]]

    def final(self):
        if self.start is None:
            return [self.converging[-1][0]]
        if not self.dead:
            self.smooth.popleft()
            while self.smooth:
                if min(loss for _, loss in self.smooth) > self.threshold:
                    break
                self.updates.append(self.smooth.popleft()[0])
        return self.updates or [self.start]


def sequences():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        count = rng.integers(1, 25)
        kind = rng.integers(3)
        losses = rng.uniform(0.5, 2.0, count)
        if kind == 1:  # a valley with noise
            losses = 1 + ((np.arange(count) - 8) / 8) ** 2 + 0.2 * losses
        if kind == 2:  # ties
            losses = rng.integers(1, 4, count).astype(float)
        settings = (rng.integers(1, 6), rng.integers(1, 8), rng.choice([0.0, 0.1, 0.3]))
        yield [float(x) for x in losses], tuple(map(float, settings))


def test_the_valley_is_the_one_the_release_finds():
    lengths = set()
    for losses, (n_converge, n_tolerance, ratio) in sequences():
        settings = (int(n_converge), int(n_tolerance), ratio)
        online = OnlineValley(*settings)
        for segment, loss in enumerate(losses):
            online.feed(segment, loss)
        found = loss_valley(losses, *settings)
        assert found == online.final(), (losses, settings)
        lengths.add(len(found))
    assert len(lengths) > 15


def test_no_segment_is_forgotten_that_is_used_later():
    for losses, (n_converge, n_tolerance, ratio) in sequences():
        settings = (int(n_converge), int(n_tolerance), ratio)
        kept = set()
        for now in range(len(losses)):
            kept = (kept | {now}) & segments_needed(losses[: now + 1], *settings)
        assert set(loss_valley(losses, *settings)) <= kept, (losses, settings)


def test_before_convergence_only_a_window_is_kept():
    assert segments_needed(list(range(30, 0, -1))) == set(range(24, 30))


def test_by_hand():
    assert loss_valley([3, 2, 1, 2, 3, 4, 5, 6, 7, 8]) == [2, 3, 2, 3]
    assert loss_valley([5, 4, 3, 2, 1]) == [4]
    assert loss_valley([]) == []


def test_running_mean_is_the_mean():
    trees = [{"w": jnp.asarray(x, jnp.float32)} for x in np.random.randn(7, 3)]
    mean = {"w": jnp.zeros(3)}
    for count, tree in enumerate(trees):
        mean = running_mean(mean, tree, count)
    expected = np.mean([tree["w"] for tree in trees], 0)
    assert_close(mean["w"], expected)


@pytest.mark.parametrize("count", [0, 3])
def test_running_mean_keeps_the_dtype(count):
    half = {"w": jnp.ones(2, jnp.bfloat16)}
    assert running_mean(half, half, count)["w"].dtype == jnp.bfloat16
