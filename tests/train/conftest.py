import fakes
import pytest


@pytest.fixture
def fake_papers(tmp_path, monkeypatch):
    """Papers: `good` and `fine` hold, `bad` does not, `crash` raises; `absent` has no module."""
    place = tmp_path / "papers"
    place.mkdir()
    fakes.write(place, "good")
    fakes.write(place, "fine")
    fakes.write(place, "bad", value="0.25")
    fakes.write(place, "crash", body="raise RuntimeError('no luck\\nat all')")
    fakes.listing(place, "absent")
    fakes.install(place, monkeypatch)
    monkeypatch.setenv("PAPYRAX_RESULTS", str(tmp_path / "results"))
    return place


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"
