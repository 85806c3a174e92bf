import builtins
import re

import pytest

from analysis.errors import AnalysisError
from analysis.report.export import export_figures
from tests.browser import chromium


def test_unknown_formats_and_figures_are_named(demo, tmp_path):
    with pytest.raises(AnalysisError, match="did you mean 'png'"):
        export_figures(demo, tmp_path, format="pgn")
    with pytest.raises(AnalysisError, match="did you mean 'tradeoff'"):
        export_figures(demo, tmp_path, names=["tradeof"])
    assert not list(tmp_path.iterdir())


def test_without_kaleido_the_way_out_is_told(demo, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "kaleido":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AnalysisError, match=r"pip install 'revstudy\[export\]'"):
        export_figures(demo, tmp_path, names=["tradeoff"])


def test_without_chrome_the_way_out_is_told(demo, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "chrome"))
    with pytest.raises(AnalysisError, match="need Chrome or Chromium"):
        export_figures(demo, tmp_path, names=["tradeoff"])


def test_figures_are_written_as_images(demo, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", chromium.required())
    svg, other = export_figures(demo, tmp_path / "new", format="svg", names=["tradeoff", "precision_map"])
    assert (svg.name, other.name) == ("tradeoff.svg", "precision_map.svg")
    text = svg.read_text()
    assert text.startswith("<svg")
    assert "peak memory of a training step / MB" in text
    height, legend = (
        float(re.search(pattern, text)[1])
        for pattern in (
            r'class="gtitle"[^>]* y="([\d.]+)"',
            r'class="legend"[^>]*translate\([\d.]+, ?([\d.]+)\)',
        )
    )
    assert height + 5 < legend  # the title has a line of its own
