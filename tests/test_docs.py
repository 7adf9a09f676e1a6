"""What the README says is so: commands, settings, columns, the snippet; and no file names a machine or a host."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import typer

import streamclust
from streamclust.cli import app
from streamclust.config import Settings
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PROSE = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")
SUFFIXES = {".md", ".py", ".toml", ".txt", ".ipynb", ".html", ".js", ".css", ""}


def fenced(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def in_repository():
    """Text files that git tracks; in a copy without git, all that its ignore file leaves."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = [ROOT / line for line in listed.stdout.splitlines()] if listed.returncode == 0 else ROOT.rglob("*")
    skipped = (".venv", "demo-out", "build", ".git", ".hypothesis", ".mypy_cache", ".ruff_cache")
    for path in found:
        parts = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix in SUFFIXES and not any(p in skipped or p.endswith(".store") for p in parts):
            yield path


def commands():
    return typer.main.get_command(app).commands


def test_every_command_stands_in_the_table_and_the_table_names_no_other():
    named = re.findall(r"^\| `streamclust (\w+)([^`]*)` \|", README, re.MULTILINE)
    assert sorted(name for name, _ in named) == sorted(commands())
    for name, arguments in named:
        real = [p.metavar for p in commands()[name].params if p.param_type_name == "argument"]
        given = arguments.split()
        assert len(given) == len(real), name
        assert all(word in metavar.split("|") for word, metavar in zip(given, real, strict=True)), name


def test_every_option_that_is_named_exists():
    options = {o for command in commands().values() for p in command.params for o in p.opts} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= options


def test_settings_are_complete_and_hold_the_defaults(tmp_path):
    (block,) = fenced("toml")
    (tmp_path / "settings.toml").write_text(block)
    assert streamclust.load_settings(tmp_path / "settings.toml") == Settings(memory="4GB")
    shown = tomllib.loads(block)
    for section, values in Settings().model_dump().items():
        if isinstance(values, dict):
            missing = set(values) - set(shown[section])
            assert all(re.search(rf"\b{key}\b", block) for key in missing), f"[{section}] says nothing of {missing}"


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (demo|test|slow|lint|bench|\w+)(?=`|\s+#)", README)) <= targets


@pytest.mark.slow
def test_snippet_runs_and_exports_the_columns_that_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (snippet,) = fenced("python")
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["shape"].shape == (300, 384)
    assert capsys.readouterr().out.strip().endswith("index.html")
    table = README.split("## The exported table")[1].split("##")[0]
    first = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    named = re.findall(r"`([^`]+)`", first)
    promised = {n.format(descriptor=d) for n in named for d in ("shape", "colour", "texture")}
    assert promised | {"camera", "time"} == set(names["labels"].columns)
    assert (tmp_path / "labels.parquet").is_file()


@pytest.mark.parametrize("name", PROSE)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), target


def test_no_file_names_a_machine_or_a_package_host():
    patterns = [
        r"/(?:root|home|Users|mnt|work)/\w",
        r"\bpypi\b",
        r"pythonhosted",
        r"anaconda\.org",
        r"--(?:extra-)?index[-]url",
    ]
    unwanted = re.compile("|".join(patterns), re.IGNORECASE)
    own = ROOT / "tests" / "test_docs.py"
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path in in_repository()
        if path != own
        for hit in unwanted.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found
