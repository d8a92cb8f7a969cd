import sys

from jaxsci._base import progress_bar


def test_a_bar_that_is_not_wanted_takes_the_same_calls():
    with progress_bar(False, "step", 3) as bar:
        bar.update(2)
        bar.set_postfix(loss=1.0)
        assert bar.n == 0


def test_a_bar_starts_where_the_work_does_and_counts(capsys):
    with progress_bar(True, "step", 5, 2) as bar:
        bar.update(2)
        assert (bar.n, bar.total) == (4, 5)
    assert "step" in capsys.readouterr().err


def test_without_tqdm_there_is_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(True, "step") as bar:
        bar.update(1)
        assert bar.n == 0
