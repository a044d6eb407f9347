"""The chapters of docs/learn say what the code says, and their exercises know the mistakes they name."""

from __future__ import annotations

import re
from pathlib import Path

import chapters as support
import numpy as np
import pytest
from PIL import Image

from conformance.faults import CATALOGUE
from conformance.teaching.chapters import chapters
from conformance.teaching.clip import output
from conformance.teaching.exercises import EXERCISES, check, recognised
from conformance.teaching.lesson import clip
from conformance.teaching.questions import QUESTIONS
from conformance.teaching.results import rows
from conformance.teaching.walk_page import walk_page
from refimpl.errors import ConfigurationError, FileError

PAPER = {"29.8", "28.8", "29.3", "28.0"}
"""Numbers of the paper that the chapters quote (Tables 3 and 7)."""
ALL = [path.name for path in support.pages()]
ELEVEN = [f"{place:02}.md" for place in range(11)]


def text_of(name: str) -> str:
    """Return a page."""
    return (support.LEARN / name).read_text(encoding="utf-8")


# As a whole.


@pytest.mark.runtimes
@pytest.mark.parametrize("name", ALL)
def test_a_page_prints_what_it_says(name: str) -> None:
    outputs = support.run(support.LEARN / name)
    for said, made in zip(support.printed(text_of(name)), outputs, strict=True):
        assert support.same(said, made), f"{name} is stale:\n{said}\nis now\n{made}"


@pytest.mark.runtimes
def test_they_open_as_notebooks(tmp_path: Path) -> None:
    support.write_notebooks(tmp_path / "learn")
    assert {path.stem for path in (tmp_path / "learn").glob("*.ipynb")} == {name[:-3] for name in ALL}


def test_there_are_eleven_and_the_index_leads_to_each() -> None:
    assert [*ELEVEN, "derive.md", "questions.md"] == ALL
    index = text_of("README.md")
    for place, chapter in enumerate(chapters()):
        assert f"[{place}]({place:02}.md) | {chapter.question}" in index


def test_a_page_has_every_part() -> None:
    for place, chapter in enumerate(chapters()):
        text = text_of(ELEVEN[place])
        assert f"# {place}. {chapter.question}" in text
        assert chapter.belief in text
        assert " ".join(chapter.lead.split()) in " ".join(text.split())
        for part in ("The figure", "By hand", "The function itself", "The mistake", "Exercise"):
            assert f"## {part}\n" in text
        assert chapter.functions[0].rpartition(".")[2] in text
        assert f'check("{list(EXERCISES)[place]}", mine)' in text
        assert all(support.printed(text)[:3])


def test_links_and_pictures_are_there() -> None:
    for path in support.LEARN.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path.name, target)


def test_results_are_those_of_the_results_page() -> None:
    """After a change of docs/results.md: ``python tests/support/chapters.py --write``."""
    for name in ALL:
        for begin in re.findall(r'"(\| [^"]+)"', text_of(name)):
            assert rows(begin)[0] in text_of(name)
    with pytest.raises(FileError, match="has no row"):
        rows("| nobody |")
    for name, made in support.drawings().items():
        assert support.same((support.LEARN / "figures" / name).read_text(encoding="utf-8"), made), name


def test_numbers_in_the_prose_are_printed_somewhere() -> None:
    leads = " ".join(chapter.lead for chapter in chapters())
    for name in ELEVEN:
        text = text_of(name)
        shown = " ".join(support.printed(text))
        prose = re.sub(r"```.*?```|^    .*?$", "", support.stripped(text), flags=re.DOTALL | re.MULTILINE)
        for number in re.findall(r"\d+\.?\d*", re.sub(r"\]\([^)]*\)", "", prose)):
            if len(number.replace(".", "").lstrip("0")) >= 3:
                assert number in shown or number in PAPER or number in leads, (name, number)


def test_a_stale_number_is_noticed() -> None:
    assert support.same("x = 1.23456 and y\n", "x = 1.234561 and y\n")
    assert not support.same("x = 1.23\n", "x = 1.33\n")
    assert not support.same("x = 1.23\n", "y = 1.23\n")
    assert not support.same("1 2\n", "1\n")


def test_the_pictures_are_not_stale() -> None:
    for name, made in support.figures().items():
        there = np.asarray(Image.open(support.LEARN / "figures" / name).convert("RGB")).astype(int)
        assert there.shape == made.shape, name
        assert np.abs(there - made).mean() < 8, name
    assert sum(path.stat().st_size for path in (support.LEARN / "figures").iterdir()) < 1_500_000


# The exercises.


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_accepts_the_reference_and_names_each_mistake(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = EXERCISES[name]
    assert check(name, exercise.right)
    assert "right" in capsys.readouterr().out
    for mistake, wrong in exercise.wrong.items():
        assert not check(name, wrong)
        said = capsys.readouterr().out
        assert "not yet. For" in said
        assert f"this is a known mistake: {mistake}" in said
        assert recognised(name, wrong) == mistake
        assert "/" not in mistake or mistake in CATALOGUE


def test_an_exercise_survives_what_a_learner_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check("mask", lambda kernel: kernel)
    assert "TypeError" in capsys.readouterr().out
    assert not check("mask", lambda kernel, features: None)
    assert not check("mask", lambda kernel, features: 7)
    assert "known mistake" not in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match="there is no exercise 'nothing'; there are mask"):
        check("nothing", lambda: None)


# The questions.


def test_there_are_twenty_questions_of_three_kinds() -> None:
    kinds = [question.kind for question in QUESTIONS]
    assert kinds == ["locate"] * 6 + ["derive"] * 6 + ["predict"] * 8
    assert all(0 <= question.chapter <= 10 for question in QUESTIONS)


def test_the_answers_hold() -> None:
    recording = clip().keyframe.recording
    answers = [question.answer(clip()) for question in QUESTIONS]
    kernels, features = output(recording, "kernels"), output(recording, "mask_features")
    masks = np.einsum("nd,dhw->nhw", kernels, features)
    assert answers[0] == "×".join(map(str, masks.shape[1:]))
    assert answers[1] == "kernels (20×64) and mask_features (64×24×40)"
    assert answers[2] == str((24 // 8) * (40 // 8))
    assert answers[4].split(", ") == [
        "instance_decoder.global_proj",
        "mask_decoder.enhancer.0",
        "mask_decoder.enhancer.1",
    ]
    index = [int(each) for each in re.findall(r"\d+", answers[6])[:4]]
    assert float(answers[6].split("= ")[1]) == pytest.approx(masks[tuple(index[1:])], rel=1e-5)
    cut = np.log(0.45 / 0.55)
    doubled = int(((2 * masks > cut) & ~(masks > cut)).sum() + (~(2 * masks > cut) & (masks > cut)).sum())
    assert f"{doubled} of {masks.size}" in answers[12]
    assert "backbone.tpm.stem.0.c/Conv" in answers[13]
    before, after = (float(each) for each in re.findall(r"from (\S+) to (\S+)", answers[14])[0])
    assert before > after
    assert "(checked)" in answers[15]
    stored = np.einsum("nd,dhw->nhw", kernels, features.astype(np.float16).astype(np.float64))
    assert f"here {int(((stored > cut) != (masks > cut)).sum())} do" in answers[18]


def test_each_answer_stands_at_its_anchor() -> None:
    text, _ = walk_page(clip(), "x")
    for number, question in enumerate(QUESTIONS, 1):
        found = re.search(rf'<details id="question-{number}">.*?<p>(.*?)</p>', text, re.DOTALL)
        assert found
        assert found[1].replace("&#39;", "'") == question.answer(clip()), number
