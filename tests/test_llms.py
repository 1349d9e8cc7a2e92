"""llms.txt and llms-full.txt, as a build of the documentation writes them."""

import importlib.util
import re
from pathlib import Path

import yaml

import disam_jax as dj

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def hook():
    spec = importlib.util.spec_from_file_location("llms", ROOT / "docs/llms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_writes_both_files(tmp_path):
    assert "docs/llms.py" in CONFIG["hooks"]
    hook().on_post_build({**CONFIG, "site_dir": str(tmp_path)})
    listed = (tmp_path / "llms.txt").read_text()
    whole = (tmp_path / "llms-full.txt").read_text()

    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    links = re.findall(r"^- \[.*\]\((\S+)\.html\): \S.*\.$", listed, re.M)
    assert sorted(links) == sorted(page.rpartition(".")[0] for page in nav)
    texts = [page for page in nav if page != "studies/report.md"]
    assert re.findall(r"^<!-- (\S+) -->$", whole, re.M) == texts
    quickstart = (ROOT / "docs/quickstart.md").read_text()
    assert quickstart in whole
    assert "::: disam_jax" not in whole
    assert dj.disam.__doc__.splitlines()[0] in whole
    assert "### disam_jax.disam(rho: Hyperparameter" in whole
    assert len(whole) < 1_000_000


def test_a_host_tells_the_pages_its_address(monkeypatch):
    monkeypatch.delenv("READTHEDOCS_CANONICAL_URL", raising=False)
    config = {}
    hook().on_config(config)
    assert config == {}  # the site names no address before it has one
    monkeypatch.setenv("READTHEDOCS_CANONICAL_URL", "https://docs.test/en/v1/")
    hook().on_config(config)
    assert config.keys() == {"site_url", "repo_url"}
