"""The page in a browser: what is seen, heard, pressed and printed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from explorer_pages import chromium, fitted, held, page

import ranef as rf

sync_api = pytest.importorskip("playwright.sync_api")

PAGES = ("sleepstudy", "schools", "zero", "children")
SETTLED = 350  # ms until the address has the state


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def tabs(browser):
    """Return tabs by their settings: a new one takes longer than what is done in it."""
    found = {}

    def tab_of(width, height, theme, motion, place):
        key = (width, height, theme, motion, place)
        if key not in found:
            found[key] = tab = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=theme,
                reduced_motion=motion,
            )
            tab.wrong = []
            tab.on("console", lambda message: tab.wrong.append(message.text))
            tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
            tab.on("request", lambda asked: tab.wrong.append(asked.url))
        return found[key]

    return tab_of


@pytest.fixture
def show(tabs):
    """Open a page, and refuse whatever it asks of others or complains of."""
    shown = []

    def opened(name, hash_="", *, width=1280, height=800, theme="light", motion="reduce"):
        tab = tabs(width, height, theme, motion, len(shown))
        shown.append(tab)
        tab.goto("about:blank")
        tab.wrong.clear()
        tab.goto(f"{page(name).as_uri()}{hash_}")
        assert tab.wrong.pop(0) == page(name).as_uri()
        frame(tab)
        return tab

    yield opened
    assert [wrong for tab in shown for wrong in tab.wrong] == []
    for tab in shown:
        tab.emulate_media(media="screen")


def frame(tab):
    tab.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def press(tab, selector, *keys):
    tab.focus(selector)
    for key in keys:
        tab.keyboard.press(key)
    frame(tab)


def click(tab, selector):
    tab.click(selector)
    frame(tab)


def text(tab, selector):
    return tab.inner_text(selector)


def address(tab):
    tab.wait_for_timeout(SETTLED)
    return dict(pair.split("=") for pair in tab.evaluate("location.hash").lstrip("#").split("&"))


def number(words):
    return float(words.split()[0].replace("−", "-"))


# --------------------------------------------------------------------- sliders and their ends


@pytest.mark.parametrize("name", PAGES)
def test_it_opens_at_reml(show, name):
    tab, reml = show(name), held(page(name))["reml"]
    i = len(reml["sd"]) - 1
    assert number(text(tab, f"#o-sd{i}")) == pytest.approx(reml["sd"][i], rel=5e-3)
    assert text(tab, "#misfit") == "Nowhere are the data more probable: this is the REML estimate."


def test_the_ends_of_the_slider(show):
    tab = show("sleepstudy")
    press(tab, "#r-all", "End")
    assert text(tab, "#o-all") == "∞"
    spoken = tab.get_attribute("#r-all", "aria-valuetext")
    assert spoken == "∞, no pooling"
    assert "weight of own data 100 % to 100 %" in tab.get_attribute("#v1 > svg", "aria-label")
    press(tab, "#r-all", "Home")
    assert tab.get_attribute("#r-all", "aria-valuetext") == "0, complete pooling"
    assert "weight of own data 0 % to 0 %" in tab.get_attribute("#v1 > svg", "aria-label")


@pytest.mark.parametrize(("key", "moved"), [("ArrowRight", 1), ("ArrowLeft", -1), ("PageUp", 100)])
def test_keys_move_the_slider(show, key, moved):
    tab = show("schools")
    scale = held(page("schools"))["scale"]["sd"][0]
    press(tab, "#r-sd0", key)
    t = (500 + moved) / 1000
    assert tab.input_value("#r-sd0") == str(500 + moved)
    assert text(tab, "#o-sd0") == f"{scale * t / (1 - t):.2f} points"


def test_a_tap_at_a_quarter_of_the_track(show):
    tab = show("schools")
    box = tab.locator("#r-sd0").bounding_box()
    tab.mouse.click(box["x"] + 12 + (box["width"] - 24) / 4, box["y"] + box["height"] / 2)
    frame(tab)
    assert abs(int(tab.input_value("#r-sd0")) - 250) <= 6


def test_a_slider_says_what_the_posterior_says(show):
    spoken = show("sleepstudy").get_attribute("#r-sd1", "aria-valuetext")
    assert spoken == "5.92 ms per day; posterior 95 % from 3.9 to 9.5"


def test_both_sds_move_and_keep_their_ratio(show):
    tab = show("sleepstudy", "#sd0=20&sd1=10")
    press(tab, "#r-all", "PageDown", "PageDown")
    one, two = number(text(tab, "#o-sd0")), number(text(tab, "#o-sd1"))
    assert one / two == pytest.approx(2, rel=0.01)
    assert one < 20


def test_presets(show):
    tab = show("sleepstudy")
    click(tab, "#complete")
    assert text(tab, "#o-all") == "0"
    click(tab, "#none")
    assert (text(tab, "#o-sd0"), text(tab, "#o-sd1")) == ("∞ ms", "∞ ms per day")
    click(tab, "#reml")
    assert text(tab, "#o-sd1") == "5.92 ms per day"


def test_how_probable_the_data_are(show):
    """The slider at 333 of 1000, nearly half the sds of REML."""
    tab = show("sleepstudy")
    tab.evaluate("""() => {
        const input = document.querySelector("#r-all");
        input.value = 333;
        input.dispatchEvent(new Event("input"));
    }""")
    frame(tab)
    said = text(tab, "#misfit")
    ratio = float(
        re.search(r"^The data are 1/([\d,]+) as probable here as", said)[1].replace(",", "")
    )
    fit = fitted("sleepstudy")
    model = rf.Model(fit.design.formula.text, rf.load_dataset("sleepstudy"), priors="flat")
    share = 0.333 / 0.667
    less = model.log_marginal(fit.theta * share, fit.sigma) - model.log_marginal(
        fit.theta, fit.sigma
    )
    assert np.log(ratio) == pytest.approx(-less, rel=1e-4)


def test_reml_at_zero_is_marked_where_all_are_alike(show):
    tab = show("zero")
    assert tab.input_value("#r-sd0") == "0"
    words = tab.locator("#s-sd0 .density text").all_text_contents()
    assert words == ["nothing shared", "REML"]


def test_motion_glides(show):
    tab = show("sleepstudy", motion="no-preference")
    tab.click("#complete")
    tab.wait_for_timeout(250)
    between = int(tab.input_value("#r-all"))
    tab.wait_for_timeout(1200)
    assert 0 < between < 500
    assert tab.input_value("#r-all") == "0"


def test_reduced_motion_does_not(show):
    tab = show("sleepstudy")
    click(tab, "#complete")
    assert tab.input_value("#r-all") == "0"


# ------------------------------------------------------------------------------------ story


@pytest.mark.parametrize("name", PAGES)
def test_five_steps_ask_before_they_show(show, name):
    tab = show(name)
    for step in range(1, 6):
        assert tab.get_attribute(f"#steps button:nth-child({step})", "aria-current") == "step"
        asked = text(tab, "#say")
        assert asked.startswith("Predict first. ")
        assert text(tab, "#show") == "Show me"
        click(tab, "#show")
        shown = text(tab, "#say")
        assert shown
        assert "Predict first" not in shown
        assert text(tab, "#show") == ("Next" if step < 5 else "Again")
        assert "NaN" not in tab.inner_html("body").split('id="data"')[0]
        click(tab, "#show")
    assert tab.get_attribute("#steps button:first-child", "aria-current") == "step"


def test_a_step_can_be_chosen(show):
    tab = show("sleepstudy")
    click(tab, "#steps button:nth-child(4)")
    assert "which way would the arrows turn?" in text(tab, "#say")


# ----------------------------------------------------------------------------------- groups


def test_the_groups_in_order_and_by_name(show):
    tab = show("sleepstudy")
    assert "subject 308" in text(tab, "#group option:checked")
    click(tab, "#previous")
    assert "subject 350" in text(tab, "#group option:checked")
    click(tab, "#next")
    tab.select_option("#group", label="subject 335 (10 rows)")
    frame(tab)
    assert text(tab, "#group-words").startswith("Intercept: own 263")


@pytest.mark.parametrize(("name", "figure"), [(n, v) for n in ("sleepstudy", "schools")
                                              for v in ("v1", "v2", "v3")])  # fmt: skip
def test_a_click_on_a_mark_selects_everywhere(show, name, figure):
    tab = show(name, f"#view={figure}")
    before = tab.input_value("#group")
    box = tab.locator(f"#{figure} > svg").bounding_box()
    marks = tab.evaluate(f"""[...document.querySelectorAll('#{figure} > svg > g path[stroke="var(--model)"],'
        + '#{figure} > svg > path[stroke="var(--model)"]')].map(e => e.getAttribute("d"))""")
    dots = [at for d in marks for at in re.findall(r"M([\d.]+) ([\d.]+)h", d)] or [(400, 60)]
    for x, y in dots[:: max(1, len(dots) // 4)]:
        tab.mouse.click(box["x"] + float(x), box["y"] + float(y))
        frame(tab)
        if tab.input_value("#group") != before:
            break
    chosen = tab.input_value("#group")
    assert chosen != before
    label = held(page(name))["groups"]["labels"][int(chosen)]
    for other in ("v1", "v2", "v3"):
        if not (name == "schools" and other == "v1"):
            marked = tab.locator(f"#{other} text[font-weight='700']").all_text_contents()
            assert label in marked, other


def test_first_rows(show):
    tab = show("sleepstudy", "#group=308")
    for _ in range(7):
        click(tab, "#fewer")
    assert text(tab, "#used") == "3 of 10"
    assert "own 0.6, all" in text(tab, "#group-words")
    assert "model 8.5 ms per day" in text(tab, "#group-words")
    assert text(tab, "#misfit") == "REML and posterior marks are those of all rows."
    assert address(tab)["rows"] == "3"
    for _ in range(7):
        click(tab, "#more")
    assert tab.is_disabled("#more")
    assert "rows" not in address(tab)


def test_another_group_has_all_its_rows(show):
    tab = show("sleepstudy", "#group=308&rows=3")
    click(tab, "#next")
    assert text(tab, "#used") == "10 of 10"


# ---------------------------------------------------------------------------------- figures


def test_a_caption_enlarges(show):
    tab = show("sleepstudy")
    small = tab.locator("#v4").bounding_box()["width"]
    click(tab, "#v4 .cap")
    assert tab.locator("#v4").bounding_box()["width"] > 2 * small
    assert tab.get_attribute("#v4 .cap", "aria-pressed") == "true"
    assert tab.get_attribute("#v1 .cap", "aria-pressed") == "false"


def test_sliders_and_first_figure_stand_on_one_screen(show):
    tab = show("sleepstudy", height=720)
    assert tab.locator("#s-sigma").bounding_box()["y"] < 640
    box = tab.locator("#v1").bounding_box()
    assert box["y"] + box["height"] < 720


def test_no_scale_has_a_mark_that_is_not_a_number(show):
    tab = show("children", "#sd0=inf&sd1=0&corr=-1")
    assert not re.search("NaN|Infinity|undefined", tab.inner_html("#views"))


@pytest.mark.parametrize("name", PAGES)
def test_a_new_group_is_bounded_by_the_mean_at_complete_pooling(show, name):
    tab = show(name)
    click(tab, "#complete")
    assert "∞" not in tab.get_attribute("#v3 > svg", "aria-label")
    click(tab, "#none")
    assert "∞" in tab.get_attribute("#v3 > svg", "aria-label")


# ---------------------------------------------------------------------------------- address


def test_the_address_there_and_back(show):
    tab = show("sleepstudy")
    press(tab, "#r-sd0", "PageUp")
    press(tab, "#r-corr", "PageDown")
    click(tab, "#v2 .cap")
    click(tab, "#next")
    click(tab, "#fewer")
    click(tab, "#big")
    click(tab, "#theme")
    click(tab, "#steps button:nth-child(3)")
    asked = address(tab)
    assert {"sd0", "sd1", "sigma", "corr", "group", "rows", "step", "view", "big", "theme"} == set(
        asked
    )
    again = show("sleepstudy", tab.evaluate("location.hash"))
    for selector in ("#o-sd0", "#o-corr", "#used", "#say", "#group-words", "#misfit"):
        assert text(again, selector) == text(tab, selector)
    assert again.get_attribute("html", "data-theme") == "dark"
    assert address(again) == asked


def test_infinite_sds_in_the_address(show):
    tab = show("sleepstudy", "#sd0=inf&sd1=inf&step=1a")
    assert text(tab, "#o-all") == "∞"
    assert text(tab, "#say").startswith("No pooling")
    assert address(tab)["sd1"] == "inf"


@pytest.mark.parametrize("place", [0, 5])
def test_the_group_in_the_address(show, place):
    label = held(page("schools"))["groups"]["labels"][place]
    assert show("schools", f"#group={label}").input_value("#group") == str(place)


@pytest.mark.parametrize(
    "nonsense",
    ["#sd0=-5&corr=7&sigma=1e9", "#sd0=abc&rows=999&step=99&view=v9", "#group=nobody&%%%", "#&&=="],
)
def test_a_mistyped_address(show, nonsense):
    tab = show("sleepstudy", nonsense)
    assert not re.search("NaN|undefined", tab.inner_text("body"))
    assert text(tab, "#used") == "10 of 10"
    assert -1 <= float(address(tab)["corr"]) <= 1


def test_a_change_of_the_address_is_followed(show):
    tab = show("schools")
    tab.evaluate("location.hash = '#sd0=0&sigma=2'")
    frame(tab)
    assert (text(tab, "#o-sd0"), text(tab, "#o-sigma")) == ("0 points", "2.00 points")


# -------------------------------------------------------------------------- phone and reading


@pytest.mark.parametrize("name", ["sleepstudy", "schools"])
@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_scrolls_sideways(show, name, width):
    tab = show(name, width=width, height=844)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", ["sleepstudy", "schools"])
@pytest.mark.parametrize("view", ["v1", "v2", "v3", "v4"])
def test_the_figure_is_clear_of_the_dock(show, name, view):
    tab = show(name, f"#view={view}", width=390, height=844)
    figure, dock = (tab.locator(one).bounding_box() for one in (f"#{view}", "#dock"))
    assert figure["y"] + figure["height"] <= dock["y"]
    assert tab.locator(".views figure:visible").count() == 1
    assert tab.locator(".slider:visible").count() == 1


def test_chips_and_tabs_on_a_phone(show):
    tab = show("sleepstudy", width=390, height=844)
    click(tab, "#chips button:has-text('sigma')")
    assert tab.is_visible("#r-sigma")
    click(tab, "#tabs button:has-text('Plane')")
    assert tab.is_visible("#v2")
    assert not tab.is_visible("#v1")


def test_targets_are_large_enough_for_a_thumb(show):
    tab = show("sleepstudy", width=390, height=844)
    for one in tab.locator("button:not(.cap), select, summary, input").all():
        if one.is_visible():
            assert one.bounding_box()["height"] >= 38, one.inner_html()


@pytest.mark.parametrize("name", PAGES)
def test_what_can_be_operated_has_a_name(show, name):
    tab = show(name)
    for one in tab.locator("button, select, input").all():
        name_of = one.evaluate(
            "e => e.getAttribute('aria-label') || e.textContent.trim() "
            "|| (e.labels && e.labels[0] && e.labels[0].textContent.trim())"
        )
        assert name_of
    for one in tab.locator("#views svg").all():
        assert one.get_attribute("role") == "img"
        assert len(one.get_attribute("aria-label")) > 10


def test_one_sentence_is_said_when_all_is_quiet(show):
    tab = show("sleepstudy")
    tab.wait_for_timeout(800)
    before = text(tab, "#live")
    press(tab, "#r-all", "PageUp")
    assert text(tab, "#live") == before
    tab.wait_for_timeout(800)
    assert text(tab, "#live") != before
    assert tab.locator("[aria-live=polite]").count() == 2


def test_all_numbers_are_in_a_table(show):
    tab = show("sleepstudy")
    click(tab, "summary")
    cells = tab.locator("#table tbody tr").first.locator("th, td").all_text_contents()
    assert cells[:4] == ["308", "10", "244", "254"]
    assert tab.locator("#table tbody tr").count() == 18
    assert tab.locator("#table th[scope=col]").count() == 12


def test_no_key_alone_does_anything(show):
    tab = show("sleepstudy")
    before = address(tab)
    for key in ("n", "r", "1", "ArrowRight", " "):
        tab.keyboard.press(key)
    assert address(tab) == before


def luminance(colour):
    rgb = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(show, theme):
    tab = show("sleepstudy", theme=theme)
    assert tab.get_attribute("html", "data-theme") == theme
    colours = tab.evaluate("""() => {
        const probe = document.body.appendChild(document.createElement("i"));
        return Object.fromEntries(["bg", "card", "soft", "ink", "muted", "own", "model", "sel"].map(name => {
          probe.style.color = `var(--${name})`;
          return [name, getComputedStyle(probe).color];
        }));
    }""")
    for front in ("ink", "muted", "own", "model", "sel"):
        for back in ("bg", "card"):
            one, two = sorted(luminance(colours[c]) for c in (front, back))
            assert (two + 0.05) / (one + 0.05) >= 4.5, (front, back)


def test_large_text(show):
    tab = show("sleepstudy")
    click(tab, "#big")
    assert tab.evaluate("getComputedStyle(document.documentElement).fontSize") == "18px"
    assert tab.get_attribute("#big", "aria-pressed") == "true"


def test_a_print_has_all_figures_and_values_in_light_colours(show):
    tab = show("sleepstudy", theme="dark", width=390, height=844)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    for view in ("v1", "v2", "v3", "v4"):
        assert tab.is_visible(f"#{view}")
        assert tab.locator(f"#{view} > svg path").count() > 3
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.is_visible("#o-sd1")
    assert not tab.is_visible("#link")


def test_the_page_leaves_no_globals(show, tmp_path):
    tab = show("sleepstudy")
    own = "Object.getOwnPropertyNames(window).filter(n => !/^(\\d+|__)/.test(n)).sort()"
    found = tab.evaluate(own)
    ids = set(tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>Empty</title>")
    tab.goto(empty.as_uri())
    tab.wrong.clear()
    names = set(found) - set(tab.evaluate(own))
    assert names <= ids


def test_it_works_in_a_frame_that_may_not_change_its_address(browser, tmp_path):
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe sandbox="allow-scripts" width="900" height="900" src="{page("schools").as_uri()}"></iframe>'
    )
    context = browser.new_context()
    tab = context.new_page()
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(outer.as_uri())
    inner = tab.frames[1]
    inner.click("#complete")
    tab.wait_for_timeout(1500)
    assert inner.input_value("#r-sd0") == "0"
    assert wrong == []
    context.close()
