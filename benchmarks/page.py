"""How fast the page without a server is, beside the same drag in the demo; and how it looks.

    python benchmarks/page.py --model pretrained/avatars-flow-vae

Opens an export of the model as a file, without a network, and app.py with the same model; drags
between two pictures for two seconds at 60 moves a second, and writes benchmarks/results/page.json
and docs/page.jpg. Needs Chromium, as benchmarks/demo.py does.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from demo import CHROMIUM, FLAGS, PORT, RUNS, URL, drag, start
from playwright.sync_api import Browser, Page, sync_playwright
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


def visit(page: Page, url: str, ready: str, canvas: str, counter: str) -> dict[str, Any]:
    """Open a page, and drag on a canvas of its Interpolate."""
    page.add_init_script(f"globalThis.longest = 0\n{BLOCKS}")
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_function(ready)
    usable = time.perf_counter() - began
    page.get_by_role("tab", name="Interpolate").click()
    page.wait_for_function(f"document.querySelector('{counter}')?.dataset.draws > 0")
    page.wait_for_timeout(1500)
    page.evaluate("globalThis.longest = 0")
    pictures, _ = drag(page, canvas, counter)
    return {"usable_s": usable, "strip": pictures, "blocked_ms": page.evaluate("longest")}


def measure(browser: Browser, url: str, where: tuple[str, str, str]) -> dict[str, float]:
    """The medians of some visits."""
    visits: list[dict[str, Any]] = []
    for _ in range(RUNS):
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        visits.append(visit(page, url, *where))
        if url.startswith("file:"):
            visits[-1]["decode_ms"] = statistics.median(page.evaluate(DECODES, 50))
        context.close()
    return {key: statistics.median(v[key] for v in visits) for key in visits[0]}


def picture(browser: Browser, url: str) -> None:
    """docs/page.jpg."""
    page = browser.new_page(viewport={"width": 900, "height": 610})
    page.goto(f"{url}#seed=7&temperature=0.8")
    page.wait_for_function("document.querySelector('#generate ul').dataset.drawn")
    page.screenshot(path=ROOT / "docs" / "page.jpg", type="jpeg", quality=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "pretrained" / "avatars-flow-vae"))
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        url = export(Path(folder) / "page.html", [model]).as_uri()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stage = "#interpolate .stage"
        static = measure(browser, url, ("globalThis.hfvae?.model", stage, stage))
        picture(browser, url)
        server, _ = start(["app.py", "--port", str(PORT), "--model", model])
        try:
            ready = "document.querySelector('#walk .scrubber')?.dataset.draws > 0"
            where = (ready, "#strip canvas", "#strip .scrubber")
            demo = measure(browser, URL, where)
        finally:
            server.terminate()
        browser.close()
    rows = [
        {"name": "the page, from a file", "exact": 1.0, **static},
        {"name": "the demo, on loopback", "exact": 0.0, **demo},
    ]
    write("page", "python benchmarks/page.py", rows)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
