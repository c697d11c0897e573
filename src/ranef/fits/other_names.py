"""Names that are not there, and what is written instead.

Those of R's lme4, lmerTest, emmeans and broom, and of Python's statsmodels, pymer4, bambi and
ArviZ.
"""

from __future__ import annotations

import re
import sys
from functools import wraps
from inspect import isfunction
from typing import Any

from ranef.arguments import answering, in_words
from ranef.errors import FitError

OF_MODELS = (  # public names that a model has and no fit
    "criterion",
    "criterion_table",
    "log_likelihood",
    "log_likelihood_gradient",
    "log_marginal",
    "log_marginal_gradient",
    "plot_criterion",
    "plot_data",
    "prior_predictive",
    "prior_table",
    "priors",
    "structures",
    "to_pymc",
    "with_priors",
)
_FIXED, _TESTS = "fit.fixef()", 'fit.summary(df="satterthwaite")` or `rf.joint_tests(fit)'
_POSTERIOR = "fit.posterior` with ArviZ, as `az.plot_trace_dist(fit.posterior)"
_FIT = "rf.fit(formula, data)"
ELSEWHERE = {  # by the name without its capitals, points and underscores
    **dict.fromkeys(("params", "coefs", "coefficients", "feparams", "fixedeffects"), _FIXED),
    **dict.fromkeys(("bse", "stderr", "stderrors", "bsefe"), "fit.se()"),
    **dict.fromkeys(("tvalues", "zvalues", "tstat"), 'fit.to_frame()["t"]'),
    **dict.fromkeys(("pvalues", "pvalue", "anovalmertest"), _TESTS),
    **dict.fromkeys(("randomeffects", "ranefvar", "randoms", "blups", "re"), "fit.ranef()"),
    **dict.fromkeys(("randomeffectscov", "sevarcov", "condvar"), "fit.ranef_table()"),
    **dict.fromkeys(("covre", "varcor", "variances"), "fit.varcorr()"),
    **dict.fromkeys(("resid", "resids"), "fit.residuals()"),
    **dict.fromkeys(("fittedvalues", "fits"), "fit.fitted()"),
    **dict.fromkeys(("llf", "loglike"), "fit.loglik"),
    **dict.fromkeys(("deviance", "remlcrit"), "fit.objective"),
    "ngrps": "fit.n_groups",
    **dict.fromkeys(("covparams", "covb", "vcovfe"), "fit.vcov()"),
    **dict.fromkeys(("rsquared", "rsquaredgaussian", "r2nakagawa"), "fit.r2()"),
    **dict.fromkeys(("bootmer", "bootstraps"), "fit.bootstrap()"),
    **dict.fromkeys(("hatvalues", "hat"), "fit.leverage()"),
    **dict.fromkeys(("dotplot", "plotranef"), "fit.plot_caterpillar()"),
    **dict.fromkeys(("lmlist", "nopooling"), "fit.own_table()"),
    **dict.fromkeys(("drop1", "ranova", "lrtest", "lrt"), "rf.anova(smaller_fit, fit)"),
    **dict.fromkeys(("emmeans", "lsmeans", "predictions"), 'rf.means(fit, "predictor")'),
    **dict.fromkeys(("emtrends", "marginaleffects"), 'rf.slopes(fit, "predictor")'),
    **dict.fromkeys(("pairs", "posthoc", "pairwise"), 'rf.contrasts(fit, "predictor")'),
    **dict.fromkeys(("glht", "ttest", "waldtest", "ftest"), 'rf.hypothesis(fit, "a = b")'),
    **dict.fromkeys(("idata", "inferencedata", "plottrace", "plotposterior"), _POSTERIOR),
    **dict.fromkeys(("lmer", "mixedlm", "lme", "lm"), _FIT),
    **dict.fromkeys(("glmer", "glm", "glmmtmb"), 'rf.fit(formula, data, family="binomial")'),
    **dict.fromkeys(("brm", "stanlmer"), 'rf.fit(formula, data, "mcmc")'),
    "confinterval": "fit.confint()",
    "getme": "fit.theta`, `fit.Z()`, `fit.Lambda()` or `fit.cholesky()",
    "model": "fit.update(...)` for another one; a fit does not hold the `rf.Model",
    "plot": 'fit.plot_residuals()`, `fit.plot_groups()` or `rf.plot_effects(fit, "predictor")',
    "ppcheck": "fit.plot_ppc()",
    "qqmath": 'fit.plot_residuals("qq")',
    "waic": "fit.loo()",
}


RECORDS = {  # that calls return, and nobody makes
    "Anova": "rf.anova(smaller_fit, fit)",
    "Bootstrap": "fit.bootstrap()",
    "Comparison": 'rf.compare({"a": fit, "b": other_fit})',
    "Curve": "fit.curve(name)",
    "DataSummary": "rf.summarize(formula, data)",
    "MarginalLikelihood": "fit.log_marginal_likelihood()",
    **dict.fromkeys(("PointFit", "PosteriorFit", "QuadratureFit"), _FIT),
    "Power": "rf.power(study, find)",
    "Profile": "fit.profile()",
    "VarCorr": "fit.varcorr()",
}


def leading_on(public: Any) -> Any:
    """Let a public function or class say of options that it has not what there is.

    A record that is called like a function leads to the call that returns it. It is the class, and
    the function in its module, that change, so that they are the same wherever they come from.
    """
    if isfunction(public):
        public = in_words(public)
        sys.modules[public.__module__].__dict__[public.__name__] = public
    elif isinstance(public, type) and public.__module__.startswith("ranef."):
        answering(public)
        if public.__name__ in RECORDS:
            _only_returned(public)
    return public


def _only_returned(kind: Any) -> None:
    """Let a class whose arguments are wrong say which call returns one."""
    make, written = kind.__init__, RECORDS[kind.__name__]

    @wraps(make)
    def called(*args: Any, **options: Any) -> None:
        try:
            make(*args, **options)
        except (TypeError, FitError) as error:
            message = f"a {kind.__name__} is not made by hand: write `{written}`."
            raise FitError(message) from error

    kind.__init__ = called


def missing(one: object, name: str, kinds: tuple[type, ...]) -> AttributeError:
    """Return the error of a name that a fit, or a model, has not, and say what has it.

    Parameters
    ----------
    one : Fit or Model
    name : str
    kinds : tuple of type
        The kinds of fits.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> fit.curve
    Traceback (most recent call last):
    ...
    AttributeError: a PointFit has no `curve`; a QuadratureFit has: fit by method="quadrature"
    (linear models).
    >>> fit.pvalues
    Traceback (most recent call last):
    ...
    AttributeError: a PointFit has no `pvalues`; write `fit.summary(df="satterthwaite")` or
    `rf.joint_tests(fit)`.
    """
    message = f"a {type(one).__name__} has no `{name}`"
    if any(hasattr(kind, name) for kind in kinds):
        return _complete(f"{message}; {_has_it(name, kinds)}.", name)
    return _error(message, name, one, kinds)


def _has_it(name: str, kinds: tuple[type, ...]) -> str:
    """Say which kind of fit has a name, and how it is made."""
    kind: Any = next(kind for kind in kinds if hasattr(kind, name))
    return f"a {kind.__name__} has: fit by method={kind.made_by}"


def missing_in_package(name: str) -> AttributeError:
    """Return the error of a name that the package has not, and say what has it.

    Examples
    --------
    >>> import ranef as rf
    >>> rf.fixef
    Traceback (most recent call last):
    ...
    AttributeError: module 'ranef' has no attribute 'fixef'; write `fit.fixef`, of a fit.
    """
    package = sys.modules["ranef"]
    message = f"module 'ranef' has no attribute {name!r}"
    owners = {"fit": (package.PointFit, package.QuadratureFit), "model": (package.Model,)}
    for word, kinds in owners.items():
        if any(hasattr(kind, name) for kind in kinds):
            return _complete(f"{message}; write `{word}.{name}`, of a {word}.", name)
    return _error(message, name, package, owners["fit"])


def _error(message: str, name: str, one: object, kinds: tuple[type, ...]) -> AttributeError:
    """Return the error with what is written instead, or for Python to add what is alike."""
    if name.startswith("_"):
        return AttributeError(message, name=name, obj=one)
    key = name.replace("_", "").lower()
    own = {each.replace("_", "").lower(): each for kind in kinds for each in dir(kind)}
    written = ELSEWHERE.get(key)
    if name in OF_MODELS:
        written = f"model.{name}`, of the `rf.Model"
    elif key in own:
        written = f"fit.{own[key]}"
    elif name in sys.modules["ranef"].__all__:
        written = f"rf.{name}(...)"
    if written is None:
        return AttributeError(message, name=name, obj=one)
    lacked = [each for each in re.findall(r"\bfit\.(\w+)", written) if not hasattr(type(one), each)]
    where = f", which {_has_it(lacked[0], kinds)}" if lacked and isinstance(one, kinds) else ""
    return _complete(f"{message}; write `{written}`{where}.", name)


def _complete(message: str, name: str) -> AttributeError:
    """Return an error that Python adds no names to that are alike."""
    return AttributeError(message, name=name, obj=None)
