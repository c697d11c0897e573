"""Names that are not there lead on to what is: of fits, of models, of the package."""

import inspect
import pickle
import re
from inspect import isfunction, signature
from types import SimpleNamespace

import pytest

import ranef as rf
from ranef.fits.other_names import ELSEWHERE, OF_MODELS, RECORDS


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


def test_a_posterior_says_who_has_what_is_written_instead(fit, model):
    kind = 'which a PointFit has: fit by method="reml", "ml" or "map".'
    quadrature = model.fit("quadrature", draws=100)
    for name, written in (("deviance", "objective"), ("llf", "loglik"), ("bootMer", "bootstrap()")):
        expected = f"a QuadratureFit has no `{name}`; write `fit.{written}`, {kind}"
        assert said(quadrature, name) == expected
    assert said(fit, "waic").startswith("a PointFit has no `waic`; write `fit.loo()`, which a Post")
    assert said(quadrature, "waic") == "a QuadratureFit has no `waic`; write `fit.loo()`."


def test_a_model_says_what_a_fit_has(model):
    assert said(model, "fixef") == (
        'a Model has no `fixef`; a PointFit has: fit by method="reml", "ml" or "map".'
    )
    assert said(model, "params") == "a Model has no `params`; write `fit.fixef()`."


def test_python_adds_what_is_alike(fit):
    with pytest.raises(AttributeError) as caught:
        _ = fit.fxef
    assert (caught.value.name, caught.value.obj) == ("fxef", fit)


CALLS = {
    "predict() has no option `re_form`": lambda one: one.fit.predict(re_form=None),
    "simulate() has no option `nsim`. It is `n`.": lambda one: one.fit.simulate(nsim=3),
    "ranef() has no option `condVar`. `fit.ranef_table()`": lambda one: one.fit.ranef(condVar=1),
    "check() has no option `level`.": lambda one: one.fit.check(level=0.9),
    "prior_predictive() has no option `draws`": lambda one: one.model.prior_predictive(draws=9),
    "Model() has no option `REML`. It is the method": lambda _: rf.Model("y ~ x", REML=1),
    "means() has no option `specs`. It is `variables`.": lambda one: rf.means(one.fit, specs=1),
    "Normal() has no option `mean`. It is `mu`.": lambda _: rf.priors.Normal(mean=1),
    "a picture has no option `scales`": lambda one: one.fit.plot_caterpillar(scales="free"),
    "a file is given by its path": lambda one: one.fit.save(None),
    "a file is given by its path, such": lambda _: rf.load(3),
    "a file is given by its path, such as": lambda one: one.model.fit(file=3),
    "a file is given by its path, such as ": lambda one: one.fit.explore_shrinkage(3),
}


@pytest.mark.parametrize("expected", CALLS)
def test_wrong_options_are_answered_in_words(expected, model, fit):
    with pytest.raises(rf.RanefError, match=f"^{re.escape(expected)}"):
        CALLS[expected](SimpleNamespace(model=model, fit=fit))


PUBLIC = [rf.Model, rf.PointFit, rf.PosteriorFit, rf.QuadratureFit]
FUNCTIONS = [getattr(rf, name) for name in rf.__all__ if isfunction(getattr(rf, name))]


@pytest.mark.parametrize(
    "function",
    [
        function
        for kind in PUBLIC
        for name, function in inspect.getmembers(kind, isfunction)
        if not name.startswith("_")
    ]
    + FUNCTIONS,
)
def test_every_public_function_answers_in_words(function):
    """Those that hand options on say it where these are used."""
    if not any(one.kind is one.VAR_KEYWORD for one in signature(function).parameters.values()):
        with pytest.raises(rf.FitError, match=r"\(\) has no option `wrong`\. "):
            function(wrong=1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_are_the_same_wherever_they_come_from(function):
    assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_returned_and_not_made(name, fit):
    with pytest.raises(rf.FitError) as caught:
        getattr(rf, name)(fit)
    expected = f"a {name} is not made by hand: write `{RECORDS[name]}`."
    assert str(caught.value) == expected


def test_what_returns_a_record_is_there(fit, model):
    posterior = model.fit("quadrature")
    for owner, name in re.findall(r"\b(fit|rf)\.(\w+)", " ".join(RECORDS.values())):
        assert hasattr(rf if owner == "rf" else fit, name) or hasattr(posterior, name), name
    assert type(fit.varcorr()) is rf.VarCorr
    assert type(posterior.curve("sigma")) is rf.Curve
