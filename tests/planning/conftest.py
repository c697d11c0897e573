"""Studies of sleep that are planned: 7 subjects of 5 days each, at stated parameters."""

import pytest
from planned_studies import SLEEP, STATED

import ranef as rf
from ranef.planning.planned_rows import Plan, extended, with_rows
from ranef.planning.stated_parameters import stated


@pytest.fixture(scope="module")
def plan():
    frame = rf.load_dataset("sleepstudy")[["Days", "Subject"]]
    return Plan.of(SLEEP, extended(with_rows(frame, "Subject", 5), "Subject", 7), "gaussian")


@pytest.fixture(scope="module")
def truth(plan):
    return stated(plan.design(), plan.family, STATED["beta"], STATED["theta"], {"sigma": 25})
