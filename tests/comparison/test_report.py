"""A report is read by people who did not run it, from a file, with titles in it that anybody may have written."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recloom import Dataset
from recloom.comparison import Comparison, compare, parse_entries
from recloom.comparison.report import write_report
from recloom.comparison.report.plots import charts
from recloom.errors import ConfigError
from recloom.models.classic import EASE, Popular
from tests.comparison.conftest import write_rows, write_shop

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<script>alert('红色')</script></script> & 100 % {灯}_$1 \\ ~^ |"
LABELS = ["popular", "markov", "random", "a|b_c & <b>50 %</b> {x} #$^~\\", "ease", "weave"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    """Titles, categories and people of the worst names; a model that fails; curves, windows, slices, a map."""
    folder = tmp_path_factory.mktemp("worst")
    log, items, users = write_shop(folder)
    log.write_text(log.read_text().replace("u007", '"<img src=x onerror=alert(1)>用户""\'&"'))
    rows = [line.split(",") for line in items.read_text().splitlines()]
    write_rows(
        items, [rows[0], *([i, f"{EVIL} {n}", f"<i>书</i> & {n % 3}", y] for n, (i, _, _, y) in enumerate(rows[1:]))]
    )
    variants = {LABELS[3]: ("popular-recent", {})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EASE, "count", lambda self, data: 1 / 0)
        return compare(
            Dataset.from_files(log, items, users),
            parse_entries([*LABELS[:3], *LABELS[4:]], variants),
            settings={"encoder": {"name": "hashing"}, "training": {"epochs": 2}},
            windows=2,
            slice_by=["genre"],
            name="<shop> & Co",
        )


@pytest.fixture(scope="module")
def path(comparison, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "report.html"
    write_report(comparison, path)
    return path


class Page(HTMLParser):
    """What a browser would make of a page: its words, its elements and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words, self.scripts, self.elements, self.sources = "", [], [], []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words += data


# The page


def test_the_page_says_who_was_compared_and_who_failed_and_why(comparison, path):
    words = Page(path).words
    for label in LABELS:
        assert label in words
    assert "ZeroDivisionError: division by zero" in words
    assert (
        f"{comparison.models[0].label} is best with NDCG@10 {comparison.models[0].metrics['NDCG@10'].mean:.4f}" in words
    )
    assert "<shop> & Co" in words


def test_titles_categories_and_people_are_text_and_nothing_else(comparison, path):
    page = Page(path)
    assert EVIL in page.words
    assert len(page.scripts) == 2  # the library, and the charts of this page
    assert not {"img", "i"} & set(page.elements)
    assert page.sources == ["data:,"]  # an icon of nothing
    assert comparison.samples[0].user_id in page.words


def test_the_charts_hold_their_data_and_titles_cannot_end_their_script(comparison, path):
    specs = re.search(r"const specs = (.*);$", Page(path).scripts[1], re.MULTILINE)[1]
    assert "<" not in specs
    assert json.loads(specs) == json.loads(json.dumps(list(charts(comparison).values())))
    assert EVIL in json.dumps(json.loads(specs), ensure_ascii=False).replace("\\\\", "\\")
    assert list(charts(comparison)) == [
        "Quality against the length of the list",
        "Quality against training time",
        "Who is served",
        "Learning curves",
        "Over time",
        "How long people's histories are",
        "How popularity is spread",
        "When things happened",
        "What the items say",
    ]


def test_a_report_is_written_even_if_nothing_could_be_fitted(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(Popular, "count", lambda self, data: 1 / 0)
    comparison = compare(shop, parse_entries(["popular"]), settings={"encoder": {"name": "none"}}, windows=2)
    for name in ("report.html", "report.md", "report.tex", "report.json"):
        write_report(comparison, tmp_path / name)
    assert "No model could be fitted; the table says why." in Page(tmp_path / "report.html").words


def test_the_page_opens_without_a_network_and_draws_every_chart(comparison, path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    asked, said = [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page()

        def refuse(route):
            if not route.request.url.startswith(("file:", "data:")):
                asked.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        tab.route("**/*", refuse)
        tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        tab.goto(path.as_uri())
        tab.wait_for_function(f"document.querySelectorAll('svg.marks').length >= {len(charts(comparison))}")
        drawn = tab.locator(".chart svg.marks").count()
        sizes = [tab.locator(".chart svg.marks").nth(n).bounding_box() for n in range(drawn)]
        browser.close()
    assert asked == []
    assert said == []
    assert drawn == len(charts(comparison))
    assert all(size["width"] > 200 and size["height"] > 100 for size in sizes)


# Tables to paste


def test_markdown_tables_have_as_many_cells_in_every_row(comparison, tmp_path):
    write_report(comparison, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# <shop> & Co: temporal, ties strict")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4  # models, every metric, pairs, windows
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    assert re.search(r"^\| ease \| failed \|.*\| ZeroDivisionError: division by zero \|$", text, re.MULTILINE)
    best = comparison.models[0]
    assert re.search(rf"^\| {best.label} \| {best.metrics['NDCG@10'].mean:.4f} \|.*\| best \|$", text, re.MULTILINE)


def test_latex_is_balanced_and_escaped(comparison, tmp_path):
    write_report(comparison, tmp_path / "report.tex")
    text = (tmp_path / "report.tex").read_text(encoding="utf-8")
    assert text.startswith(r"\begin{tabular}{lrrrrrrrl}")
    assert text.endswith("\\end{tabular}\n")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(LABELS)
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 8  # between 9 cells
        assert not re.search(r"(?<!\\)[%_#]", row)
    assert r"a|b\_c \& $<$b$>$50 \%$<$/b$>$ \{x\} \#\$\textasciicircum{}\textasciitilde{}\textbackslash{}" in text


def test_json_holds_everything(comparison, tmp_path):
    write_report(comparison, tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(comparison.to_json()))
    assert "红色" in text  # as people write it


def test_another_ending_is_refused(comparison, tmp_path):
    with pytest.raises(ConfigError, match=r"a report ends in \.html, \.md, \.tex, \.json; .*report\.pdf does not"):
        write_report(comparison, tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []
