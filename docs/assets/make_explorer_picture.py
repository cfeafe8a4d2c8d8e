"""The README's first picture: the explorer at the numbers of Llama 3.2, as a browser shows it.

``python docs/assets/make_explorer_picture.py`` writes explorer.png beside this file.
It needs playwright and a Chromium.
"""

import json
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from posenc.lab.explore.job import explore

CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}

with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
    config = Path(folder) / "config.json"
    config.write_text(json.dumps(CONFIG))
    page_file = explore(str(config), Path(folder) / "page.html")
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1120, "height": 760})
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelector('header').remove()")
    page.evaluate("document.querySelector('[data-question=turns]').remove()")
    page.screenshot(path=Path(__file__).with_name("explorer.png"))
    browser.close()
