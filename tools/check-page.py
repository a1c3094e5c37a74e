#!/usr/bin/env python3
"""Opens pages in headless Chromium, as a reader does: report, audit, contact sheet.

    tools/check-page.py [--shots DIR] [--chromium PROGRAM] PAGE...

Needs Python and Chromium, nothing else. In a window of 400 and one of 1400 pixels it reads the tables, switches
the theme, follows a link, hovers over a chart and steps through it with the arrow keys, and looks at the sheets
on paper. It prints one line per page, and ends with 1 if something is wrong: an error on the console, a request for
anything but the page, a window that has to be scrolled sideways, text too small to read, no contrast.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (400, 1400)
SMALLEST = 9.5  # pixels of a letter's size
CONTRAST = 4.5  # WCAG 2, level AA

LOOK = """(() => {
  const faults = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`is ${root.scrollWidth} pixels wide`);
  const tables = [...document.querySelectorAll('table')];
  for (const table of tables)
    if (!table.tHead?.rows.length || !table.tBodies[0]?.rows.length) faults.push('a table without head or rows');
  const dead = [...document.querySelectorAll("a[href^='#']")].find(a => !document.getElementById(a.hash.slice(1)));
  if (dead) faults.push(`a dead link ${dead.hash}`);
  const bare = [...document.images].find(image => !image.complete || !image.naturalWidth || !image.alt);
  if (bare) faults.push('an image that does not show, or without words');
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || node.closest('script, style, title, output, legend')) continue;
    if (!node.checkVisibility()) continue;
    const style = getComputedStyle(node), svg = node.ownerSVGElement;
    const scale = svg?.viewBox.baseVal?.width ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const size = parseFloat(style.fontSize) * scale;
    const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const where = `${node.tagName}.${node.getAttribute('class') ?? ''}`;
    if (size < SMALLEST) seen.add(`text of ${size.toFixed(1)} pixels in ${where}`);
    if (contrast < CONTRAST) seen.add(`contrast ${contrast.toFixed(1)} in ${where}`);
  }
  faults.push(...seen);
  return { faults, tables: tables.length, cells: document.querySelectorAll('td').length,
    charts: document.querySelectorAll('svg.chart').length, images: document.images.length };
})()""".replace("SMALLEST", str(SMALLEST)).replace("CONTRAST", str(CONTRAST))

CHART = """(() => {
  const chart = document.querySelector('svg.chart.lines') ?? document.querySelector('svg.chart');
  if (!chart) return null;
  chart.scrollIntoView({ block: 'center' });
  const box = chart.getBoundingClientRect();
  return [box.x + box.width / 3, box.y + box.height / 2];
})()"""

BACKGROUND = "getComputedStyle(document.body).backgroundColor"

TIP = """(() => {
  const tip = document.querySelector('.tip'), box = tip.getBoundingClientRect();
  const inside = box.x >= 0 && box.right <= innerWidth;
  return { shown: !tip.hidden && box.width > 0 && inside, text: tip.textContent };
})()"""


class Chromium:
    """A browser at the other end of two pipes: JSON messages, each followed by a zero byte."""

    def __init__(self, program, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def pipes():  # Chromium reads 3 and writes 4.
            high = [os.dup2(fd, fd + 100) for fd in (to_browser, from_browser)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.left, self.events, self.last, self.session = b"", [], 0, None

    def message(self):
        while b"\0" not in self.left:
            more = os.read(self.read, 1 << 20)
            if not more:
                sys.exit("Chromium has ended")
            self.left += more
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.last:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, event):
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self.message())

    def value(self, script):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{answer['exceptionDetails']}")
        return answer["result"].get("value")

    def open(self, url, width, height=900):
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.size(width, height)
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def size(self, width, height):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=False)

    def shot(self, path, width):
        """A picture of the page, of at most its first 12,000 pixels."""
        height = min(12000, self.value("document.documentElement.scrollHeight"))
        self.size(width, height)
        shot = self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))
        self.size(width, 900)

    def key(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                     windowsVirtualKeyCode={"ArrowRight": 39, "Home": 36}[key])


def click(browser, selector):
    """Clicks with the pointer, as a reader does."""
    browser.value(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    x, y = browser.value(
        f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
        f"(document.querySelector({selector!r}).getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def hover(browser, faults):
    """Moves the pointer over a chart, then steps through it by keys."""
    place = browser.value(CHART)
    if place is None:
        return 0
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    tip = browser.value(TIP)
    if not tip["shown"] or not tip["text"]:
        faults.append("a chart that says nothing under the pointer")
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.value("(document.querySelector('svg.chart.lines') ?? document.querySelector('svg.chart')).focus()")
    browser.key("Home")
    first = browser.value(TIP)
    browser.key("ArrowRight")
    second = browser.value(TIP)
    if not first["shown"] or first["text"] == second["text"]:
        faults.append("a chart that says nothing by keys")
    browser.value("document.activeElement.blur()")
    return 1


def look(browser, page, width, shots):
    url = page.resolve().as_uri()
    browser.open(url, width)
    faults, colors, found = [], [], None
    for theme in ("light", "dark"):
        click(browser, f"#theme-{theme}")
        colors.append(browser.value(BACKGROUND))
        found = browser.value(LOOK)
        faults += [f"{theme}: {fault}" for fault in found["faults"]]
        if shots:
            browser.shot(shots / f"{page.parent.name}-{page.stem}-{width}-{theme}.png", width)
    if colors[0] == colors[1]:
        faults.append("the theme does not switch")
    found["hovered"] = hover(browser, faults)
    if browser.value("document.querySelector(\"td a[href^='#']\") !== null"):
        click(browser, "td a[href^='#']")
        if not browser.value("document.querySelector(location.hash).checkVisibility()"):
            faults.append("a link to what is not shown")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    if browser.value("document.querySelector('.theme').checkVisibility()"):
        faults.append("the switch of the theme is on paper")
    if browser.value(BACKGROUND) != colors[0]:
        faults.append("paper is dark")
    if shots and width == WIDTHS[-1]:
        pdf = browser.ask("Page.printToPDF", printBackground=False)["data"]
        (shots / f"{page.parent.name}-{page.stem}.pdf").write_bytes(base64.b64decode(pdf))
    errors, requests = [], []
    for event in browser.events:
        method, params = event.get("method"), event.get("params", {})
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            errors.append(json.dumps(params)[:300])
        if method == "Network.requestWillBeSent":
            asked = params["request"]["url"]
            if asked.split("#")[0] != url and not asked.startswith("data:"):
                requests.append(asked)
    faults += [f"console: {error}" for error in errors] + [f"request: {asked}" for asked in requests]
    return {**found, "errors": len(errors), "requests": len(requests)}, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", metavar="PAGE", nargs="+", type=Path)
    parser.add_argument("--shots", metavar="DIR", type=Path, help="keep screenshots and a PDF of each page")
    parser.add_argument("--chromium", metavar="PROGRAM", default="chromium")
    options = parser.parse_args()
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    bad = False
    with tempfile.TemporaryDirectory() as profile:
        browser = Chromium(options.chromium, profile)
        for page in options.pages:
            faults = []
            for width in WIDTHS:
                found, wrong = look(browser, page, width, options.shots)
                faults += [f"{width} pixels: {fault}" for fault in wrong]
            counts = " ".join(f"{key}={found[key]}" for key in
                              ("tables", "cells", "charts", "images", "hovered", "errors", "requests"))
            print(f"CHECK page {page} {counts} widths={','.join(map(str, WIDTHS))} faults={len(faults)}")
            for fault in faults:
                print(f"  {fault}")
            bad |= bool(faults)
        browser.session = None
        browser.ask("Browser.close")
        browser.process.wait()
    sys.exit(bad)


if __name__ == "__main__":
    main()
