"""The notebook runs from top to bottom on a small case and uses public names only."""

from __future__ import annotations

import ast

import nbformat
import pytest

import streamclust
from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "01-first-look.ipynb"


def cells(kind):
    return [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == kind]


def test_notebook_is_short_and_uses_public_names_only():
    code = [ast.parse(cell.source) for cell in cells("code")]
    assert len(code) == 10
    assert all(len(cell.source.splitlines()) <= 12 for cell in cells("code"))
    assert NOTEBOOK.stat().st_size < 600_000
    for tree in code:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("streamclust")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "streamclust":
                assert node.attr in streamclust.__all__


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn of themselves
def test_notebook_runs(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("FIRST_LOOK_IMAGES", "300")
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type in {"stream", "error"}], "a cell wrote to the terminal"
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2
    assert not list(tmp_path.iterdir())
