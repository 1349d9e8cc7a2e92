import base64
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import matplotlib.pyplot as plt
import pytest

from experiments.results.table import Table
from experiments.studies.kit.claims import (
    ANSWERS as FOUR,
)
from experiments.studies.kit.claims import (
    CANNOT_TELL,
    NO_DIFFERENCE,
    OPPOSITE,
    OURS,
    PAPERS,
    SEEN,
    Arm,
    Claim,
)
from experiments.studies.kit.gather import as_html, gather
from experiments.studies.kit.runs import Setting, Store
from experiments.studies.kit.sections import read_report, tally
from experiments.studies.kit.study import Figure, Measured, Study, run_study
from experiments.studies.kit.summary import read_summary
from experiments.studies.kit.values import Value, read_values

CLAIM = "SAM & co. <b>beat</b> ERM where |g| < 1, with `rho <b>`"
ANSWERS = {"first": [SEEN, CANNOT_TELL, NO_DIFFERENCE], "second": [OPPOSITE, SEEN]}
EFFECTS = {SEEN: 0.03, OPPOSITE: -0.03, NO_DIFFERENCE: 0.0, CANNOT_TELL: 0.005}
NOISE = {CANNOT_TELL: 0.03}


def made_up(name, answers):
    """A study with a figure, a table and claims that get these answers."""

    def measure(setting):
        values = [
            Value("made up", "base", seed, "d", "unseen_concept_accuracy", 0.5)
            for seed in range(10)
        ]
        for i, answer in enumerate(answers):
            noise = NOISE.get(answer, 0.0005)
            for seed in range(10):
                value = 0.5 + EFFECTS[answer] + noise * (-1) ** seed
                values.append(values[0]._replace(method=f"m{i}", seed=seed, value=value))
        return Measured(values, {"line": [1, len(name)]})

    def claims(values):
        return [
            Claim(
                CLAIM,
                f"paper {i}",
                OURS if i == 1 else PAPERS,
                "made up",
                "unseen_concept_accuracy",
                Arm("made up", f"m{i}"),
                Arm("made up", "base"),
                family=f"{i}",
            )
            for i in range(len(answers))
        ]

    def draw(values, curves, folder):
        folder.mkdir(parents=True, exist_ok=True)
        figure, axes = plt.subplots(figsize=(1, 1))
        axes.plot(curves["line"])
        figure.savefig(folder / "line.png", dpi=20)
        plt.close(figure)
        return [Figure("line.png", f"A line of `{name}` & no more", "**How** to read it.")]

    return Study(
        headline=True,
        name=name,
        title=f"Is the {name} claim right?",
        protocol=f"The protocol of {name}: `rho = 0.05`, **nothing** tuned.",
        measure=measure,
        claims=claims,
        draw=draw,
        tables=lambda values, curves: [
            Table("Ends", ["end", "|y|"], [["last", "<i>7</i>"]])
        ],
        scope="A scope: a made-up network of <b>7</b> weights.",
    )


REGISTRY = {
    **{name: made_up(name, answers) for name, answers in ANSWERS.items()},
    "third": made_up("third", [SEEN]),  # never run
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of two finished studies, run in another order than the registry's."""
    folder = tmp_path_factory.mktemp("studies")
    for name, minutes in (("second", 90), ("first", 60)):
        store = Store(folder / "runs")
        store.seconds_used = 60.0 * minutes
        store.commits_used = {f"commit-of-{name}"}
        command = f"python -m experiments study {name} --seeds 3"
        run_study(REGISTRY[name], Setting(store), folder / name, command)
    (folder / "summary.md").write_text("**Scope.** Small: {first | made up | m0 - base}.")
    gather(folder, REGISTRY, folder)
    return folder


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, attribute, *tags):
        """The values of an attribute, of some tags or of all."""
        return [
            found[attribute]
            for tag, found in self.elements
            if attribute in found and (not tags or tag in tags)
        ]


@pytest.fixture(scope="module")
def page(studies):
    return Page((studies / "report.html").read_text())


def test_returns_the_findings_in_the_order_of_the_registry(studies, tmp_path):
    found = gather(studies, REGISTRY, tmp_path)
    assert [f.answer for f in found] == [*ANSWERS["first"], *ANSWERS["second"]]


def test_page_needs_no_other_file(page):
    assert not {"script", "iframe", "object", "video"} & {tag for tag, _ in page.elements}
    assert all(link.startswith("data:") for link in page.all("href", "link"))
    assert all(source.startswith("data:") for source in page.all("src"))
    assert "url(" not in page.text and "@import" not in page.text  # the style is text too


def test_images_are_the_figures_of_the_studies(studies, page):
    images = [
        base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        for source in page.all("src", "img")
    ]
    files = ("effects.png", "first/line.png", "second/line.png")
    assert images == [(studies / file).read_bytes() for file in files]
    assert page.all("alt", "img") == [
        "Accuracy on what was not trained on: every comparison",
        "A line of first & no more",
        "A line of second & no more",
    ]


def test_abstract_counts_the_answers(studies, page):
    abstract = page.text.split("Contents")[0]
    assert "2 studies put 3 claims to 5 tests, in at most 2.5 hours" in abstract
    assert "Not run yet: 1 of 3." in abstract
    counted = read_report(studies, REGISTRY).counts
    assert counted.rows == [
        ["seen here", "1", "1"],
        ["the opposite seen here", "1", "0"],
        ["no difference that matters here", "1", "0"],
        ["cannot be told", "0", "1"],
    ]
    markdown = (studies / "report.md").read_text()
    assert "| cannot be told | 0 | 1 |" in markdown
    assert tally(read_report(studies, REGISTRY).findings) == [
        (SEEN, 2),
        (OPPOSITE, 1),
        (NO_DIFFERENCE, 1),
        (CANNOT_TELL, 1),
    ]


def test_the_first_screen_has_the_numbers_of_the_findings(studies, page):
    effect = "Small: +3.00 points [+2.96, +3.04]."
    for text in (page.text, (studies / "report.md").read_text()):
        assert effect in text.split("Contents")[0]


def test_a_sentence_about_nothing_that_was_found_is_refused(studies, tmp_path):
    findings = {s.folder.name: s.findings for s in read_report(studies, REGISTRY).sections}
    (tmp_path / "summary.md").write_text("By {first | made up | m7 - base}.")
    with pytest.raises(ValueError, match=r"m7 - base\}, which no study found.*m0"):
        read_summary(tmp_path, findings)


def test_every_value_of_every_study_is_kept(studies):
    found = read_values(studies / "values.csv.gz")
    assert {name: len(values.rows) for name, values in found.items()} == {
        "first": 40,
        "second": 30,
    }


def test_links_inside_the_reports_lead_somewhere(studies, page):
    markdown = (studies / "report.md").read_text()
    places = {
        "html": (page.all("href", "a"), page.all("id")),
        "markdown": (
            re.findall(r"\]\((#[^)]*)\)", markdown),
            re.findall(r'<a id="([^"]*)">', markdown),
        ),
    }
    for links, ids in places.values():
        assert len(ids) == len(set(ids))
        assert {"#study-first", "#study-second"} <= set(links)
        assert all(link[0] == "#" and link[1:] in ids for link in links)


def test_text_is_no_html(page):
    assert page.text.count("SAM & co. <b>beat</b> ERM where |g| < 1, with rho <b>") == 5
    assert not {"b", "i"} & {tag for tag, _ in page.elements}
    assert "The protocol of first: rho = 0.05, nothing tuned." in page.text


def test_answers_are_told_by_word_and_symbol(page):
    words = "|".join(FOUR)
    badges = re.findall(rf"([✓✗≈?])\s+({words})\b", page.text)
    assert set(badges) == set(zip("✓✗≈?", FOUR, strict=True))
    assert len(badges) == 5


def test_each_section_says_how_it_was_made(page):
    for name in ANSWERS:
        section = page.text.split(f"The protocol of {name}")[1].split("Back to")[0]
        assert f"python -m experiments study {name} --seeds 3" in section
    whole = page.text.split("Total time")[1]
    assert "2.5 hours" in whole
    assert "commit-of-first" in whole and "commit-of-second" in whole


def test_unfinished_study_is_listed_with_its_command(studies, page):
    for text in (page.text, (studies / "report.md").read_text()):
        waiting = text.split("Not run yet")[-1]
        assert "Is the third claim right?" in waiting
        assert "python -m experiments study third\n" in waiting


@pytest.mark.parametrize("place", [".", "elsewhere/deeper"])
def test_markdown_links_to_the_figures_from_where_it_lies(studies, place):
    out = studies / place
    gather(studies, REGISTRY, out)
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", (out / "report.md").read_text())
    assert links[0] == "effects.png" and (out / links[0]).exists()
    assert [(out / unquote(link)).resolve() for link in links[1:]] == [
        (studies / name / "line.png").resolve() for name in ANSWERS
    ]
    assert place != "." or links[1:] == ["first/line.png", "second/line.png"]


def test_a_claim_is_told_once_in_a_section_with_its_answers_below(studies):
    text = (studies / "report.md").read_text()
    claim = r"SAM & co. &lt;b>beat&lt;/b> ERM where |g| < 1, with `rho <b>`"
    first = text.split('<a id="study-first">')[1].split('<a id="study-second">')[0]
    assert first.count(f"**1.1** {claim} (paper 0)\n- ✓ **seen here**, made up: ") == 1
    assert first.count(claim) == 3
    assert "[Protocol, setting, p-values and numbers](first/page.md)" in first
    assert "\n    python -m experiments study first --seeds 3\n" in first


def test_study_that_is_not_known_comes_last_under_its_name(studies):
    report = read_report(studies, {"second": REGISTRY["second"]})
    assert [section.title for section in report.sections] == [
        "Is the second claim right?",
        "first",
    ]
    assert len(report.findings) == 5
    html = as_html(report, studies)
    assert html.count("<img") == 3 and "does not have this study" in html


def test_nothing_finished_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no finished study.*study NAME.*first, second"):
        gather(tmp_path, REGISTRY, tmp_path)
    assert not list(tmp_path.iterdir())
