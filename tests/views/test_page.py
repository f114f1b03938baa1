"""The page in a real browser, from a file, without a network."""

import json
import re
import shutil
import time

import numpy as np
import pyarrow as pa
import pytest

from vap_pipeline.views.page import _mp3, write_page

RATE_HZ = 16_000
TITLE = 'A call of "Ann & Bob" </script><b>'


def call(seconds):
    """Samples, frames and events of a made-up recording, in which A and B speak for 2 s in turns."""
    rng = np.random.default_rng(0)
    turn = np.arange(seconds * 100) // 200 % 2
    frames = {"time_s": np.arange(len(turn)) / 100, "va_a": turn, "va_b": 1 - turn}
    frames |= {"p_a": turn * 0.8 + 0.1, "p_b": 0.9 - turn * 0.8, "entropy": rng.uniform(2, 6, len(turn))}
    noise = rng.uniform(-0.3, 0.3, (seconds * RATE_HZ, 2)).astype(np.float32)
    gate = np.repeat(np.stack([turn, 1 - turn], 1), RATE_HZ // 100, axis=0)
    events = [
        {"name": "hold" if i % 3 else "shift", "speaker": i % 2, "start_s": 2.0 * i, "end_s": 2.0 * i + 0.3}
        | {"probability": 0.6, "truth": "shift", "error": (i * 7 % 10) / 10}
        for i in range(1, seconds // 2)
    ]
    return noise * gate, pa.table(frames), events


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    flags += (
        "disable-component-update disable-sync autoplay-policy=no-user-gesture-required window-size=1440,900"
    )
    for flag in [*flags.split(), f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def until(browser, script, seconds=10):
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return value


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def test_it_plays_seeks_zooms_and_picks_events(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "page.html"
    write_page(str(path), TITLE, *call(60)[:1], RATE_HZ, *call(60)[1:])
    assert not re.search(r"""(?:src|href)=["']?https?:""", path.read_text())  # nothing from elsewhere
    browser.get(path.as_uri())
    until(browser, "wave.getDuration() > 59 && wave.getDecodedData() !== null")
    assert browser.find_element("tag name", "h1").text == TITLE == browser.title

    browser.find_element("id", "play").click()
    until(browser, "wave.isPlaying() && wave.getCurrentTime() > 0.3")
    press(browser, " ")
    until(browser, "!wave.isPlaying()")
    curves = browser.find_element("id", "cursor")

    def click(seconds):  # near the top of the curves
        at = browser.execute_script(f"return x({seconds})") - curves.size["width"] / 2
        offset = round(at), round(110 - curves.size["height"] / 2)
        ActionChains(browser).move_to_element_with_offset(curves, *offset).click().perform()

    browser.execute_script("zoom(0)")
    click(32.1)  # amid an event, but on a curve
    until(browser, "Math.abs(wave.getCurrentTime() - 32.1) < 0.2 && chosen === null")
    click(31)  # between two events
    until(browser, "Math.abs(wave.getCurrentTime() - 31) < 0.2")
    press(browser, Keys.ARROW_RIGHT)
    until(browser, "Math.abs(wave.getCurrentTime() - 32) < 0.2")
    press(browser, Keys.HOME)
    until(browser, "wave.getCurrentTime() < 0.1")

    before = browser.execute_script("return scale()")
    press(browser, "+", "+")
    until(browser, f"scale() > 2 * {before}")
    press(browser, "0")
    until(browser, f"Math.abs(scale() - {before}) < 1e-6")

    first = browser.find_element("css selector", "#events button")
    assert "0.60" in first.text and "hold" in first.text  # an event with the largest error comes first
    assert browser.execute_script("return listed.every((e, i) => !i || listed[i - 1].error >= e.error)")
    first.click()
    start = browser.execute_script("return chosen.start_s")
    until(browser, f"wave.isPlaying() && Math.abs(wave.getCurrentTime() - ({start} - 1.5)) < 1")
    press(browser, " ")  # the event in the list has the focus
    until(browser, "!wave.isPlaying()")
    press(browser, "n")
    until(browser, "listed.indexOf(chosen) === 1")
    browser.execute_script("document.getElementById('kind').value = 'shift'; list()")
    assert browser.execute_script("return listed.length > 0 && listed.every((e) => e.name === 'shift')")
    at = browser.execute_script("const e = data.events[5]; zoom(0); return [x(e.start_s + 0.1), e.start_s]")
    wide = curves.size["width"], curves.size["height"]
    ActionChains(browser).move_to_element_with_offset(
        curves, at[0] - wide[0] / 2, 90 - wide[1] / 2
    ).click().perform()
    until(browser, f"chosen.start_s === {at[1]}")
    press(browser, "?")
    assert browser.find_element("id", "keys").is_displayed()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_an_hour_stays_quick(browser, tmp_path):
    samples, frames, events = call(3600)
    path = tmp_path / "hour.html"
    for name in ("p_bc", "p_now", "p_future", "vad"):
        for speaker in "ab":
            frames = frames.append_column(f"{name}_{speaker}", frames[f"p_{speaker}"])
    write_page(str(path), "An hour", samples, RATE_HZ, frames, events)
    assert path.stat().st_size < 40e6
    assert frames.num_columns == 14  # all columns of predictions
    began = time.monotonic()
    browser.get(path.as_uri())
    until(browser, "wave.getDuration() > 3599", 30)
    loaded_s = time.monotonic() - began
    zooms = "for (const pixels of [100, 0, 50, 3]) { zoom(pixels, 1800); draw(); }"
    took = browser.execute_script(f"const t = performance.now(); {zooms} return performance.now() - t")
    drawn_ms = took / 4
    print(json.dumps({"loaded_s": round(loaded_s, 2), "zoom_ms": round(drawn_ms, 1)}))
    assert browser.execute_script("return listed.length") == 1799
    assert drawn_ms < 500


def test_what_is_missing_leaves_a_gap(browser, tmp_path):
    """No voice activity, a stretch of NaN, an event without a probability, numbers of numpy."""
    p = np.where(np.arange(500) < 250, 0.25, np.nan).astype(np.float32)
    event = {"name": "shift", "speaker": np.int64(1), "start_s": 1.0, "end_s": 1.2, "truth": None}
    event |= {"error": None, "probability": np.float32("nan")}
    path = tmp_path / "page.html"
    frames = pa.table({"time_s": np.arange(500) / 100, "p_bc_a": p})
    silence = np.zeros((5 * RATE_HZ, 2), np.float32)
    write_page(str(path), TITLE, silence, RATE_HZ, frames, [event])
    browser.get(path.as_uri())
    until(browser, "wave.getDecodedData() !== null")
    assert browser.execute_script("return [listed[0].probability, listed[0].speaker]") == [None, 1]
    curve = "getContext('2d').getImageData(x(time), 150, 1, 10).data.some((v) => v > 0)"  # at a quarter
    painted = f"draw(); return [1.8, 4].map((time) => document.getElementById('drawing').{curve})"
    assert browser.execute_script(painted) == [True, False]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_sound_has_a_constant_rate():
    """Browsers estimate where to seek in MP3 of a variable rate, seconds away from the cursor."""
    noise = np.random.default_rng(0).normal(0, 0.2, (30 * RATE_HZ, 2)).astype(np.float32)
    assert (
        len(_mp3(noise, RATE_HZ)) == len(_mp3(noise * 0, RATE_HZ)) == pytest.approx(30 * 48_000 / 8, rel=0.01)
    )
