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


def test_before_the_first_step_the_workers_are_being_started() -> None:
    stream = io.StringIO()
    console = Console(stream, clock=lambda: 0.0)
    console.progress("training", 0, 120, 0.0)
    assert stream.getvalue() == "[  0:00]   training: starting the workers\n"


def test_answers_are_told_when_they_change_and_ever_more_seldom() -> None:
    now, stream = [0.0], io.StringIO()
    console = Console(stream, clock=lambda: now[0])
    for second in range(0, 1000, 10):
        now[0] = float(second)
        console.patiently("answers: 3 of 4 answered" if second >= 500 else "answers: 2 of 4 answered")
    times = [line.split("]")[0].split("[")[1].strip() for line in stream.getvalue().splitlines()]
    assert times == ["0:00", "1:00", "3:00", "7:00", "8:20", "9:20", "11:20", "15:20"]
    assert "left" not in stream.getvalue()
