"""The settings of functions and codings: what is bound, and the full text of what is refused."""

import numpy as np
import pandas as pd
import pytest

from ranef.design.evaluate import Interpreter, Memory
from ranef.errors import FormulaError
from ranef.formula.functions import CODINGS, SETTINGS, bind, value
from ranef.formula.syntax import parse

FRAME = pd.DataFrame(
    {
        "x": np.arange(12.0),
        "n": [3, 1, 2] * 4,
        "f": ["u", "v", "w"] * 4,
        "b": [True, False] * 6,
    }
)


def evaluated(text):
    return Interpreter(FRAME, text, Memory(), {}).value(parse(text))


def refusal(text):
    with pytest.raises(FormulaError) as error:
        evaluated(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        ("3.0", 3),
        ("2.5", 2.5),
        ("-3", -3),
        ("+3", 3),
        ("1e400", float("inf")),
        ("TRUE", True),
        ("False", False),
        ("'a'", "a"),
        ("-TRUE", None),
        ("-'a'", None),
        ("--3", None),
        ("(3)", None),
        ("1 + 2", None),
        ("x", None),
        ("f(3)", None),
        ("None", None),
    ],
)
def test_a_setting_is_a_literal(text, expected):
    found = value(parse(text))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scale(x)", {}),
        ("scale(x, FALSE)", {"center": False}),
        ("scale(x, FALSE, TRUE)", {"center": False, "scale": True}),
        ("scale(x, FALSE, ddof=0)", {"center": False, "ddof": 0}),
        ("poly(x, 2)", {"degree": 2}),
        ("poly(x, raw=TRUE, degree=+2.0)", {"degree": 2, "raw": True}),
        ("bs(x, 5, degree=2)", {"df": 5, "degree": 2}),
        ("bs(x, lower_bound=-1e3, upper_bound=99.5)", {"lower_bound": -1000, "upper_bound": 99.5}),
        ("cc(x, 4, constraints='center')", {"df": 4, "constraints": "center"}),
    ],
)
def test_arguments_are_bound_to_names(text, expected):
    call = parse(text)
    assert bind(call, SETTINGS[call.function], call.args[1:], text) == expected


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("C(f, contr.treatment)", "treatment", {}),
        ("C(f, contr.treatment('v'))", "treatment", {"base": 1}),
        ("C(f, contr.treatment(base='w'))", "treatment", {"base": 2}),
        ("C(n, contr.treatment(2))", "treatment", {"base": 1}),
        ("C(n, contr.treatment('2'))", "treatment", {"base": 1}),
        ("C(b, contr.treatment(TRUE))", "treatment", {"base": 1}),
        ("C(f, contr.SAS)", "SAS", {}),
        ("C(f, contr.sas())", "SAS", {}),
        ("C(f, contrasts=contr.Sum)", "sum", {}),
        ("C(f, contr.helmert(reverse=FALSE))", "helmert", {"reverse": False}),
        ("factor(f, contr.poly)", "poly", {}),
        ("C(f, `contr.diff`)", "diff", {}),
    ],
)
def test_codings(text, name, settings):
    coding = evaluated(text).coding
    assert (coding.name, dict(coding.settings)) == (name, settings)


NO_CODING = (
    "is not a coding: there are `contr.treatment`, `contr.SAS`, `contr.sum`, `contr.helmert`, "
    "`contr.diff` and `contr.poly`."
)


@pytest.mark.parametrize(
    ("text", "carets", "message"),
    [
        ("poly()", "^^^^^^", "`poly` needs a column."),
        ("poly(3, 2)", "^^^^^^^^^^", "`poly` needs a column."),
        (
            "scale('a')",
            "      ^^^",
            "`'a'` is not numeric, so it cannot be calculated with.",
        ),
        ("cr(x)", "^^^^^", "`cr` needs `df` of 2 or more here."),
        ("cr(x, df=1)", "^^^^^^^^^^^", "`cr` needs `df` of 2 or more here."),
        ("cc(x)", "^^^^^", "`cc` needs `df` of 1 or more here."),
        ("bs(x, df=2)", "^^^^^^^^^^^", "`bs` needs `df` of 3 or more here."),
        (
            "bs(x, df=3, include_intercept=TRUE)",
            "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`bs` needs `df` of 4 or more here.",
        ),
        ("bs(x, df=4, degree=5)", "^^^^^^^^^^^^^^^^^^^^^", "`bs` needs `df` of 5 or more here."),
        (
            "cr(x, df=4, lower_bound=9, upper_bound=2)",
            "^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`lower_bound` has to lie below `upper_bound`.",
        ),
        ("C()", "^^^", "`C` takes a column and a coding."),
        (
            "C(f, contr.sum, contr.sum)",
            "^^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`C` takes a column and a coding.",
        ),
        (
            "C(f, contr.sum, levels=3)",
            "^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`C` takes a column and a coding.",
        ),
        ("C(f, levels=3)", "^^^^^^^^^^^^^^", "`C` takes a column and `contrasts=`."),
        ("C(f, contr.__class__)", "     ^^^^^^^^^^^^^^^", f"`contr.__class__` {NO_CODING}"),
        ("C(f, 3)", "     ^", f"`3` {NO_CODING}"),
        ("C(f, 'contr.sum')", "     ^^^^^^^^^^^", f"`'contr.sum'` {NO_CODING}"),
        (
            "C(f, contr.treatment('zzz'))",
            "     ^^^^^^^^^^^^^^^^^^^^^^",
            "`zzz` is not a level: there are `u`, `v` and `w`.",
        ),
        (
            "C(f, contr.treatment(2))",
            "     ^^^^^^^^^^^^^^^^^^",
            "`2` is not a level: there are `u`, `v` and `w`.",
        ),
        (
            "C(f, contr.sum(3))",
            "     ^^^^^^^^^^^^",
            "`contr.sum(3)` has too many arguments without a name.",
        ),
        (
            "C(f, contr.treatment(1, 2))",
            "     ^^^^^^^^^^^^^^^^^^^^^",
            "`contr.treatment(1, 2)` has too many arguments without a name.",
        ),
        (
            "C(f, contr.poly(scores=3))",
            "                       ^",
            "`contr.poly` has no setting `scores`.",
        ),
        (
            "C(f, contr.helmert(reverse='a'))",
            "                           ^^^",
            "`reverse` is TRUE or FALSE, not `'a'`.",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(text, carets, message):
    assert refusal(text) == f"{message}\n    {text}\n    {carets}"


KINDS = {
    "center": ("TRUE or FALSE", ["0", "'TRUE'", "x"]),
    "scale": ("TRUE or FALSE", ["1", "None"]),
    "raw": ("TRUE or FALSE", ["1"]),
    "include_intercept": ("TRUE or FALSE", ["1"]),
    "reverse": ("TRUE or FALSE", ["1"]),
    "backward": ("TRUE or FALSE", ["1"]),
    "ddof": ("0 or 1", ["2", "-1", "0.5", "TRUE", "'a'"]),
    "degree": (
        "a whole number from 1 to 25",
        ["0", "-1", "26", "1e9", "1e400", "2.5", "TRUE", "'2'", "None", "x", "1 + 1", "f(2)"],
    ),
    "df": ("a whole number from 1 to 25", ["0", "1e6", "4.5"]),
    "lower_bound": ("a number", ["'a'", "1e400", "None"]),
    "upper_bound": ("a number", ["'a'", "-1e400"]),
    "extrapolation": ('"raise", "clip", "zero" or "extend"', ["'na'", "TRUE", "3"]),
    "constraints": ('"center"', ["'zzz'", "3"]),
    "base": ("a level", ["None", "x"]),
}


CASES = [
    (function, name, given)
    for function, settings in (SETTINGS | {f"contr.{c}": s for c, s in CODINGS.items()}).items()
    for name in settings
    for given in KINDS[name][1]
]


@pytest.mark.parametrize(("function", "name", "given"), CASES)
def test_every_setting_has_its_kind(function, name, given):
    inside = f"{name}={given}"
    text = f"C(f, {function}({inside}))" if "contr." in function else f"{function}(x, {inside})"
    start = text.index(inside) + len(name) + 1
    expected = f"`{name}` is {KINDS[name][0]}, not `{given}`."
    assert refusal(text) == f"{expected}\n    {text}\n    {' ' * start}{'^' * len(given)}"


@pytest.mark.parametrize("name", ["_state", "_spec", "_context", "_metadata", "data", "x", "knots"])
@pytest.mark.parametrize("function", SETTINGS)
def test_nothing_else_reaches_a_function(function, name):
    text = f"{function}(x, {name}=3)"
    caret = " " * text.index("3") + "^"
    assert refusal(text) == f"`{function}` has no setting `{name}`.\n    {text}\n    {caret}"


@pytest.mark.parametrize("name", ["_state", "levels", "scores", "data", "contrasts"])
@pytest.mark.parametrize("function", CODINGS)
def test_nothing_else_reaches_a_coding(function, name):
    text = f"C(f, contr.{function}({name}=3))"
    caret = " " * text.index("3") + "^"
    assert refusal(text) == f"`contr.{function}` has no setting `{name}`.\n    {text}\n    {caret}"


@pytest.mark.parametrize("text", ["poly(x, 2, degree=3)", "poly(x, degree=2, degree=3)"])
def test_a_setting_is_given_once(text):
    caret = " " * text.index("3") + "^"
    assert refusal(text) == f"`poly` has two settings `degree`.\n    {text}\n    {caret}"


@pytest.mark.parametrize(
    "text", ["poly(x, 2, TRUE)", "bs(x, 4, 3)", "scale(x, TRUE, TRUE, 1)", "center(x, 1)"]
)
def test_more_than_the_first_settings_need_names(text):
    message = f"`{text}` has too many arguments without a name."
    assert refusal(text) == f"{message}\n    {text}\n    {'^' * len(text)}"
