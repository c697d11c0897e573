"""Which random variables a vector of parameters is made of."""

import pytest

from ranef.priors.distributions import Constant, Flat, HalfNormal, Normal, Relative, StudentT
from ranef.priors.random_variables import is_helper, parts

HALF, NORMAL = HalfNormal(1), Normal(0, 1)


@pytest.mark.parametrize(
    ("priors", "found"),
    [
        ([NORMAL, NORMAL], [("v", "d", (0, 1), False)]),
        (
            [NORMAL, StudentT(3, 0, 1), NORMAL],
            [
                ("normal_v", "normal_v_dim", (0, 2), False),
                ("studentt_v", "studentt_v_dim", (1,), False),
            ],
        ),
        ([Relative(HALF), Relative(HALF)], [("relative_v", "d", (0, 1), True)]),
        (
            [HALF, Relative(HALF), Relative(HALF)],
            [
                ("halfnormal_v", "halfnormal_v_dim", (0,), False),
                ("relative_v", "relative_v_dim", (1, 2), True),
            ],
        ),
        (
            [Flat(), Relative(Constant(2)), Relative(HALF)],
            [
                ("flat_v", "flat_v_dim", (0,), False),
                ("constant_relative_v", "constant_relative_v_dim", (1,), True),
                ("halfnormal_relative_v", "halfnormal_relative_v_dim", (2,), True),
            ],
        ),
        ([], []),
    ],
)
def test_a_vector_has_a_variable_for_each_kind_of_prior(priors, found):
    made = parts("v", "d", priors)
    assert [(p.name, p.dim, p.places, p.relative) for p in made] == found
    assert all(part.whole == "d" for part in made)
    inner = [p.prior if isinstance(p, Relative) else p for p in priors]
    assert [part.priors for part in made] == [tuple(inner[i] for i in p.places) for p in made]


def test_helpers_are_what_others_are_computed_from():
    helpers = ["at_mean_beta", "normal_at_mean_beta", "flat_beta", "at_mean_sd_g", "at_mean_b_g"]
    helpers += ["relative_sd_g", "halfnormal_relative_sd_g", "exponential_sd_g", "partial_corr_g"]
    assert all(map(is_helper, helpers))
    published = ["beta", "sigma", "sd_g", "corr_g", "b_g", "shape", "z_score", "normal"]
    assert not any(map(is_helper, published))
