"""How fast the page without a server is, beside the same drag in the demo; and how it looks.

    python benchmarks/page.py --model pretrained/avatars-flow-vae

Opens an export of the model as a file, without a network, and app.py with the same model; drags
between two pictures for two seconds at 60 moves a second, and writes benchmarks/results/page.json
and docs/page.jpg. Needs Chromium, as benchmarks/demo.py does.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from demo import CHROMIUM, FLAGS, PORT, RUNS, URL, drag, start
from playwright.async_api import Browser, Page, async_playwright
from run import ROOT, write

from hfvae.export import export

BLOCKS = """new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) globalThis.longest = Math.max(longest, duration)
}).observe({ type: "longtask" })"""
DECODES = """async (n) => {
  const { model } = hfvae, z = await model.encode(await model.sample(1, 0)), times = []
  for (let i = 0; i < n; i++) {
    const began = performance.now()
    await model.decode(z)
    times.push(performance.now() - began)
  }
  return times
}"""


async def visit(page: Page, url: str, ready: str, canvas: str, counter: str) -> dict[str, Any]:
    """Open a page, and drag on a canvas of its Interpolate."""
    await page.add_init_script(f"globalThis.longest = 0\n{BLOCKS}")
    began = time.perf_counter()
    await page.goto(url)
    await page.wait_for_function(ready)
    usable = time.perf_counter() - began
    await page.get_by_role("tab", name="Interpolate").click()
    await page.wait_for_function(f"document.querySelector('{counter}')?.dataset.draws > 0")
    await page.wait_for_timeout(1500)
    await page.evaluate("globalThis.longest = 0")
    pictures, _ = await drag(page, canvas, counter)
    return {"usable_s": usable, "strip": pictures, "blocked_ms": await page.evaluate("longest")}


async def measure(browser: Browser, url: str, where: tuple[str, str, str]) -> dict[str, float]:
    """The medians of some visits."""
    visits: list[dict[str, Any]] = []
    for _ in range(RUNS):
        context = await browser.new_context(viewport={"width": 1280, "height": 1000})
        page = await context.new_page()
        visits.append(await visit(page, url, *where))
        if url.startswith("file:"):
            visits[-1]["decode_ms"] = statistics.median(await page.evaluate(DECODES, 50))
        await context.close()
    return {key: statistics.median(v[key] for v in visits) for key in visits[0]}


async def picture(browser: Browser, url: str) -> None:
    """docs/page.jpg."""
    page = await browser.new_page(viewport={"width": 900, "height": 610})
    await page.goto(f"{url}#seed=7&temperature=0.8")
    await page.wait_for_function("document.querySelector('#generate ul').dataset.drawn")
    await page.screenshot(path=ROOT / "docs" / "page.jpg", type="jpeg", quality=75)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "pretrained" / "avatars-flow-vae"))
    model = parser.parse_args().model
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with tempfile.TemporaryDirectory() as folder:
            url = export(Path(folder) / "page.html", [model]).as_uri()
            stage = "#interpolate .stage"
            static = await measure(browser, url, ("globalThis.hfvae?.model", stage, stage))
            await picture(browser, url)
        server, _ = start(["app.py", "--port", str(PORT), "--model", model])
        try:
            ready = "document.querySelector('#walk .scrubber')?.dataset.draws > 0"
            where = (ready, "#strip canvas", "#strip .scrubber")
            demo = await measure(browser, URL, where)
        finally:
            server.terminate()
        await browser.close()
    rows = [
        {"name": "the page, from a file", "exact": 1.0, **static},
        {"name": "the demo, on loopback", "exact": 0.0, **demo},
    ]
    write("page", "python benchmarks/page.py", rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
