"""Names that are not there lead on to what is: of fits, of models, of the package."""

import re

import pytest

import ranef as rf
from ranef.fits.other_names import ELSEWHERE, OF_MODELS


@pytest.fixture(scope="module")
def model():
    return rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))


@pytest.fixture(scope="module")
def fit(model):
    return model.fit()


def said(one, name):
    with pytest.raises(AttributeError) as caught:
        getattr(one, name)
    return str(caught.value)


@pytest.mark.parametrize("written", sorted(set(ELSEWHERE.values())))
def test_what_is_written_instead_is_there(written, fit, model):
    posterior = model.fit("quadrature")
    for owner, name in re.findall(r"\b(fit|rf)\.(\w+)", written):
        assert hasattr(rf if owner == "rf" else fit, name) or hasattr(posterior, name), name


def test_what_models_alone_have(fit, model):
    own = [name for name in dir(model) if not name.startswith("_") and not hasattr(fit, name)]
    assert set(own) - {"fit", "formula"} == set(OF_MODELS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fe_params", "a PointFit has no `fe_params`; write `fit.fixef()`."),
        ("random_effects", "a PointFit has no `random_effects`; write `fit.ranef()`."),
        ("isSingular", "a PointFit has no `isSingular`; write `fit.is_singular`."),
        ("VarCorr", "a PointFit has no `VarCorr`; write `fit.varcorr`."),
        ("rePCA", "a PointFit has no `rePCA`; write `fit.re_pca`."),
        ("anova", "a PointFit has no `anova`; write `rf.anova(...)`."),
        ("plot_data", "a PointFit has no `plot_data`; write `model.plot_data`, of the `rf.Model`."),
        ("wrong", "a PointFit has no `wrong`"),
        ("_params", "a PointFit has no `_params`"),
    ],
)
def test_names_of_a_fit(fit, name, expected):
    assert said(fit, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lmer", "; write `rf.fit(formula, data)`."),
        ("ranef", "; write `fit.ranef`, of a fit."),
        ("hdi", "; write `fit.hdi`, of a fit."),
        ("to_pymc", "; write `model.to_pymc`, of a model."),
        ("isSingular", "; write `fit.is_singular`."),
        ("lme4", ""),
        ("__wrapped__", ""),
    ],
)
def test_names_of_the_package(name, expected):
    assert said(rf, name) == f"module 'ranef' has no attribute {name!r}{expected}"


def test_a_model_says_what_a_fit_has(model):
    assert said(model, "fixef") == (
        'a Model has no `fixef`; a PointFit has: fit by method="reml", "ml" or "map".'
    )
    assert said(model, "params") == "a Model has no `params`; write `fit.fixef()`."


def test_python_adds_what_is_alike(fit):
    with pytest.raises(AttributeError) as caught:
        _ = fit.fxef
    assert (caught.value.name, caught.value.obj) == ("fxef", fit)
