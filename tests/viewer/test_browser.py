"""The viewer's page in a real Chromium, Debian's or any that is on the path. Without one, tests are skipped; in CI they fail."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from datasetdm.exporters import export
from datasetdm.records import Labels, Prompt, Provenance, Sample, Skeleton
from datasetdm.records.edits import reject, score
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import Review, read_reviews
from datasetdm.viewer.hits import HitsAndMisses
from datasetdm.viewer.server import leading_to
from factory import make_sample
from served import Client, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on the path: apt-get install chromium"
)

EVIL = """<img src=x onerror="document.title='ran'"><script>document.title='ran'</script>"'><svg onload=alert(1)>"""
NAMES = Labels(("sky", "dog", f"grass {EVIL}"), skeletons={"dog": Skeleton(("nose", "tail"), ((0, 1),))})
COUNT = 60
SECOND_PAGE = 48


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI must install Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """Sixty images, one of whose prompts and labels are markup."""
    first = [replace(make_sample(f"s{i}", (24, 32), i, NAMES), key=f"s{i}") for i in range(4)]
    many: list[Sample] = [
        replace(first[i % 4], key=f"s{i}", prompt=Prompt(f"image {i}", ("dog",), i)) for i in range(COUNT)
    ]
    many[1] = replace(many[1], prompt=Prompt(EVIL, (), 1), provenance=Provenance(details={EVIL: EVIL, "note": EVIL}))
    write_store(many, tmp_path / "store", NAMES)
    with serving(tmp_path / "store") as client:
        yield client, tmp_path / "store"


@pytest.fixture
def page(browser: Browser, served: tuple[Client, Path]) -> Iterator[Page]:
    """The opened page; at the end no error may be in the console, and no other host asked."""
    yield from opened(browser, served[0], {"width": 1280, "height": 900})


@pytest.fixture
def phone(browser: Browser, served: tuple[Client, Path]) -> Iterator[Page]:
    yield from opened(browser, served[0], {"width": 390, "height": 844})


def opened(browser: Browser, client: Client, size: dict) -> Iterator[Page]:
    with browser.new_context(viewport=size, reduced_motion="reduce") as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        problems: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("dialog", lambda d: problems.append(f"dialog {d.message}"))
        page.on("request", lambda r: asked.add(urlsplit(r.url).netloc))
        page.goto(client.url)
        expect(page.locator(".card")).to_have_count(48)
        expect(page.locator("#labels li")).to_have_count(3)
        yield page
        assert problems == [] and asked == {client.host}


def focus_is_on(page: Page, key: str) -> None:
    """Wait until the card of a sample has the focus."""
    page.wait_for_function("key => document.activeElement.closest('.card')?.dataset.key === key", arg=key)


def test_everything_by_keyboard(page: Page, served: tuple[Client, Path], tmp_path: Path) -> None:
    _, folder = served
    page.keyboard.press("ArrowRight")
    focus_is_on(page, "s0")
    for key, expected in (
        ("ArrowRight", "s1"),
        ("ArrowDown", "s5"),
        ("ArrowUp", "s1"),
        ("ArrowLeft", "s0"),
        ("ArrowLeft", "s0"),
    ):
        page.keyboard.press(key)
        focus_is_on(page, expected)
    page.keyboard.press("a")
    expect(page.locator(".card").nth(0)).to_have_attribute("data-verdict", "accept")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.locator("#position")).to_have_text("2 of 60")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#detail-title")).to_have_text("image 2")
    page.keyboard.press("r")
    expect(page.locator("#detail-title")).to_have_text("image 3")
    page.keyboard.press("Shift+R")
    page.keyboard.type("wrong mask")
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("image 4")
    page.keyboard.press("r")
    expect(page.locator("#detail-title")).to_have_text("image 5")
    page.keyboard.press("u")
    expect(page.locator("#detail-title")).to_have_text("image 4")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    focus_is_on(page, "s4")
    said = read_reviews(folder)
    assert said["s0"].verdict == "accept" and said["s2"].verdict == "reject" and said["s4"].verdict == ""
    assert said["s3"] == Review("s3", "reject", "wrong mask")
    assert export(Store(folder), "coco", tmp_path / "coco") == COUNT - 2
    images = json.loads((tmp_path / "coco/annotations/instances.json").read_text())["images"]
    assert {i["file_name"] for i in images} == {f"s{i}.png" for i in range(COUNT) if i not in (2, 3)}


def test_fixing_a_label_by_keyboard(page: Page, served: tuple[Client, Path]) -> None:
    client, folder = served
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    selects = page.locator("#fixes select")
    expect(selects).to_have_count(4)
    page.keyboard.press("l")
    expect(selects.first).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_label("Label of object 1")).to_be_focused()
    page.keyboard.press("ArrowUp")  # from dog to sky
    expect(page.get_by_role("button", name="Take back: object 1 was dog")).to_be_visible()
    assert (
        read_reviews(folder)["s0"].objects == {0: "sky"}
        and client.get("/api/sample/0")["shapes"]["objects"][0]["label"] == "sky"
    )
    expect(page.locator(".card .badge").first).to_have_text("labels fixed")
    expect(page.locator(".card .chips").first).not_to_contain_text("dog")
    page.keyboard.press("Escape")
    expect(page.locator("#detail-title")).to_be_focused()
    page.get_by_role("button", name="Take back: object 1 was dog").click()
    expect(page.get_by_label("Label of object 1")).to_have_value("dog")
    assert not read_reviews(folder)["s0"].fixes
    page.keyboard.press("3")
    page.locator("#stage path").click()
    expect(page.get_by_label("Label of object 1")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()


def test_markup_is_shown_not_run(page: Page, served: tuple[Client, Path]) -> None:
    expect(page.locator(".card .prompt").nth(1)).to_have_text(EVIL)
    page.locator(".card .open").nth(1).click()
    expect(page.locator("#detail-title")).to_have_text(EVIL)
    expect(page.locator("#fixes select")).to_have_count(4)
    page.locator("summary").click()
    expect(page.locator("#provenance dd").last).to_have_text(EVIL)
    page.keyboard.press("Shift+R")
    page.keyboard.type(EVIL)
    page.keyboard.press("Enter")
    expect(page.locator("#detail-title")).to_have_text("image 2")
    page.keyboard.press("Escape")
    page.locator("#reason-bars button").filter(has_text=EVIL).click()
    expect(page.locator(".nothing, .card")).to_have_count(1)
    assert (
        page.title() == "store"
        and page.evaluate("document.querySelectorAll('img[src=x], body script, [onload]').length") == 0
    )


def test_inline_script_is_blocked_by_the_policy(browser: Browser, served: tuple[Client, Path]) -> None:
    """The second line of defence: even markup that came into the page would not run."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(served[0].url)
        page.evaluate("html => { document.body.insertAdjacentHTML('beforeend', html) }", EVIL)
        page.evaluate(INLINE)
        page.wait_for_timeout(100)
        assert page.evaluate("window.ran === undefined") and page.title() != "ran"


def test_filters_pages_and_the_address(page: Page, served: tuple[Client, Path]) -> None:
    expect(page.locator("#count")).to_have_text("60 images")
    page.keyboard.press("n")
    expect(page.locator(".card")).to_have_count(COUNT - SECOND_PAGE)
    focus_is_on(page, "s48")
    assert page.url.endswith("?offset=48")
    page.reload()
    expect(page.locator(".card")).to_have_count(COUNT - SECOND_PAGE)
    expect(page.locator("#page")).to_have_value("2")
    expect(page.locator("#labels li")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("image 5")
    expect(page.locator("#count")).to_have_text("11 of 60 images")  # 5, 50 to 59
    expect(page.locator(".card")).to_have_count(11)
    assert "prompt=image+5" in page.url and "offset" not in page.url
    page.locator("#clear").click()
    expect(page.locator("#count")).to_have_text("60 images")
    dogs = page.get_by_role("button", name=re.compile("^dog"))
    dogs.click()
    expect(dogs).to_have_attribute("aria-pressed", "true")
    page.locator("[name=objects_min]").fill("2")
    expect(page.locator(".nothing")).to_be_visible()
    expect(page.locator("#objects-of")).to_have_text("of dog")


def test_crowds_and_what_filters_found(browser: Browser, tmp_path: Path) -> None:
    """A crowd is hatched and named; a rejected row says why, and its scores can be filtered by."""
    samples = [replace(make_sample(f"s{i}", (24, 32), i, NAMES), key=f"s{i}", split="val") for i in range(3)]
    samples = [
        replace(score(s, "sharpness", 10.0 * i), prompt=Prompt("a dog", (), 5, "grammar"))
        for i, s in enumerate(samples)
    ]
    samples[0] = replace(reject(samples[0], "blurred"), instances=replace(samples[0].instances, crowd=np.array([True])))
    write_store(samples, tmp_path / "store", NAMES)
    with serving(tmp_path / "store") as client, browser.new_context(reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(client.url)
        expect(page.locator(".card .badge")).to_have_text(["filtered: blurred"])
        page.locator(".card .open").first.click()
        expect(page.locator("#stage path.hatch")).to_have_count(1)
        expect(page.locator("#stage text")).to_have_text("1 dog (crowd)")
        expect(page.locator("#fixes .tag")).to_have_text("crowd")
        expect(page.locator("#quality-reasons")).to_have_text("Rejected by a filter: blurred")
        expect(page.locator("#quality-scores")).to_contain_text("sharpness")
        page.locator("summary").click()
        expect(page.locator("#provenance")).to_contain_text("a grammar")
        expect(page.locator("#provenance")).to_contain_text("val")
        page.keyboard.press("Escape")
        page.locator("#reason-bars button").click()
        expect(page.locator("#count")).to_have_text("1 of 3 images")
        expect(page.locator("#reason-bars button")).to_have_text("blurred1")
        page.locator("#reason-bars [aria-pressed=true]").click()
        page.locator("#score").select_option("sharpness")
        histogram = page.get_by_role(
            "img", name="Histogram of sharpness: 3 images from 0 to 20, most of them, 1, between"
        )
        expect(histogram).to_have_accessible_name(re.compile("2 accepted$"))
        histogram.locator(".bin").last.click()
        expect(page.locator("#count")).to_have_text("1 of 3 images")
        page.locator("[name=score_max]").fill("")
        page.locator("[name=score_min]").fill("5")
        expect(page.locator("#count")).to_have_text("2 of 3 images")
        page.locator("#below").fill("15")
        expect(histogram).to_have_count(0)
        line = page.get_by_role("img", name="Histogram of sharpness: 2 images").locator(".threshold")
        expect(line).to_have_attribute("d", re.compile(r"^M180 "))
        expect(page.locator("#preview-count")).to_have_text("1 of 2 accepted images would be rejected (50 %).")
        expect(page.locator("#preview-below img")).to_have_attribute("title", "s1")
        expect(page.locator("#preview-above img")).to_have_attribute("title", "s2")
        expect(page.locator("#preview-copy")).to_be_hidden()
        expect(page.locator("#count")).to_have_text("2 of 3 images")
        page.locator("#score").select_option("confidence")
        page.locator("#below").fill("0.5")
        expect(page.locator("#preview-command")).to_contain_text("--min-confidence 0.5")
        page.locator("#preview-copy").click()
        expect(page.locator("#toast")).to_contain_text("opi")
        page.locator("#clear").click()
        page.locator("#verdicts [data-verdict=filtered]").click()
        expect(page.locator("#count")).to_have_text("1 of 3 images")


def test_the_address_loses_the_token(browser: Browser, served: tuple[Client, Path], tmp_path: Path) -> None:
    """Opened as `--open` does, from a file of this user."""
    client, _ = served
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(leading_to(client.url, tmp_path))
        expect(page.locator(".card")).to_have_count(48)
        assert page.url == f"http://{client.host}/" and page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.locator(".card")).to_have_count(48)
        context.clear_cookies()
        page.locator("[name=prompt]").fill("dog")
        expect(page.locator("#toast")).to_contain_text("open the address that `datasetdm view` printed")


def test_layers_and_opacity(page: Page) -> None:
    card = page.locator(".card").first
    layer = card.locator("img.semantic")
    expect(layer).to_be_visible()
    expect(card.locator("img.depth")).to_be_hidden()
    assert card.locator("img.depth").evaluate("i => i.complete && i.naturalWidth > 0") is False, (
        "not fetched before it is shown"
    )
    page.keyboard.press("0")
    expect(layer).to_be_hidden()
    names = ("semantic", "uncertainty", "instance", "depth", "depth-uncertainty", "keypoints")
    for number, name in enumerate(names, 1):
        page.keyboard.press(str(number))
        expect(page.locator(f'#switches button[data-layer="{name}"]')).to_have_attribute("aria-pressed", "true")
    expect(card.locator("g.instance path")).to_have_count(1)
    expect(card.locator("g.keypoints circle")).to_have_count(1)
    expect(page.locator("#depth-key")).to_be_visible()
    expect(card.locator("img.depth")).to_have_js_property("naturalWidth", 32)
    faint = layer.evaluate("i => getComputedStyle(i).opacity")
    page.keyboard.press("]")
    assert float(layer.evaluate("i => getComputedStyle(i).opacity")) == pytest.approx(float(faint) + 0.1)


@pytest.mark.parametrize(("scale", "side"), [(1, 256), (3, 512)])
def test_thumbnails_have_the_pixels_of_the_screen(
    browser: Browser, served: tuple[Client, Path], scale: float, side: int
) -> None:
    with browser.new_context(device_scale_factor=scale) as context:
        page = context.new_page()
        page.goto(served[0].url)
        image = page.locator(".card img").first
        expect(image).to_have_attribute("src", re.compile(rf"/image/0/image\?side={side}&"))
        page.wait_for_function("image => image.complete && image.naturalWidth === 32", arg=image.element_handle())


def test_a_phone(phone: Page) -> None:
    def fits() -> bool:
        return phone.evaluate(
            "document.documentElement.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth"
        )

    assert fits()
    left, right = (phone.locator(".card").nth(i).bounding_box() for i in range(2))
    assert left and right and left["y"] == right["y"], "two columns"
    expect(phone.locator("#query")).to_be_hidden()
    phone.locator("#filters-open").click()
    expect(phone.locator("#query")).to_be_visible()
    assert fits()
    phone.locator("#filters-open").click()
    phone.locator(".card .open").nth(1).click()
    expect(phone.locator("#fixes select")).to_have_count(4)
    assert fits() and phone.evaluate("document.querySelector('#detail').scrollWidth <= innerWidth")
    assert phone.evaluate(
        "document.querySelector('.panel').scrollWidth <= document.querySelector('.panel').clientWidth"
    )
    for name in ("Accept", "Reject", "Next image"):
        box = phone.get_by_role("button", name=name).first.bounding_box()
        assert box and box["height"] >= 40, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_controls_have_names(page: Page, scheme: str) -> None:
    """WCAG 2 AA: at least 4.5 to 1 for text; every control has a name."""
    page.emulate_media(color_scheme=scheme)
    for selector in (
        "h1",
        ".soft.small",
        ".prompt",
        "#query legend",
        "#labels button",
        "button[aria-pressed=true]",
        "#count",
    ):
        ratio = page.locator(selector).first.evaluate(CONTRAST)
        assert ratio >= 4.5, (selector, ratio)
    page.locator(".card .open").first.click()
    expect(page.locator("#fixes select")).to_have_count(4)
    for selector in ("#accept", "#reject", "#detail-facts", "#ticks li"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector
    nameless = page.evaluate(NAMELESS)
    assert nameless == []


INLINE = """() => {
  const script = document.createElement('script');
  script.textContent = 'window.ran = 1';
  document.body.append(script);
}"""

CONTRAST = """node => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  let back = node;
  while (back && (parse(getComputedStyle(back).backgroundColor)[3] ?? 1) === 0) back = back.parentElement;
  const a = light(parse(getComputedStyle(node).color)), b = light(parse(getComputedStyle(back).backgroundColor));
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}"""

NAMELESS = """() => [...document.querySelectorAll('button, input, select')]
  .filter(n => !(n.getAttribute('aria-label') || n.textContent.trim() || n.closest('label') || n.labels?.length))
  .map(n => n.outerHTML)"""


def test_the_page_of_hits_and_misses(browser: Browser, tmp_path: Path) -> None:
    """Markup in names stays text; three images beside each other, whose layers can be switched."""
    hits = HitsAndMisses(NAMES, 1)
    for key, value in ((EVIL, 0.1), ("good", 0.9)):
        sample = make_sample(key, (24, 32), 0, NAMES)
        hits.add(sample, sample, {EVIL: value})
    hits.write(tmp_path / "hits.html", EVIL)
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page, problems = context.new_page(), list[str]()
        page.on("console", lambda m: problems.append(m.text))
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.goto((tmp_path / "hits.html").as_uri())
        expect(page.locator("h2")).to_have_text(["The worst 1 of 2 images", "The best 1"])
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)"), "copies are filled in"
        assert page.locator("svg.keypoints:visible").count() == 4, "truth and prediction of two images"
        page.get_by_role("button", name="Keypoints").click()
        assert page.locator("svg.keypoints:visible").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert problems == [] and page.title() == EVIL


def test_edits(browser: Browser, tmp_path: Path) -> None:
    """The image before; an object that is clicked and a word give the command."""
    parent = make_sample("s0", (24, 32), 0, NAMES)
    made = Provenance(details={"parent": "s0", "parent_sha256": parent.digest()})
    write_store([parent], tmp_path / "old", NAMES)
    write_store([replace(parent, key="s0-x", image=255 - parent.image, provenance=made)], tmp_path / "new", NAMES)
    with serving(tmp_path / "new", before=tmp_path / "old") as client, browser.new_context() as context:
        page = context.new_page()
        page.goto(client.url)
        page.locator(".card .open").first.click()
        expect(page.locator("#before")).to_be_visible()
        page.wait_for_function("document.getElementById('before').naturalWidth === 32")
        expect(page.locator("#edit-command")).to_be_hidden()
        page.locator("#edit-new").fill("cat")
        page.locator("#stage [data-object='0']").first.dispatch_event("click")
        expect(page.locator("#edit-command")).to_contain_text("--replace dog=cat --out")
        page.locator("#edit-copy").click()
        expect(page.locator("#toast")).to_contain_text("opi")
