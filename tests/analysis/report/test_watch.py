import threading

import pytest

from analysis.errors import StoreError
from analysis.report.progress import Progress, RunningTrial
from analysis.report.watch import signature, watch_report
from analysis.store.compact import compact


def test_the_report_is_written_again_when_a_trial_appears_and_only_then(tmp_path, new_trial, write):
    store, out = tmp_path / "store", tmp_path / "r.html"
    write(store, [new_trial()])
    written, looks = [], []

    def stop():
        looks.append(len(written))
        if len(looks) == 3:  # a look that finds nothing new lies between
            write(store, [new_trial(seed=1)])
        return len(looks) > 4

    watch_report(
        store, out=out, every=0.01, stop=stop, on_write=lambda path, seconds: written.append(path.read_text())
    )
    assert looks == [0, 1, 1, 2, 2]
    assert "1 trial, 1 ended ok" in written[0]
    assert "2 trials, 2 ended ok" in written[1]
    assert '"refresh_s":3.0' in written[1]


def test_a_page_stops_asking_once_the_study_has_ended(tmp_path, new_trial, write):
    store, out = tmp_path / "store", tmp_path / "r.html"
    write(store, [new_trial()])
    running = (RunningTrial(what="one", host="here", share=0.5),)
    told = iter([running, running, (), (), ()])  # the last row comes before the last lease goes
    pages, looks = [], []

    def stop():
        looks.append(len(pages))
        return len(looks) > 4

    watch_report(
        store,
        out=out,
        every=0.01,
        stop=stop,
        on_write=lambda path, seconds: pages.append(path.read_text()),
        progress=lambda opened: Progress(planned=1, done=1, left=0, running=next(told)),
    )
    assert looks == [0, 1, 1, 2, 2]
    assert '"refresh_s":3.0' in pages[0] and "1 of 1 done · 1 running" in pages[0]
    assert '"refresh_s":null' in pages[1] and 'class="progress"' not in pages[1]


def test_a_reader_finds_a_whole_page_at_every_moment(tmp_path, new_trial, write):
    store, out = tmp_path / "store", tmp_path / "r.html"
    write(store, [new_trial()])
    count = iter(range(100))
    seen = []

    def stop():
        number = next(count)
        write(store, [new_trial(seed=100 + number)])
        return number > 1

    thread = threading.Thread(target=lambda: watch_report(store, out=out, every=0.01, stop=stop), daemon=True)
    thread.start()
    while thread.is_alive():
        if out.exists():
            seen.append(out.read_text().endswith("</html>"))
    assert seen and all(seen)


def test_a_merge_changes_the_names_and_a_missing_store_is_told(tmp_path, new_trial, write):
    write(tmp_path / "store", [new_trial(), new_trial(seed=1)])
    before = signature(tmp_path / "store")
    assert signature(tmp_path / "store") == before
    compact(tmp_path / "store")
    assert signature(tmp_path / "store") != before
    with pytest.raises(StoreError):
        watch_report(tmp_path / "nowhere")
