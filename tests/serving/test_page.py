"""The pages, used as a person uses them: in a browser where there is one, else as the HTML that comes."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from recloom.serving import app as serving_app
from recloom.serving import create_app, running
from recloom.serving.access import COOKIE
from recloom.serving.page import figures, lists, views
from recloom.serving.page.words import CHINESE
from recloom.serving.store import Event, Exposure
from tests.serving.helpers import ask, event, ids, post, wait_until

CHROMIUM = Path("/usr/bin/chromium")
WICKED = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>"
LONG = "An extraordinarilylongtitle" * 12
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site(model, second_model, tmp_path_factory) -> Iterator[str]:
    """A service with two models, and items that somebody named in a hurry."""
    with running(create_app(model, str(tmp_path_factory.mktemp("page") / "live.db"))) as address:
        with httpx.Client(base_url=address) as client:
            assert client.post("/v1/models", json={"name": "other", "path": str(second_model)}).status_code == 202
            for item, columns in (
                ("wicked", {"title": WICKED}),
                ("long", {"title": LONG}),
                ("nameless/1 & <2>", {"price": 3.5}),
            ):
                assert client.put(f"/v1/items/{quote(item, safe='')}", json=columns).status_code == 202
            wait_until(lambda: len(client.get("/v1/models").json()["models"]) == 2, 30)
            wait_until(lambda: "onerror" in client.get("/", params={"q": "onerror"}).text.split("Found")[-1], 10)
        yield address


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, site) -> Iterator[Callable]:
    """Open pages that may neither complain, nor fail to load anything, nor ask another host."""
    complaints, contexts = [], []

    def failed(request) -> None:
        if request.failure != "net::ERR_ABORTED":  # somebody who goes on before a page is complete
            complaints.append(f"{request.url}: {request.failure}")

    def open_page(path: str = "/", address: str = site, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", failed)
        page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(address) else None)
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def titles(page, place: int = 0) -> list[str]:
    return page.locator(".list").nth(place).locator("li .title").all_inner_texts()


def overflow(page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


# A history


def test_somebody_puts_a_history_together_and_sees_what_every_model_makes_of_it(visit):
    page = visit()
    assert page.locator(".list h3").all_inner_texts() == ["default", "other"]
    page.get_by_label("Find items by title or id").fill("NUMBER3 film")
    page.get_by_role("button", name="Find").click()
    assert page.locator(".found .title").all_inner_texts() == ["film number3 kind0"]
    page.get_by_role("link", name="Add film number3 kind0").click()
    assert page.locator(".history .title").all_inner_texts() == ["film number3 kind0"]
    assert page.locator(".list").nth(1).get_by_text("served by markov").is_visible()
    assert titles(page, 1)[0] == "film number4 kind1"
    before = titles(page)
    page.locator(".list").nth(1).get_by_role("link", name="Click film number4 kind1").click()
    assert page.locator(".history .title").all_inner_texts() == ["film number3 kind0", "film number4 kind1"]
    assert titles(page) != before
    page.get_by_role("link", name="Remove film number3 kind0").click()
    assert page.locator(".history .title").all_inner_texts() == ["film number4 kind1"]
    page.get_by_role("link", name="Clear the history").click()
    assert page.get_by_text("Empty so far").is_visible()


def test_ids_can_be_typed_and_unknown_ones_are_told(visit):
    page = visit()
    page.get_by_text("Type item ids").click()
    page.get_by_label("Ids, a comma").fill("i01, nobody\ni02")
    page.get_by_role("button", name="Add to the history").click()
    assert page.locator(".history .title").all_inner_texts() == [
        "film number1 kind0", "nobody not in the catalogue, skipped", "film number2 kind0",
    ]  # fmt: skip
    assert page.get_by_text("1 unknown item skipped").count() == 2


def test_the_situation_is_asked_for_as_the_log_has_it(visit, site):
    page = visit("/?h=i03")
    assert page.get_by_label("device").locator("option").all_inner_texts() == ["not known", "mobile", "web"]
    page.get_by_label("device").select_option("web")
    page.get_by_label("age", exact=True).fill("30")
    page.get_by_label("Length of the lists").fill("3")
    page.get_by_role("button", name="Apply").click()
    assert len(titles(page)) == 3
    assert page.get_by_label("device").input_value() == "web"
    assert urlsplit(page.url).query == "h=i03&k=3&language=&context.device=web&context.age=30"
    answer = httpx.get(f"{site}/", params={"h": "i03", "context.age": "thirty"})
    assert answer.status_code == 422
    assert "The value &#39;thirty&#39; of age has to be a number" in answer.text


def test_what_cannot_be_is_one_sentence_and_what_was_typed_stays(site):
    for query, words in (
        ({"k": "many", "h": "i03"}, "k: Input should be a valid integer"),
        ({"k": "0", "h": "i03"}, "k: Input should be greater than or equal to 1"),
        ({"k": "501", "h": "i03"}, "K is 501; this service makes lists of at most 500."),
        ({"user": "a\x00b"}, "user_id: "),
        ({"h": ["i03"] * 1_001}, "The history holds 1,001 interactions; send the newest 1,000."),
    ):
        answer = httpx.get(f"{site}/", params=query)
        assert answer.status_code == 422
        assert words in re.search(r'role="alert">([^<]*)', answer.text)[1]
        assert "Traceback" not in answer.text


def test_a_search_without_a_result_says_what_to_do(visit):
    page = visit("/?q=no such thing")
    assert page.get_by_text("Try fewer or shorter words").is_visible()


# A person


def test_a_click_is_an_event_and_changes_the_list(visit, site):
    page = visit("/?user=newcomer&k=5")
    assert page.get_by_text("Nothing is known of them yet").is_visible()
    own = page.locator(".list.own")
    assert own.locator("h3").inner_text() == "default theirs"
    before, shown = titles(page), own.locator("input[name=recommendation_id]").first.input_value()
    own.get_by_role("button").first.click()
    assert page.locator(".history .title").all_inner_texts() == [f"{before[0]} click"]
    assert titles(page) != before
    assert urlsplit(page.url)[2:] == ("/", "user=newcomer&k=5", "lists")
    assert own.locator("input[name=recommendation_id]").first.input_value() != shown


def test_a_session_is_somebody_too(visit):
    page = visit()
    page.get_by_role("link", name="Start a new session").click()
    assert page.locator(".person").inner_text().startswith("Session page-")
    before = titles(page)
    page.locator(".list.own").get_by_role("button", name=f"Click {before[1]}").click()
    assert page.locator(".history .title").all_inner_texts() == [f"{before[1]} click"]
    page.get_by_role("link", name="Type a history instead").click()
    assert page.locator(".person").count() == 0


def test_a_person_of_the_log_is_shown_with_what_they_did(visit):
    page = visit("/?user=u03")
    past = page.locator(".history .title").all_inner_texts()
    assert past[0] == "film number12 kind3 from the log"
    assert page.locator(".list.own small").first.inner_text().startswith(("Because you ", "Because many", "It is new"))


def test_a_click_counts_for_the_variant_that_was_shown(serve, second_model):
    client = serve()
    client.post("/v1/models", json={"name": "other", "path": str(second_model)})
    wait_until(lambda: len(client.get("/v1/models").json()["models"]) == 2, 30)
    variants = [{"name": "a", "share": 0.0}, {"name": "b", "model": "other", "share": 1.0}]
    assert client.post("/v1/experiments", json={"name": "spring", "variants": variants}).status_code == 201
    html = client.get("/?user=u03&k=4").text
    assert html.count('class="badge">theirs<') == 1
    shown = re.search(r'name="recommendation_id" value="(\w+)"', html)[1]
    assert "The variants of “spring”" in html
    item = re.search(r'name="item_id" value="(\w+)"', html)[1]
    answer = client.post("/click?user=u03", data={"item_id": item, "recommendation_id": shown}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?user=u03#lists")
    told = client.get("/v1/experiments").json()["experiments"][0]["variants"]
    assert [(variant["recommendations"], variant["ctr_value"]) for variant in told] == [(0, None), (1, 1.0)]
    client.get("/?h=i03")
    client.get("/?user=u03", headers={"sec-fetch-site": "cross-site"})
    told = client.get("/v1/experiments").json()["experiments"][0]["variants"]
    assert told[1]["recommendations"] == 1  # what a history gets, or what another site asks for, is not shown to u03


def test_forms_of_other_sites_are_refused(serve):
    client = serve()
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
    ):
        answer = client.post("/click?user=u03", data={"item_id": "i14"}, headers=headers)
        assert answer.status_code == 403
        assert "Another site made the browser send this" in answer.text
    allowed = client.post("/click?user=u03", data={"item_id": "i14"}, headers={"origin": "http://localhost"})
    assert allowed.status_code == 200


def test_a_click_on_nothing_is_told(serve):
    client = serve()
    for path, form, words in (
        ("/click?user=u03", {}, "item_id: "),
        ("/click", {"item_id": "i01"}, "A click needs a user or a session"),
        ("/click?user=u03", {"item_id": "x" * 300}, "item_id: String should have at most 256 characters"),
    ):
        answer = client.post(path, data=form)
        assert answer.status_code == 422
        assert words in answer.text


def test_a_form_that_is_too_large_is_not_read(serve):
    client = serve(max_body_bytes=1_000)
    parts = (b"item_id=" + b"x" * 600 for _ in range(2))  # sent without saying how long it is
    assert client.post("/click?user=u03", content=parts).status_code == 413


# What is written into the pages


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_that_people_write_becomes_markup(site, visit):
    page = visit("/?h=wicked&q=onerror&k=30")
    assert page.title() == "Try it · recloom"
    assert WICKED in page.locator(".history .title").first.inner_text()
    for query in ({"q": WICKED}, {"user": WICKED}, {"session": WICKED}, {"h": WICKED}, {"k": WICKED},
                  {"context.device": WICKED}, {f"context.{WICKED}": "1"}):  # fmt: skip
        html = httpx.get(f"{site}/", params=query).text
        assert "<script" not in html
        for tag, attributes in Tags(html).found:
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            assert tag != "img" or attributes["src"] == "/page.svg"


def test_titles_that_are_long_or_missing_and_pictures(site, serve):
    assert LONG in httpx.get(f"{site}/", params={"q": "extraordinarily"}).text
    assert "nameless/1 &amp; &lt;2&gt;" in httpx.get(f"{site}/", params={"q": "nameless"}).text
    client = serve()
    for item, picture in (("a", "https://pictures.example/a.png"), ("b", "/b.png"), ("c", "javascript:alert(1)"),
                          ("d", "http://plain.example/d.png"), ("e", "//elsewhere.example/e.png")):  # fmt: skip
        client.put(f"/v1/items/{item}", json={"image": picture, "price": 1.0})
    wait_until(lambda: "e" in ids(ask(client, history=["i03"], k=40)), 10)
    found = Tags(client.get("/?h=i03&k=40").text).found
    sources = {attributes["src"] for tag, attributes in found if tag == "img"}
    assert sources == {"/page.svg", "https://pictures.example/a.png", "/b.png"}


# Ways of looking


@pytest.mark.parametrize("path", ["/", "/?h=long&h=i03&h=wicked&k=20", "/?user=u03", "/?k=x", "/live", "/docs"])
def test_a_phone_never_scrolls_sideways(browser, site, path):
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="dark")
    page = context.new_page()
    page.goto(site + path)
    assert overflow(page) == 0
    too_small_to_touch = page.evaluate(
        "[...document.querySelectorAll('a.button, button, input:not([type=hidden]), select')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 24).length"
    )
    assert too_small_to_touch == 0
    context.close()


def test_it_works_by_keyboard_alone(visit):
    page = visit("/?h=i03")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.textContent.replace(/\\s+/g, ' ').trim(),"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert outline != "none", f"nobody sees that {name!r} has the focus"
        reached.append(name)
        if name.startswith("Click"):
            break
    assert reached[0] == "× Remove film number3 kind0"
    assert "Find" in reached
    assert "Apply" in reached
    page.keyboard.press("Enter")
    page.wait_for_url("**/?h=i03&h=*")
    assert page.locator(".history .title").count() == 2


@pytest.mark.parametrize("path", ["/?h=i03", "/?user=u03", "/live", "/docs"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit, path, scheme):
    page = visit(path, color_scheme=scheme)
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst


CONTRAST = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = color => color.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = rgb(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let worst = {ratio: 21};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.offsetParent) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = {ratio, text: walker.currentNode.data.trim(), tag: element.outerHTML.slice(0, 99)};
  }
  return worst;
}"""


@pytest.mark.parametrize("path", ["/", "/?h=i03&q=film", "/?user=u03", "/live", "/docs"])
def test_every_field_has_a_name_and_no_id_comes_twice(site, path):
    found = Tags(httpx.get(site + path).text).found
    names = [attributes["id"] for _, attributes in found if attributes.get("id")]
    assert len(names) == len(set(names))
    labelled = {attributes.get("for") for tag, attributes in found if tag == "label"}
    for tag, attributes in found:
        if tag in ("input", "select", "textarea") and attributes.get("type") != "hidden":
            assert attributes["id"] in labelled
        target = attributes.get("href", "")
        assert not target.startswith("#") or target[1:] in names


def test_it_works_without_javascript(visit):
    page = visit("/?user=scriptless", java_script_enabled=False)
    page.locator(".list.own button").first.click()
    assert page.locator(".history li").count() == 1
    page.get_by_role("link", name="Live").click()
    assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "10"
    page.get_by_role("link", name="Stop").click()
    assert page.locator("meta[http-equiv=refresh]").count() == 0


# Live


def test_the_live_page_shows_experiments_and_health(serve, second_model):
    client = serve()
    client.post("/v1/models", json={"name": "other", "path": str(second_model)})
    wait_until(lambda: len(client.get("/v1/models").json()["models"]) == 2, 30)
    client.app.state.service.engine.refused["lost"] = "its folder is gone"
    assert "<b>lost</b>: its folder is gone" in client.get("/live").text
    assert "There is no experiment" in client.get("/live").text
    variants = [{"name": "a<b>", "share": 0.5}, {"name": "b", "model": "other", "share": 0.5}]
    assert client.post("/v1/experiments", json={"name": "spring", "variants": variants}).status_code == 201
    now = int(time.time())
    store = client.app.state.service.store
    shows, clicks = [], []
    for person in range(400):
        variant, name = ("a<b>", "b")[person % 2], f"p{person}"
        shows.append(Exposure(f"r{person}", name, now - person, "spring", variant, False, "m", "v", "weave", ["i1"], 0))
        if person % 2 or person % 20 == 0:
            clicks.append(Event(f"e{person}", name, "i1", now - person, "click", None, f"r{person}"))
    store.add((), shows).result()
    store.add(clicks).result()
    html = client.get("/live").text
    assert "a&lt;b&gt;" in html
    assert "<b>b</b> is clearly above a&lt;b&gt;" in html
    assert '<span class="badge good">clear</span>' in html
    assert html.count("<polyline") == 2
    assert "<code>/v1/models</code>" in html
    client.post("/v1/experiments/spring/promote", json={"variant": "b"})
    assert "ended, b promoted" in client.get("/live").text


def test_the_live_page_refreshes_itself_in_place(visit, site):
    page = visit("/live")
    page.evaluate("window.isSame = true")
    with httpx.Client(base_url=site) as client:
        before = int(page.locator(".fact", has_text="events kept").locator("b").inner_text())
        post(client, event("fresh-1", "fresh", "i03"))
    wanted = page.locator(".fact", has_text="events kept").locator("b", has_text=str(before + 1))
    wanted.wait_for(timeout=15_000)
    assert page.evaluate("window.isSame")


def test_a_count_that_takes_long_is_not_waited_for_and_not_done_twice(serve, monkeypatch):
    may_end, begun = threading.Event(), []

    def count(_):
        begun.append(time.time())
        may_end.wait(10)
        return []

    monkeypatch.setattr(serving_app, "experiment_reports", count)
    monkeypatch.setattr(views, "PATIENCE_SECONDS", 0.05)
    client = serve()
    for _ in range(3):
        html = client.get("/live").text
        assert "is being counted" in html
        assert "<h3>Models</h3>" in html
    assert len(begun) == 1
    may_end.set()
    wait_until(lambda: "There is no experiment" in client.get("/live").text)


def test_the_chart_holds_its_curves():
    points = [
        {"time": 100 + step, "value": 0.1, "low": 0.1 - 0.5 / step, "high": 0.1 + 0.5 / step} for step in (1, 5, 25)
    ]
    early = {"time": 90, "value": 1.0, "low": None, "high": None}
    chart = figures.chart({"variants": [{"name": "a", "curve": [early, *points]}, {"name": "b", "curve": []}]})
    assert chart is not None
    heights = [float(point.split(",")[1]) for point in chart.curves[0].band.split()]
    assert min(heights) == figures.TOP
    assert max(heights) == figures.HEIGHT - figures.BOTTOM
    assert [label for _, label in chart.heights] == ["0 %", "5 %", "10 %", "15 %", "20 %"]
    assert figures.chart({"variants": [{"name": "a", "curve": [early]}]}) is None


# The interface, described


def test_the_docs_list_every_route(serve):
    client = serve()
    html = client.get("/docs").text
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            article = re.search(rf'<article class="card" id="{operation["operationId"]}">.*?</article>', html, re.S)[0]
            assert f">{method.upper()}<" in article
            assert f"<code>{path}</code>" in article
            assert "curl" in article
    assert "Send it back with the events that follow" in html


def test_the_examples_of_the_docs_are_understood(serve):
    client = serve()
    page = client.get("/docs").text
    for path in ("/v1/events", "/v1/recommendations", "/v1/models", "/v1/experiments"):
        body = re.search(rf"POST http://localhost{path} .*?-d (.*?)</code>", page, re.S)[1]
        answer = client.post(path, content=re.sub("&#3[49];", lambda m: {"&#34;": '"', "&#39;": "'"}[m[0]], body)[1:-1])
        assert "Not JSON" not in answer.text
        assert answer.status_code != 400
        assert answer.status_code < 500


# Keys


def test_pages_of_a_service_with_keys_want_one(visit, browser, model, tmp_path):
    app = create_app(model, str(tmp_path / "keys.db"), needs_keys=True)
    store = app.state.service.store
    look, admin, ingest = (store.add_key(role, role) for role in ("recommend", "admin", "ingest"))
    with running(app) as address:
        page = visit("/?h=i03", address)
        assert urlsplit(page.url).path == "/login"
        page.get_by_label("Key").fill(look)
        page.keyboard.press("Enter")
        page.wait_for_url("**/?h=i03")
        cookie = page.context.cookies()[0]
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        page.goto(f"{address}/?user=u03")
        assert page.get_by_text("Your key may look but not store events").is_visible()
        assert page.locator(".list button").count() == 0
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        page.get_by_label("Key").fill(admin)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{address}/")
        page.goto(f"{address}/?user=u03")
        page.locator(".list button").first.click()
        assert page.locator(".history li", has_text="click").count() == 1

        def log_in(key: str, **form: str) -> httpx.Response:
            return httpx.post(f"{address}/login", data={"key": key, **form})

        assert "The service does not know this key" in log_in("rl_wrong").text
        assert log_in("rl_wrong").status_code == 401
        assert log_in(ingest).status_code == 403
        for target in ("https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:1"):
            assert log_in(look, next=target).headers["location"] == "/"
        assert log_in(look, next="/live?refresh=off").headers["location"] == "/live?refresh=off"
        for path in ("/", "/live"):
            assert httpx.get(address + path).headers["location"] == f"/login?next={path}"
        cookies = {COOKIE: look}
        assert httpx.post(f"{address}/click?user=u03", data={"item_id": "i01"}, cookies=cookies).status_code == 403
        assert "secure" not in log_in(look).headers["set-cookie"].lower()


# In Chinese


def test_every_sentence_of_the_page_has_a_chinese_one_and_no_more():
    folder = Path(views.__file__).parent
    said = [
        words
        for name in ("home", "base")
        for call in re.findall(
            r"\bt\((.+?)\)(?=\.format| }}| %})", (folder / f"templates/{name}.html.jinja").read_text()
        )
        for words in re.findall(r'"([^"]+)"', call)
    ]
    assert len(said) > 50
    elsewhere = {"Try it", "Live", "Interface", "time", "image", "pinned", "{} of {} also in {}", "from the log"}
    elsewhere |= {"not in the catalogue, skipped", *lists._PARTS.values()}
    assert {*said, *elsewhere} == set(CHINESE)


class Words(HTMLParser):
    """What a page says, attributes that are read out included."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.said += [value or "" for name, value in attrs if name in ("aria-label", "placeholder", "title")]

    def handle_data(self, data):
        self.said.append(data)


def test_the_page_in_chinese_has_no_english_left(shared):
    data = {
        "film",
        "recloom",
        "English",
        "default",
        "popular",
        "recent",
        "new",
        "weave",
        "device",
        "age",
        "mobile",
        "web",
        "nobody",
        "view",
    }
    for query in ("h=i01&h=i02&h=nobody", "user=u01&q=xyzzy", "session=new", "h=i01&q=number3"):
        page = shared.get(f"/?{query}&language=zh")
        said = " ".join(Words(page.text).said)
        assert set(re.findall(r"[A-Za-z]{3,}", re.sub(r"@\w+|(number|kind)\d+|xyzzy|number3", "", said))) <= data, query
        assert '<html lang="zh">' in page.text
        assert "接下来是什么" in said
