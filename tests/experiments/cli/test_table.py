import json

import pytest

from experiments.cli.table import read_records


def test_records_of_an_older_version_get_the_config_that_their_file_says(tmp_path):
    names = {"method": "sam", "data": "emoji_styles", "unseen_domain": "mono", "seed": 0}
    old = names | {"steps": 7}
    presets = [{"steps": 6, "shift": 1}, {"steps": 7, "shift": 2}]
    told = {"presets": presets, "hyperparameters": {"sam": {"rho": 0.3}}, "records": [old]}
    (tmp_path / "results.json").write_text(json.dumps(told))
    (found,) = read_records(tmp_path)
    assert found["config"]["preset"] == presets[1]
    assert found["config"]["hyperparameters"] == {"rho": 0.3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"results.json cannot be read as JSON: .* line 1 column 2"),
        ("[]", "results.json must hold a JSON object, not a list"),
        ("{}", "results.json holds no records"),
        ('{"records": [1]}', "results.json holds no records"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, text, message):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_records(tmp_path)
