"""The questions that a fit may ask its model: both engines answer all of them."""

from __future__ import annotations

import inspect

import pytest

from ranef.fits.engine import Engine
from ranef.model.generalized_engine import GeneralizedEngine
from ranef.model.linear_engine import LinearEngine

QUESTIONS = [
    name
    for name, member in vars(Engine).items()
    if inspect.isfunction(member) and not name.startswith("_")
]


@pytest.mark.parametrize("engine", [LinearEngine, GeneralizedEngine])
@pytest.mark.parametrize("question", QUESTIONS)
def test_an_engine_answers_with_the_same_arguments(engine, question):
    asked = inspect.signature(getattr(Engine, question))
    answered = inspect.signature(getattr(engine, question))
    assert list(answered.parameters) == list(asked.parameters)
    assert not getattr(getattr(engine, question), "__isabstractmethod__", False)


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_is_about_a_fit(question):
    """Engines are asked with records; a fit would close a circle."""
    hints = inspect.get_annotations(getattr(Engine, question))
    hints.pop("return")
    assert not any("Fit" in str(hint).replace("FittedModel", "") for hint in hints.values())


def test_there_is_something_to_ask():
    assert {"refit", "scores", "evidence", "profile", "degrees_of_freedom"} <= set(QUESTIONS)
