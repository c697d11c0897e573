"""Shared by all tests: a posterior that is sampled once, and no figures left open."""

import os
import sys

import pytest

import ranef as rf

os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="session")
def sleep_post():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    return model.fit("mcmc", seed=1, draws=1000, tune=1000, chains=4, progressbar=False)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
