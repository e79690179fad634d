import io

from emclean.loop.console import Console, duration


def test_durations_in_words() -> None:
    assert [duration(s) for s in (42.2, 190, 7500)] == ["42 s", "3 min 10 s", "2 h 05 min"]


def test_the_job_log_gets_lines_with_an_estimate_and_not_too_many() -> None:
    now, stream = [0.0], io.StringIO()
    console = Console(stream, every=10, clock=lambda: now[0])
    with console.stage("training") as progress:
        for step in range(1, 41):
            now[0] = float(step)
            progress(step, 40)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[  0:00] training …"
    assert lines[-1] == "[  0:40] training: done in 40 s"
    assert "[  0:11]   training: 11 of 40, about 29 s left" in lines
    assert len(lines) == 6
