"""The page: self-contained, escaped, complete."""

import html.parser
import math
import re

from avae_jax.evaluation import html as page_of
from avae_jax.evaluation.verdict import Finding


class _Reader(html.parser.HTMLParser):
    """Keeps the text, the open elements and whatever points elsewhere."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(text):
    reader = _Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def make(**changes):
    options = {
        "title": "a <b> run",
        "about": "avae on digits",
        "headline": "Off & far.",
        "findings": [
            Finding("scale", "fault", "wrong scale: 2 < 3"),
            Finding("holes", "good", "n"),
        ],
        "cards": [("Error", "0.01", "mean image 0.1")],
        "pictures": {"Figures": [page_of.Picture("one", "how to read it", b"\x89PNG")], "None": []},
        "sections": [
            page_of.Section(
                "Latent",
                "",
                {"n": 10, "moments": {"std": 0.9, "std_null": 1.0}, "odd": math.nan},
            ),
            page_of.Section("Samples", "not computed", {}),
        ],
    }
    return page_of.make_page(**{**options, **changes})


def test_the_page_is_whole_and_points_nowhere_else():
    reader = read(make())
    assert reader.links == ["data:image/png;base64,iVBORw=="]
    text = make()
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_text_is_escaped():
    assert "a <b> run" in read(make()).text
    assert "a &lt;b&gt; run" in make()


def test_the_verdict_stands_before_figures_and_numbers():
    text = make()
    places = [text.index(part) for part in ("Off &amp; far.", "Error", "how to read it", "moments")]
    assert places == sorted(places)
    assert 'class="verdict fault"' in text
    assert 'class="verdict good"' in make(findings=[Finding("holes", "good", "none")])


def test_a_null_stands_beside_its_value():
    text = make()
    row = re.search(r"<tr><td>std</td>.*?</tr>", text)
    assert row is not None
    assert re.findall(r">([\d.]+)<", row[0]) == ["0.900", "1.00"]
    assert "std null" not in text
    assert "std_null" not in text


def test_headings_without_figures_are_left_out():
    assert "<h2>None</h2>" not in make()


def test_numbers_for_people():
    shown = {0.12345: "0.123", 12345.0: "12,345", 1e-5: "1.00e−05", -2.5: "−2.50", 7: "7"}
    for value, text in shown.items():
        assert page_of.number(value) == text
    assert page_of.number(None) == page_of.number(math.nan) == "–"
    assert page_of.number(math.inf) == "∞"
