"""Who stands in front of our packages, tried with real strangers in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("opcd_agents", "envs", "experience_bank", "cli")


def _opcd(*args: str, cwd: Path, site: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *options, "-m", "opcd_agents", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with our packages as an installation has them."""
    target = tmp_path / "site"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    return target


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def _distribution(site: Path, name: str) -> None:
    """Record an installed distribution that brings a package of its own name."""
    folder = site / f"{name}-1.4.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.4\n")
    (folder / "top_level.txt").write_text(f"{name}\n")
    (folder / "RECORD").write_text(f"{name}/__init__.py,,\n")


def _explains(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("opcd: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_clean_installation_starts(site, elsewhere):
    done = _opcd("--help", cwd=elsewhere, site=site)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["envs", "cli", "experience_bank"])
def test_a_local_folder_that_shadows_is_named(site, elsewhere, name):
    (elsewhere / name).mkdir()
    (elsewhere / name / "__init__.py").touch()
    _explains(_opcd("--help", cwd=elsewhere, site=site), repr(name), str(elsewhere / name), "-P")
    assert _opcd("--help", cwd=elsewhere, site=site, options=("-P",)).returncode == 0


def test_a_local_module_that_shadows_is_named(site, elsewhere):
    (elsewhere / "cli.py").write_text("print('mine')\n")
    _explains(_opcd("--help", cwd=elsewhere, site=site), "'cli'", "cli.py")


def test_a_local_folder_that_is_no_package_does_no_harm(site, elsewhere):
    (elsewhere / "envs").mkdir()
    assert _opcd("--help", cwd=elsewhere, site=site).returncode == 0


def test_a_distribution_on_top_is_named(site, elsewhere):
    (site / "envs" / "__init__.py").write_text("def env(): ...\n")
    _distribution(site, "envs")
    _explains(_opcd("envs", cwd=elsewhere, site=site), "'envs'", "overwritten", "pip uninstall envs")


def test_a_distribution_in_front_is_named(site, elsewhere, tmp_path):
    front = tmp_path / "front"
    (front / "envs").mkdir(parents=True)
    (front / "envs" / "__init__.py").touch()
    _distribution(front, "envs")
    both = Path(f"{front}{os.pathsep}{site}")
    _explains(_opcd("--help", cwd=elsewhere, site=both), "'envs'", "comes first", "pip uninstall envs")


def test_what_an_uninstall_took_along_is_missed(site, elsewhere):
    (site / "envs" / "__init__.py").unlink()
    _explains(_opcd("--help", cwd=elsewhere, site=site), "'envs'", str(site))


def test_another_import_error_keeps_its_traceback(site, elsewhere):
    (site / "cli" / "envs.py").write_text("import no_such_library\n")
    done = _opcd("envs", cwd=elsewhere, site=site)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "no_such_library" in done.stderr
