"""How fast the demo is, in a real browser with a real mouse, near and far away; and how it looks.

    python benchmarks/demo.py

Starts app.py, drags over the strip of Interpolate for two seconds at 60 moves a second, on loopback
and with 100 ms of network latency, and writes benchmarks/results/demo.json and two screenshots.
The mouse waits for no page, as none does on a desk: it moves on while the page is still busy.
Needs Chromium: apt install chromium, or CHROMIUM set to its path.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from typing import Any

from playwright.async_api import Page, async_playwright
from run import ROOT, write

RESULTS = ROOT / "benchmarks" / "results"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "google-chrome"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
RUNS, MOVES, SECONDS = 3, 120, 2.0
PORT = 7890
URL = f"http://127.0.0.1:{PORT}"


async def drag(page: Page, canvas: str, counter: str) -> tuple[float, int]:
    """Pictures a second while the mouse moves over a canvas, and what was asked of the server."""
    box = await page.locator(canvas).bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    await page.mouse.down()
    await page.wait_for_timeout(1500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    count = f"Number(document.querySelector('{counter}').dataset.draws)"
    before, start = await page.evaluate(count), time.perf_counter()
    moves = []
    for i in range(MOVES):
        x = box["x"] + 4 + (box["width"] - 8) * i / MOVES
        y = box["y"] + box["height"] * (0.5 + 0.4 * i / MOVES)
        moves.append(asyncio.create_task(page.mouse.move(x, y)))
        await asyncio.sleep(start + (i + 1) * SECONDS / MOVES - time.perf_counter())
    await asyncio.gather(*moves)
    seconds, found = time.perf_counter() - start, len(asked)
    drawn = await page.evaluate(count) - before
    await page.mouse.up()
    await page.wait_for_timeout(600)
    return drawn / seconds, found


async def measure(page: Page, url: str, latency: float) -> dict[str, Any]:
    """One visit: opening the page, the first strip, and drags on strip and map."""
    network = await page.context.new_cdp_session(page)
    await network.send("Network.enable")
    conditions = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    await network.send("Network.emulateNetworkConditions", conditions | {"latency": latency})
    start = time.perf_counter()
    await page.goto(url)
    await page.get_by_role("button", name="Generate", exact=True).wait_for()
    usable = time.perf_counter() - start
    drawn = "() => Number(document.querySelector('{} .scrubber')?.dataset.draws) > 3"
    await page.wait_for_function(drawn.format("#walk"))
    moving = time.perf_counter() - start
    await page.get_by_role("tab", name="Interpolate").click()
    await page.wait_for_function(drawn.replace("> 3", "> 0").format("#strip"))
    await page.wait_for_timeout(1500)
    strip, asked = await drag(page, "#strip canvas", "#strip .scrubber")
    await page.get_by_role("tab", name="Explore").click()
    await page.wait_for_function(drawn.replace("> 3", "> 0").format("#map"))
    await page.wait_for_timeout(1500)
    plane, asked_by_map = await drag(page, "#map canvas", "#map .scrubber")
    return {
        "usable_s": usable,
        "moving_s": moving,
        "strip": strip,
        "map": plane,
        "requests": asked + asked_by_map,
    }


async def picture(page: Page, url: str, name: str) -> None:
    """A screenshot: of Interpolate with the mouse halfway, or of what a phone opens with."""
    await page.goto(url + "/?seed=7")
    await page.wait_for_timeout(2000)
    if name == "desktop":
        await page.get_by_role("tab", name="Interpolate").click()
        await page.wait_for_timeout(2500)
        box = await page.locator("#strip canvas").bounding_box()
        assert box is not None
        await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await page.wait_for_timeout(1000)
    await page.screenshot(path=RESULTS / f"demo_{name}.png")


def start(command: list[str]) -> tuple[subprocess.Popen, float]:
    """A server, and the seconds until it answers."""
    began = time.perf_counter()
    server = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(URL).close()
            return server, time.perf_counter() - began
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.02)


def starts(commands: list[list[str]]) -> list[float]:
    """The median start of each, one after the other in turns."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(RUNS):
        for command, found in zip(commands, times, strict=True):
            server, seconds = start(command)
            server.terminate()
            server.wait()
            found.append(seconds)
    return [statistics.median(found) for found in times]


async def main() -> None:
    app = ["app.py", "--port", str(PORT)]
    empty = [
        "-c",
        f"import torch, gradio; gradio.Interface(str, 'text', 'text').launch(server_port={PORT})",
    ]
    started, bare = starts([app, empty])
    rows: list[dict[str, Any]] = []
    async with async_playwright() as playwright:
        server, _ = start(app)
        try:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for latency in (0, 100):
                visits = []
                for _ in range(RUNS):
                    context = await browser.new_context(viewport={"width": 1280, "height": 1000})
                    visits.append(await measure(await context.new_page(), URL, latency))
                    await context.close()
                row = {key: statistics.median(v[key] for v in visits) for key in visits[0]}
                name = f"{latency} ms of latency" if latency else "loopback"
                rows.append({"name": name, "start_s": started, "bare_s": bare, **row})
            desktop = {"viewport": {"width": 1200, "height": 900}}
            phone = {
                "viewport": {"width": 390, "height": 844},
                "is_mobile": True,
                "has_touch": True,
            }
            for name, size in [("desktop", desktop), ("phone", phone)]:
                context = await browser.new_context(**size)
                await picture(await context.new_page(), URL, name)
                await context.close()
            await browser.close()
        finally:
            server.terminate()
    write("demo", "python benchmarks/demo.py", rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
