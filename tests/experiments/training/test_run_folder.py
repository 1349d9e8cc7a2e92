"""What a run's folder refuses, and what it goes on with."""

import contextlib
import errno
import json
import os

import jax
import pytest

from experiments.config.run import make_config
from experiments.devices import one_device
from experiments.files import locked
from experiments.training import numerics, run_folder
from experiments.training.run_folder import RunFolder

CONFIG = make_config(
    data="rotated_digits", method="disam", unseen="75", seed=0, overrides={"steps": 4}
)


def open_run(path, config=CONFIG):
    return contextlib.closing(RunFolder(path, config, one_device()))


def begin(path):
    with open_run(path):
        pass


def rewrite(file, change):
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.fixture
def begun(tmp_path):
    begin(tmp_path)
    return tmp_path


def test_another_process_in_the_folder_is_refused_and_harms_nothing(begun):
    before = (begun / "config.json").read_bytes()
    with (
        locked(begun, wait=False, what="training"),
        pytest.raises(ValueError, match=f"process {os.getpid()} on .* is training there"),
    ):
        begin(begun)
    assert (begun / "config.json").read_bytes() == before
    begin(begun)


def test_a_folder_is_let_go_of_where_opening_it_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            begin(tmp_path)
    begin(tmp_path)


def test_a_folder_of_something_else_is_left_as_it_was(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_left_is_removed(begun):
    (begun / "config.json.5e1f.tmp").write_text('{"data": "rotat')
    begin(begun)
    assert not list(begun.glob("*.tmp"))


def test_a_field_that_an_older_run_does_not_have_was_its_default(begun):
    def older(config):
        del config["data_fingerprint"], config["preset"]["penalty"]
        del config["hyperparameters"]["theta"]

    rewrite(begun / "config.json", older)
    (begun / "environment.json").unlink()
    begin(begun)
    rewrite(begun / "config.json", lambda config: config["preset"].pop("weight_decay"))
    with pytest.raises(ValueError, match=r"weight_decay: 0.0 there, 0.01 asked"):
        begin(begun)


def test_a_field_that_no_version_has_is_named_with_the_nearest(begun):
    def typo(config):
        config["hyperparameters"]["roh"] = config["hyperparameters"].pop("rho")

    rewrite(begun / "config.json", typo)
    message = r"config.json has .*, hyperparameters.roh; is it hyperparameters.rho\?"
    with pytest.raises(ValueError, match=message):
        begin(begun)


@pytest.mark.parametrize("name", ["config.json", "environment.json", "result.json"])
def test_a_damaged_file_is_named(begun, name):
    (begun / name).write_text('{"a": "b\n"}')
    message = rf"{name} cannot be read as JSON: Invalid control character at: line 1"
    with pytest.raises(ValueError, match=message), open_run(begun) as folder:
        folder.result()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("jax_enable_x64", True, "jax_enable_x64 was False and is True"),
        ("jax_default_prng_impl", "rbg", "JAX_DEFAULT_PRNG_IMPL=threefry2x32"),
        ("jax_threefry_partitionable", False, "JAX_THREEFRY_PARTITIONABLE=True"),
        ("jax_default_matmul_precision", "bfloat16", "was None and is 'bfloat16'"),
        ("jax_numpy_dtype_promotion", "strict", "was 'standard' and is 'strict'"),
    ],
)
def test_other_flags_of_jax_are_refused_by_name(begun, flag, value, message, finished):
    if finished:
        (begun / "result.json").write_text("{}")
    usual = getattr(jax.config, flag)
    jax.config.update(flag, value)
    try:
        with pytest.raises(ValueError, match=f"under other flags of JAX.*{message}"):
            begin(begun)
    finally:
        jax.config.update(flag, usual)
    begin(begun)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("result.json", '{"out_of_domain_accuracy": 0.5}'),
        ("metrics.jsonl", '{"kind": "train"}\n{"kind": "evaluation", "step": 1}\n'),
    ],
)
def test_a_run_that_held_out_other_images_is_refused(begun, file, text):
    (begun / file).write_text(text)
    with pytest.raises(ValueError, match="earlier version, which held out other images"):
        begin(begun)


def test_a_run_goes_on_under_the_flags_that_it_began_with(tmp_path):
    with jax.enable_x64(True):
        begin(tmp_path)
        begin(tmp_path)
    with pytest.raises(ValueError, match=r"x64 was True and is False.*JAX_ENABLE_X64=True"):
        begin(tmp_path)


def test_the_flags_are_those_that_jax_begins_with():
    """Else every run would be told apart from those of the default."""
    assert numerics.changed_flags() == {}
    assert all(hasattr(jax.config, name) for name in numerics.FLAGS)


def test_another_machine_or_version_is_told_and_goes_on(begun, capsys):
    def elsewhere(environment):
        environment["packages"]["jax"] = "0.8.0"
        environment["device"]["kind"] = "TPU v9"
        del environment["processor"]  # as a version that did not look at it

    rewrite(begun / "environment.json", elsewhere)
    begin(begun)
    (told,) = capsys.readouterr().err.splitlines()
    assert f"jax was 0.8.0 and is {jax.__version__}" in told
    assert "the device was TPU v9 and is cpu" in told
    assert "processor" not in told
    begin(begun)
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_the_system_s_word_on_the_checkpoints(begun, monkeypatch):
    def full(*_, **__):
        raise RuntimeError(f"OUT_OF_RANGE: Failed writing: {os.strerror(errno.ENOSPC)}")

    with open_run(begun) as folder:
        monkeypatch.setattr(folder._checkpoints, "save", full)
        state = make_state()
        with pytest.raises(OSError, match="No space left") as error:
            folder.save(state)
    assert error.value.filename == str(begun / "checkpoints")


def make_state():
    return run_folder.TrainState(jax.numpy.zeros([], int), {}, {}, {}, {})


def test_brackets_in_the_path_harm_no_checkpoint(tmp_path):
    """Orbax takes its path for a pattern, and kept what it could not read."""
    state = make_state()._replace(params={"w": jax.numpy.arange(3.0)})
    with open_run(tmp_path / "[red]") as folder:
        folder.save(state)
    with open_run(tmp_path / "[red]") as folder:
        found = folder.restore(make_state()._replace(params={"w": jax.numpy.zeros(3)}))
    assert found.params["w"].tolist() == [0, 1, 2]


def test_a_checkpoint_of_another_version_is_refused(begun):
    with open_run(begun) as folder:
        folder.save(make_state()._replace(opt_state={"memory": jax.numpy.zeros(1)}))
    fresh = make_state()._replace(opt_state={"inner": jax.numpy.zeros(1)})
    with (
        open_run(begun) as folder,
        pytest.raises(ValueError, match="made by another version of this code"),
    ):
        folder.restore(fresh)
