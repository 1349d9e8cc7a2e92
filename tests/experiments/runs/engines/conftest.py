import pytest

from tests.commands import done
from tests.experiments.runs.engines.sweep import LONGER, RUNS
from tests.experiments.runs.sweeps import computed


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """What the runs of the tests' sweep compute."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done("sweep", folder, *LONGER, "--jobs", 1)
    found = computed(folder)
    assert len(found) == RUNS
    return found
