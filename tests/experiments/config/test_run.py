"""What a run is, beside its method and its training."""

import dataclasses

import pytest

from experiments.cli.options import TRAINING
from experiments.config.run import make_config, settings

ONE = make_config(data="emoji_styles", method="sam", unseen="mono", seed=3)
PAIR = dataclasses.replace(ONE, also_unseen="noto")


def test_a_run_leaves_out_one_domain_or_two():
    assert ONE.unseen_domains == ("mono",) and PAIR.unseen_domains == ("mono", "noto")
    domains = ("fluent", "mono", "noto", "twemoji")
    assert ONE.sources(domains) == ["fluent", "noto", "twemoji"]
    assert PAIR.sources(domains) == ["fluent", "twemoji"]
    assert (ONE.name, PAIR.name) == ("sam/mono/seed3", "sam/mono,noto/seed3")
    assert settings(ONE) == settings(PAIR)


def test_the_two_are_different_domains():
    with pytest.raises(ValueError, match="another domain than unseen; got mono twice"):
        dataclasses.replace(ONE, also_unseen="mono")


def test_the_second_domain_is_no_option_of_train_and_compare():
    names = {
        f.name
        for owner in TRAINING
        for f in dataclasses.fields(owner)
        if "help" in f.metadata
    }
    assert "log_every" in names and "also_unseen" not in names
