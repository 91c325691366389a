"""The page in a real browser, where one is installed: every figure stands, nothing complains."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rankwise.report.write import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's elements after its scripts ran, and what it wrote to the console."""
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--virtual-time-budget=10000", f"--user-data-dir={profile}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_every_figure_comes_alive_and_nothing_complains(plain_study: Path, tmp_path: Path) -> None:
    page = write_report(plain_study)
    elements, complaints = opened(page, tmp_path / "profile")
    assert complaints == []
    figures = len(list((plain_study / "figures").iterdir()))
    assert figures >= 4
    assert len(re.findall(r'<div class="still"[^>]* hidden=""', elements)) == figures
    assert len(re.findall(r'<div class="live[^"]*"[^>]*>.*?<svg', elements, re.DOTALL)) == figures


def test_a_broken_figure_would_be_noticed_and_its_still_picture_stays(
    plain_study: Path, tmp_path: Path
) -> None:
    text = write_report(plain_study).read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('"mark": {', '"nonsense": {'), encoding="utf-8")
    elements, complaints = opened(broken, tmp_path / "profile")
    assert complaints
    assert '<div class="still" role="img"' in elements
