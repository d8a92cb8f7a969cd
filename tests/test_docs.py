"""The code of the README and of pages to follow runs, and API pages list every public name."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("how-to", "coming-from")
PAGES = [ROOT / "README.md", *sorted(p for f in FOLDERS for p in (ROOT / "docs" / f).glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_python_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    assert blocks


ROOMS = [
    ".".join(init.parent.relative_to(ROOT / "jaxsci").parts)
    for init in sorted((ROOT / "jaxsci").rglob("__init__.py"))
]


@pytest.mark.parametrize("room", [r for r in ROOMS if r and "_" not in r])
def test_the_api_page_of_a_room_lists_its_public_names(room):
    module = importlib.import_module(f"jaxsci.{room}")
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    page = (ROOT / "docs" / "api" / f"{room}.md").read_text()
    listed = {n.rsplit(".", 1)[1] for n in re.findall(r"^::: ([\w.]+)$", page, flags=re.M)}

    assert public == listed
