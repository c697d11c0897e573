"""Which rows and groups are asked for, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import fit_of, frame
from ranef.fits.predictions.asked_rows import GROUPS, asked_rows


def test_of_which_groups_the_rows_are():
    design = fit_of("crossed", "reml").design
    of = {groups: asked_rows(design, frame(), groups) for groups in GROUPS}
    assert of["population"].terms == ()
    for known, average in zip(of["known"].terms, of["average"].terms, strict=True):
        assert not known.is_new.any()
        assert average.is_new.all()
    np.testing.assert_array_equal(
        of["new"].terms[0].codes, asked_rows(design, None, "known").terms[0].codes
    )
    assert all(term.is_new.all() for term in asked_rows(design, None, "average").terms)
    assert [t.label for t in asked_rows(design, None, "known", ["h"]).terms] == ["h"]


def test_ids_of_another_type_show_both_types():
    data = rf.load_dataset("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", data)
    rows = pd.DataFrame({"Days": [0.0], "Subject": [308]})
    message = "`Subject` has the number `308` where the model has the text `'308'`"
    with pytest.raises(rf.DataError, match=message):
        fit.predict(rows)
    with pytest.warns(rf.DataWarning, match=message):
        fit.predict(rows, "new")
    np.testing.assert_allclose(fit.predict(rows, "average"), fit.predict(rows, "population"))
