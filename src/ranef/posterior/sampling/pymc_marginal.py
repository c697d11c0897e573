"""The marginal model in PyMC: the hierarchical one with all effects integrated out.

It has the random variables of the hierarchical model but the effects, and its likelihood is one
operation, `LogMarginal`, compiled beforehand. It costs nothing in the number of rows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef._typing import Array, Dataset, DataTree
from ranef.design.design import Design
from ranef.design.labels import Dims, coordinates, variables
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.sampling import density_arrays, pymc_hierarchical
from ranef.posterior.sampling.pymc_text import model_class
from ranef.posterior.transforms import given_effects
from ranef.priors.assignment import Priors, TermPriors
from ranef.priors.random_variables import parts

if TYPE_CHECKING:
    import pymc as pm

type Variable = Any  # a PyTensor variable; PyMC's functions carry no types


def marginal_model(design: Design, priors: Priors, target: LinearPosterior) -> pm.Model:
    """Build the model of the variance parameters, with beta and u integrated out.

    Parameters
    ----------
    design : Design
        Response, matrices and names.
    priors : Priors
        A prior for every parameter, from `ranef.priors.resolve`.
    target : LinearPosterior
        The density of the same design and priors.

    Returns
    -------
    pymc.Model
        The variables of the hierarchical model but `beta`, `b_<term>` and `y`: in the
        user's units `sigma`, and for each term `sd_<term>` (<term>_coef) and, if it is correlated,
        `corr_<term>` (<term>_coef, <term>_coef_bis). A fixed effect is a variable, too, where its
        prior is neither normal nor flat. The potential `log_marginal` is log p(y | these), and
        `values` are the numbers that it is computed from.

    Examples
    --------
    >>> import ranef as rf
    >>> from ranef.likelihood.linear.crossproducts import cross_products
    >>> from ranef.posterior.linear_posterior import target_of
    >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> target = target_of(model.design, cross_products(model.design), [0], model.priors)
    >>> [variable.name for variable in marginal_model(model.design, model.priors, target).free_RVs]
    ['sigma', 'sd_Batch']
    """
    import pymc as pm
    import pytensor.tensor as pt

    for term in priors.terms:
        term.covariance.check_free("the marginal form in PyMC")
    dims, coords = coordinates(design)
    numbers = density_arrays.pack(target)
    given = [priors.fixed[j] for j in given_effects(priors)]
    rows = [row for row in priors.rows() if row.parameter != "beta" or row.coef in given]
    with model_class()(rows, coords=coords) as model:
        effects = _given_effects(priors)
        sigma = pymc_hierarchical.random_variable("sigma", [priors.sigma])
        values = [*effects, sigma[None]]
        for term in priors.terms:
            values += _covariance(term, sigma, dims[term.label])
        joined = pt.concatenate(values)  # type: ignore[no-untyped-call]
        value, _ = _log_marginal()(joined, numbers.counts, numbers.numbers)
        pm.Potential("log_marginal", value)
        pm.Deterministic(pymc_hierarchical.VALUES, joined)
    return model


def is_marginal(model: pm.Model) -> bool:
    """Whether a model was made by `marginal_model`, also if it was changed since."""
    return pymc_hierarchical.VALUES in model.named_vars


def taken_apart(tree: DataTree, design: Design) -> tuple[Array, Dataset, Dataset]:
    """Return the values, the statistics and the user's variables of a sampled marginal model.

    Returns
    -------
    values : ndarray, shape (chains, draws, n_values)
        The numbers that the likelihood was computed from.
    stats : Dataset
        The statistics of the sampler.
    extra : Dataset
        Variables that a user added to the model.
    """
    posterior = tree["posterior"].to_dataset()
    values = posterior[pymc_hierarchical.VALUES].to_numpy()
    extra = posterior.drop_vars([*variables(design), pymc_hierarchical.VALUES], errors="ignore")
    return values, tree["sample_stats"].to_dataset(), extra


def _given_effects(priors: Priors) -> list[Variable]:
    """Return the effects that are not integrated out, in their order, as vectors of one number."""
    given, name = given_effects(priors), "at_mean_beta" if priors.centred else "beta"
    effects: dict[int, Variable] = {}
    for part in parts(name, "fixed", priors.beta):
        if part.places[0] in given:
            variable = pymc_hierarchical.random_part(part)
            effects |= {j: variable[i : i + 1] for i, j in enumerate(part.places)}
    return [effects[j] for j in given]


def _covariance(priors: TermPriors, sigma: Variable, dims: Dims) -> list[Variable]:
    """Return the sds and partial correlations of a term; add both in the user's units."""
    import pymc as pm

    label = priors.label
    sd = pymc_hierarchical.standard_deviations(priors, sigma, dims[1])
    unit = pymc_hierarchical.correlation_factor(priors)
    if unit is None:
        return [sd]
    partial = 2.0 * pm.modelcontext(None)[f"partial_corr_{label}"] - 1.0
    pymc_hierarchical.add_covariance(priors, sd, unit, dims)
    return [sd, partial]


@cache
def _log_marginal() -> Any:
    """Return the operation (values, counts, numbers) -> log p(y | values) and its derivatives."""
    import pytensor.tensor as pt
    from pytensor.gradient import disconnected_type
    from pytensor.graph.basic import Apply
    from pytensor.graph.op import Op

    class LogMarginal(Op):
        __props__ = ()

        def make_node(self, *inputs: Any) -> Any:
            values, counts, numbers = map(pt.as_tensor, inputs)
            return Apply(self, [values, counts, numbers], [pt.dscalar(), values.type()])

        def perform(self, _node: Any, inputs: Any, outputs: Any) -> None:
            from ranef.posterior.sampling import compiled_density

            values, counts, numbers = map(np.ascontiguousarray, inputs)
            gradient = np.empty(len(values))
            outputs[0][0] = np.asarray(
                compiled_density.likelihood(values, counts, numbers, gradient)
            )
            outputs[1][0] = gradient

        def infer_shape(self, _node: Any, shapes: Any) -> Any:
            return [(), shapes[0]]

        def connection_pattern(self, _node: Any) -> Any:
            return [[True, False], [False, False], [False, False]]

        def pullback(self, _inputs: Any, outputs: Any, cotangents: Any) -> Any:
            return [cotangents[0] * outputs[1], disconnected_type(), disconnected_type()]

    _register(LogMarginal)
    return LogMarginal()


def _register(kind: type) -> None:
    """Register the compiled likelihood with PyTensor's Numba backend."""
    from pytensor.link.numba.dispatch.basic import register_funcify_default_op_cache_key

    @register_funcify_default_op_cache_key(kind)  # type: ignore[no-untyped-call, untyped-decorator]
    def funcify(_op: Any, **_: Any) -> Any:
        import numba

        from ranef.posterior.sampling import compiled_density

        likelihood = compiled_density.likelihood

        @numba.njit
        def log_marginal(values, counts, numbers):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            gradient = np.empty(len(values))
            value = likelihood(values, counts, numbers, gradient)
            return np.asarray(value), gradient

        return log_marginal, compiled_density.revision()
