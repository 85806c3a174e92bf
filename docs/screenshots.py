"""Takes the pictures of the report that this folder holds, in light and dark, with Chromium.

python docs/screenshots.py results/quickstart.html
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH = 1240
COLORS = 200
"""A palette of so many colors keeps a picture near 130 kB."""


def main() -> None:
    """From the top of the page to the end of its first figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": WIDTH, "height": 2400}, color_scheme=scheme, reduced_motion="reduce"
            )
            page.goto(arguments.report.absolute().as_uri())
            page.wait_for_selector("#figure-tradeoff .plot-container")
            end = page.evaluate(
                "document.querySelector('#figure-tradeoff').closest('figure').getBoundingClientRect().bottom"
            )
            shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": end + 24})
            picture = Image.open(io.BytesIO(shot)).convert("RGB")
            path = Path(__file__).parent / f"report-{scheme}.png"
            picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
