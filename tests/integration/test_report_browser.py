"""The page in a real browser, from disk: it fetches nothing, and reads well by day, by night and on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel.measure.page.known import Known
from flywheel.measure.report import page
from tests import chromium, known

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PATH is None, reason="chromium is not installed"),
]
PHONE, DESK = 360, 1280
PAGES = {
    "everything": known.full(),
    "nothing": known.bare(),
    "400 generations": known.full(400, gain=None, curve=None, ledger=known.ledger(2_800)),
}
WATCH = """
window.wrong = [];
addEventListener('error', event => wrong.push(String(event.message)), true);
addEventListener('securitypolicyviolation', event => wrong.push(event.blockedURI));
"""
CONTRAST = """(() => {
    const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const paper = getComputedStyle(document.body).backgroundColor;
    const found = {};
    const kinds = 'h1,h2,p,li,dt,dd,td,th,a,summary,code,small,span,figcaption,svg text';
    for (const at of document.querySelectorAll(kinds)) {
        if (!at.textContent.trim() || !at.getClientRects().length) continue;
        const style = getComputedStyle(at);
        const ink = at.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const under = at.tagName === 'CODE' ? style.backgroundColor : paper;
        const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
        found[`${at.tagName} ${at.getAttribute('class') ?? ''} ${ink} on ${under}`] = (a + .05) / (b + .05);
    }
    return JSON.stringify(found);
})()"""
TEXTS = """JSON.stringify([...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).map(t => {
    const svg = t.ownerSVGElement, box = svg.getBoundingClientRect(), at = t.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const size = parseFloat(getComputedStyle(t).fontSize) * scale;
    return {said: t.textContent, left: at.left, right: at.right, size};
}))"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        yield opened


@pytest.fixture(params=PAGES)
def told(request: pytest.FixtureRequest) -> Known:
    return PAGES[request.param]


def look(tab: chromium.Page, folder: Path, told: Known, *, width: int = DESK, dark: bool = False) -> None:
    """Open the page from disk."""
    path = folder / "report.html"
    path.write_text(page(told), encoding="utf-8")
    tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
    )
    tab.open(path.as_uri(), width=width)
    ready = "location.protocol === 'file:' && document.readyState === 'complete'"
    tab.wait(f"{ready} && document.getElementsByTagName('h1').length", 20)


def asked(tab: chromium.Page, script: str) -> Any:
    return json.loads(tab.ask(script))


def test_it_opens_from_disk_and_fetches_nothing(tab: chromium.Page, tmp_path: Path, told: Known) -> None:
    look(tab, tmp_path, told)
    assert asked(tab, "JSON.stringify(performance.getEntriesByType('resource').map(entry => entry.name))") == []
    assert asked(tab, "JSON.stringify(wrong)") == []
    assert tab.failures == []
    assert tab.ask("document.scripts.length") == 0


def test_nothing_is_wider_than_a_phone_also_with_all_numbers_shown(
    tab: chromium.Page, tmp_path: Path, told: Known
) -> None:
    look(tab, tmp_path, told, width=PHONE)
    tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.ask("document.documentElement.scrollWidth") <= PHONE
    assert tab.ask("document.documentElement.clientWidth") >= PHONE - 20


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_what_stands_in_charts_can_be_read_and_is_within_the_page(
    tab: chromium.Page, tmp_path: Path, told: Known, width: int
) -> None:
    look(tab, tmp_path, told, width=width)
    texts = asked(tab, TEXTS)
    assert [t for t in texts if t["size"] < 11 or t["left"] < 0 or t["right"] > width] == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab: chromium.Page, tmp_path: Path, dark: bool) -> None:
    look(tab, tmp_path, PAGES["everything"], dark=dark)
    found = asked(tab, CONTRAST)
    assert len(found) > 15
    assert {what: ratio for what, ratio in found.items() if ratio < 4.5} == {}


def test_night_is_another_ground_and_another_ink(tab: chromium.Page, tmp_path: Path) -> None:
    seen = []
    for dark in (False, True):
        look(tab, tmp_path, PAGES["everything"], dark=dark)
        seen.append(tab.ask("(s => s.backgroundColor + s.color)(getComputedStyle(document.body))"))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_each_figure_shows_its_sentence_one_drawing_and_its_numbers(
    tab: chromium.Page, tmp_path: Path, told: Known, width: int
) -> None:
    look(tab, tmp_path, told, width=width)
    tab.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    figures = asked(
        tab,
        """JSON.stringify([...document.querySelectorAll('figure')].map(f => ({
            says: f.querySelector('figcaption').innerText,
            drawn: [...f.querySelectorAll('.wide, .narrow')].filter(d => d.getClientRects().length).length,
            rows: f.querySelectorAll('tbody tr').length,
            named: [...f.querySelectorAll('svg')].every(s => s.querySelector('title') && s.querySelector('desc')),
        })))""",
    )
    assert bool(figures) is bool(told.generations)
    for figure in figures:
        assert len(figure["says"]) > 40
        assert figure["drawn"] == 1
        assert figure["rows"] > 0
        assert figure["named"]


def test_every_part_is_there_to_be_seen(tab: chromium.Page, tmp_path: Path, told: Known) -> None:
    look(tab, tmp_path, told)
    heads = asked(tab, "JSON.stringify([...document.querySelectorAll('h2')].map(h => [h.innerText, h.offsetHeight]))")
    assert len(heads) >= 11
    assert all(text and height > 0 for text, height in heads)


def test_what_data_says_is_not_run(tab: chromium.Page, tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"window.wrong.push('ran')\"><script>window.wrong.push('ran')</script>"
    look(tab, tmp_path, known.full(product=evil))
    assert asked(tab, "JSON.stringify(wrong)") == []
    assert evil in tab.text()
