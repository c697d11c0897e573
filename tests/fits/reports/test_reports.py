"""Every kind of fit hands on tidy tables and one row, and writes its page."""

from __future__ import annotations

import numpy as np
import pytest
from generalized_fits import made_up

from fits import fit_of, known_posterior, model_of

FITS = {
    "reml": lambda: fit_of("correlated slopes", "reml"),
    "no random terms": lambda: made_up("poisson", "no random terms"),
    "generalised": lambda: made_up("gamma", "crossed"),
    "posterior": lambda: known_posterior(model_of("correlated slopes")),
}


@pytest.mark.parametrize("kind", FITS)
def test_all_reports_of_all_fits(kind):
    fit = FITS[kind]()
    table = fit.tidy()
    np.testing.assert_array_equal(table["estimate"], fit.estimates())
    assert len(fit.glance()) == 1
    assert fit.to_markdown().startswith(f"**{fit.summary().title}")
    assert fit.to_latex().count(r"\begin{tabular}") == len(fit.summary().sections)
    assert fit.to_frame().equals(fit.summary().to_frame())
    assert fit.varcorr().to_frame().equals(fit.varcorr().table)
    assert all(len(line) <= 100 for line in str(table).split("\n"))
