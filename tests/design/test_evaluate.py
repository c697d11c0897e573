"""Expressions against Python's own mathematics and R's transforms; what is learnt and kept."""

import math

import numpy as np
import pandas as pd
import pytest

from ranef.design import evaluate
from ranef.design.data_frame import Categorical
from ranef.design.design import build_design
from ranef.design.evaluate import Interpreter, Memory
from ranef.errors import DataError, FormulaError
from ranef.formula.functions import ELEMENTWISE, FUNCTIONS
from ranef.formula.syntax import parse
from ranef.formula.terms import read_formula

X = [1.0, 4, 2, 8, 5, 7, 3, 9, 6, 0, 2, 5]
FRAME = pd.DataFrame(
    {
        "x": X,
        "z": [0.5, 1, 2, 0.25, 3, 2, 1, 4, 2, 5, 1, 3],
        "n": [3, 1, 2] * 4,
        "f": ["u", "v", "w"] * 4,
        "b": [True, False] * 6,
        "one": 1.0,
    }
)


def interpreter(text, frame=FRAME, memory=None, functions=None):
    return Interpreter(frame, text, memory or Memory(), functions or {})


def value(text, frame=FRAME, memory=None, functions=None):
    return interpreter(text, frame, memory, functions).value(parse(text))


def refusal(text, kind=FormulaError, frame=FRAME, functions=None):
    with pytest.raises(kind) as error:
        value(text, frame, functions=functions)
    return str(error.value)


# ---------------------------------------------------------------------- elementwise, operators

REFERENCE = {
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
    "log1p": math.log1p,
    "exp": math.exp,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "abs": math.fabs,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "tanh": math.tanh,
    "sign": lambda v: math.copysign(1, v),
    "floor": math.floor,
    "ceil": math.ceil,
    "ceiling": math.ceil,
    "round": round,
    "logit": lambda v: math.log(v / (1 - v)),
    "qlogis": lambda v: math.log(v / (1 - v)),
    "plogis": lambda v: 1 / (1 + math.exp(-v)),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_function_is_what_its_name_says(name):
    points = pd.DataFrame({"x": [0.03, 0.5, 0.51, 0.97]})
    expected = [REFERENCE[name.removeprefix("np.")](v) for v in points["x"]]
    np.testing.assert_allclose(value(f"{name}(x)", points), expected, rtol=1e-13)


def test_the_allow_list_is_closed():
    assert set(ELEMENTWISE) == {*REFERENCE, *(f"np.{n}" for n in REFERENCE)} - {
        f"np.{n}" for n in ("ceiling", "logit", "qlogis", "plogis")
    }
    others = {name: kind for name, kind in FUNCTIONS.items() if name not in ELEMENTWISE}
    assert others == {
        **dict.fromkeys(("scale", "standardize", "center"), "stateful"),
        **dict.fromkeys(("poly", "bs", "cr", "cs", "cc"), "stateful"),
        **dict.fromkeys(("C", "factor", "as.factor"), "categorical"),
        "I": "identity",
        "offset": "offset",
        "cbind": "response",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I(x + z)", lambda x, z: x + z),
        ("I(x - z - 1)", lambda x, z: x - z - 1),
        ("I(x*z/2)", lambda x, z: x * z / 2),
        ("I(x^2)", lambda x, _: x**2),
        ("I(x**2)", lambda x, _: x**2),
        ("I(2^x^0.5)", lambda x, _: 2 ** (x**0.5)),
        ("I(-x^2)", lambda x, _: -(x**2)),
        ("I((-x)^2)", lambda x, _: x**2),
        ("I(+x - -z)", lambda x, z: x + z),
        ("I(x^-1*0 + z^-1)", lambda _, z: 1 / z),
        ("I(b*2 + TRUE)", lambda x, _: np.tile([3.0, 1.0], len(x) // 2)),
        ("log(I(x + 1)*z)", lambda x, z: np.log((x + 1) * z)),
        ("I(3)", lambda x, _: np.full(len(x), 3.0)),
    ],
)
def test_arithmetic(text, expected):
    frame = FRAME.assign(x=FRAME["x"] + 1)
    wanted = expected(frame["x"].to_numpy(), frame["z"].to_numpy())
    np.testing.assert_allclose(value(text, frame), wanted, rtol=1e-14)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I(x < 4)", FRAME["x"] < 4),
        ("I(x <= z + 1)", FRAME["x"] <= FRAME["z"] + 1),
        ("I(x > z)", FRAME["x"] > FRAME["z"]),
        ("I(x >= 5)", FRAME["x"] >= 5),
        ("I(x == 5)", FRAME["x"] == 5),
        ("I(x != 5)", FRAME["x"] != 5),
        ("I(b == TRUE)", FRAME["b"]),
        ("I(f == 'u')", FRAME["f"] == "u"),
        ("I('u' != f)", FRAME["f"] != "u"),
        ("I(f == f)", FRAME["f"] == FRAME["f"]),
        ("b", FRAME["b"]),
    ],
)
def test_comparisons_give_truth_values(text, expected):
    found = value(text)
    assert found.dtype == bool
    assert found.tolist() == expected.tolist()
    categories = FRAME.assign(f=FRAME["f"].astype("category"))
    assert value(text, categories).tolist() == expected.tolist()


def test_truth_values_count_as_0_and_1_where_numbers_are_wanted():
    found = interpreter("x > 4").numeric(parse("x > 4"))
    assert found.tolist() == [float(v > 4) for v in X]
    with pytest.raises(DataError) as error:
        interpreter("f").numeric(parse("f"))
    assert str(error.value) == "`f` is not numeric: it has the levels `u`, `v` and `w`."


# ----------------------------------------------------------------------- what is learnt from data

NEW = pd.DataFrame({"x": [0.5, 3, 8]})

# R's predict() of poly(x, 3), of bs(x, df = 5) and of bs(x, df = 4, degree = 2, intercept = TRUE)
# at c(0.5, 3, 8), with x as above; of scale(x) the same by its attributes.
R_ON_NEW = {
    "poly(x, 3)": [
        [-0.407095587108, 0.352883641666, -0.155890253167],
        [-0.141598465081, -0.213544616380, 0.283967102963],
        [0.389395778973, 0.200517929542, -0.126973158690],
    ],
    "scale(x)": [-1.350183316246, -0.469628979564, 1.291479693800],
    "standardize(x)": [-1.350183316246, -0.469628979564, 1.291479693800],
    "bs(x, df=5)": [
        [0.415832519531, 0.04681396484375, 0.0009765625, 0, 0],
        [0.167480468750, 0.62240439967105, 0.209768871191, 0.000346260387812, 0],
        [0, 0.00478468899522, 0.105858382363, 0.504683750580136, 0.384673178062],
    ],
    "bs(x, df=4, degree=2, include_intercept=TRUE)": [
        [0.790123456790, 0.2037037037037, 0.00617283950617, 0],
        [0.111111111111, 0.6666666666667, 0.22222222222222, 0],
        [0, 0.0246913580247, 0.37037037037037, 0.604938271605],
    ],
}


@pytest.mark.parametrize("text", R_ON_NEW)
def test_new_data_are_transformed_as_in_r(text):
    memory = Memory()
    value(text, memory=memory)
    np.testing.assert_allclose(value(text, NEW, memory), R_ON_NEW[text], atol=1e-11)


@pytest.mark.parametrize(
    "text",
    [
        *R_ON_NEW,
        "center(x)",
        "scale(x, center=FALSE)",
        "scale(x, FALSE, TRUE)",
        "scale(x, ddof=0)",
        "poly(x, degree=2, raw=TRUE)",
        "cr(x, df=4)",
        "cs(x, 5)",
        "cc(x, df=3)",
        "cr(x, df=4, constraints='center')",
        "bs(x, df=4, lower_bound=-100, upper_bound=100)",
        "log(scale(x) + 3)",
        "I(center(x)^2)",
        "scale(log(x + 1))",
    ],
)
def test_rows_mean_the_same_whatever_rows_are_beside_them(text):
    memory = Memory()
    whole = value(text, memory=memory)
    rows = [7, 0, 7, 3]
    np.testing.assert_allclose(value(text, FRAME.iloc[rows], memory), whole[rows], atol=1e-12)
    np.testing.assert_allclose(value(text, memory=memory), whole, atol=0)


def test_center_and_scale_by_hand():
    x = np.array(X)
    np.testing.assert_allclose(value("center(x)"), x - x.mean())
    np.testing.assert_allclose(value("scale(x, ddof=0)"), (x - x.mean()) / x.std())
    root_mean_square = np.sqrt((x**2).sum() / (len(x) - 1))  # as R scales without centring
    np.testing.assert_allclose(value("scale(x, center=FALSE)"), x / root_mean_square)


def test_orthogonal_polynomials_are_orthonormal():
    basis = np.column_stack([np.ones(12) / np.sqrt(12), value("poly(x, 4)")])
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(value("poly(x, 2, raw=TRUE)"), np.column_stack([X, np.square(X)]))


def test_two_functions_do_not_share_what_they_learn():
    value("scale(x)", memory=(memory := Memory()))
    np.testing.assert_allclose(value("scale(z)", memory=memory), value("scale(z)"))
    assert set(memory.states) == {"scale(x)", "scale(z)"}


def test_a_spline_goes_on_beyond_its_range_as_it_is_told():
    outside = pd.DataFrame({"x": [-1.0, 10.0]})

    def both(setting):
        memory = Memory()
        text = f'bs(x, df=4, extrapolation="{setting}")'
        return value(text, memory=memory), value(text, outside, memory)

    inside, clipped = both("clip")
    np.testing.assert_allclose(clipped, inside[[X.index(0), X.index(9)]])
    assert not both("zero")[1].any()
    # The knot is at 4.5: rows below it lie on one cubic, which goes on.
    x, (inside, extended) = np.array(X), both("extend")
    below = x < 4.5
    cubic = np.polynomial.Polynomial.fit(x[below], inside[below, 0], 3)
    np.testing.assert_allclose(extended[0, 0], cubic(-1.0), rtol=1e-9)


def test_a_spline_says_which_rows_leave_its_range():
    value("bs(x, df=4)", memory=(memory := Memory()))
    new = pd.DataFrame({"x": [1.0, 9.5, -2]}, index=["a", "b", "c"])
    with pytest.raises(DataError) as error:
        value("bs(x, df=4)", new, memory)
    assert str(error.value) == (
        "`x` leaves the range of `bs(x, df=4)`, 0 to 9, in the rows `b` and `c`. The setting "
        "`extrapolation` (clip, zero or extend) can say how to go on there."
    )


def test_levels_are_learnt_once():
    value("f", memory=(memory := Memory()))
    found = value("f", pd.DataFrame({"f": ["w", "new", "u"]}), memory)
    assert found.codes.tolist() == [2, -1, 0]
    assert found.levels.tolist() == ["u", "v", "w"]
    assert found.unseen == ("new",)


def test_a_factor_of_a_number_of_a_comparison_and_of_a_factor():
    assert value("factor(n)").levels.tolist() == [1, 2, 3]
    assert value("C(x > 4)").levels.tolist() == [False, True]
    coded = value("C(factor(f), contr.sum)")
    assert (coded.coding.name, coded.levels.tolist()) == ("sum", ["u", "v", "w"])
    assert value("I(f)").levels.tolist() == ["u", "v", "w"]


@pytest.mark.parametrize("text", ["as.factor(f)", "factor(f)", "C(f)", "f"])
def test_a_column_of_labels_is_a_factor(text):
    found = value(text)
    assert isinstance(found, Categorical)
    assert found.codes.tolist() == [0, 1, 2] * 4
    assert found.coding.name == "treatment"


# ------------------------------------------------------------------------------ own functions


def test_own_functions_take_columns_and_give_numbers():
    functions = {
        "double": lambda x: 2 * x,
        "powers": lambda x, k=1: np.column_stack([x**i for i in range(1, k + 1)]),
        "is_u": lambda f: f == "u",
        "log": lambda x: x * 0 - 1,
    }
    assert value("double(x)", functions=functions).tolist() == [2 * v for v in X]
    found = value(
        "powers(x, k=2 + 1)", functions={"powers": lambda x, k: functions["powers"](x, int(k))}
    )
    np.testing.assert_array_equal(found, np.column_stack([X, np.power(X, 2), np.power(X, 3)]))
    assert value("is_u(f)", functions=functions).tolist() == [1.0, 0, 0] * 4
    assert set(value("log(x)", functions=functions)) == {-1.0}  # the user's comes before ours


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a", "`h(x)` did not give numbers."),
        (["a"] * 12, "`h(x)` did not give numbers."),
        (None, "`h(x)` did not give numbers."),
        (np.ones(12) * 1j, "`h(x)` did not give numbers."),
        (3.0, "`h(x)` gave an array of shape () for 12 rows."),
        ([1.0, 2.0], "`h(x)` gave an array of shape (2,) for 12 rows."),
        (np.ones((12, 2, 2)), "`h(x)` gave an array of shape (12, 2, 2) for 12 rows."),
        (np.ones((12, 0)), "`h(x)` gave an array of shape (12, 0) for 12 rows."),
    ],
    ids=str,
)
def test_own_functions_have_to_give_a_column(given, message):
    found = refusal("h(x)", functions={"h": lambda _: given})
    assert found == f"{message}\n    h(x)\n    ^^^^"


def test_errors_of_own_functions_are_left_as_they_are():
    with pytest.raises(ZeroDivisionError):
        value("h(x)", functions={"h": lambda _: 1 / 0})


# ------------------------------------------------------------------------------------- errors

NO_NUMBER = "is not numeric, so it cannot be calculated with."
NO_COLUMN = "is not one column, so it cannot be a factor."
TWO = "has 2 columns, so it cannot be calculated with."
LABELS = "compares labels with numbers, or orders labels; labels can be compared by `==` and `!=`."
INFINITE = "is infinite or not a number in"
CORRECT = "Correct these values or leave the rows out."


@pytest.mark.parametrize(
    ("text", "carets", "message"),
    [
        ("I('a')", "^^^^^^", "`I('a')` is neither a column nor a number."),
        ("I(None)", "^^^^^^^", "`I(None)` is neither a column nor a number."),
        (
            "contr.sum",
            "^^^^^^^^^",
            "`contr.sum` cannot be used here: it names a coding, as in `C(f, contr.sum)`.",
        ),
        ("contr.sum(x)", "^^^^^^^^^^^^", "`contr.sum` cannot be used here."),
        ("offset(x)", "^^^^^^^^^", "`offset` cannot be used here."),
        ("cbind(x, z)", "^^^^^^^^^^^", "`cbind` cannot be used here."),
        ("log(f)", "    ^", f"`f` {NO_NUMBER}"),
        ("I(f + 1)", "  ^", f"`f` {NO_NUMBER}"),
        ("I(x + 'a')", "      ^^^", f"`'a'` {NO_NUMBER}"),
        ("-f", " ^", f"`f` {NO_NUMBER}"),
        ("log(x, 2)", "^^^^^^^^^", "`log` takes one argument."),
        ("log(x, base=2)", "^^^^^^^^^^^^^^", "`log` takes one argument."),
        ("log()", "^^^^^", "`log` takes one argument."),
        ("I(x, z)", "^^^^^^^", "`I` takes one argument."),
        ("I(x == None)", "       ^^^^", f"`None` {NO_NUMBER}"),
        ("I(f == 1)", "  ^^^^^^", f"`f == 1` {LABELS}"),
        ("I(f < 'u')", "  ^^^^^^^", f"`f < 'u'` {LABELS}"),
        ("I(b == 'a')", "  ^^^^^^^^", f"`b == 'a'` {LABELS}"),
        (
            "I(factor(f) == 'u')",
            "  ^^^^^^^^^^^^^^^^",
            "compare the column itself, without `factor` or `C`.",
        ),
        ("log(poly(x, 2))", "    ^^^^^^^^^^", f"`poly(x, 2)` {TWO}"),
        ("I(poly(x, 2)*x)", "  ^^^^^^^^^^", f"`poly(x, 2)` {TWO}"),
        ("I(poly(x, 2) > 0)", "  ^^^^^^^^^^", f"`poly(x, 2)` {TWO}"),
        ("poly(poly(x, 2), 2)", "     ^^^^^^^^^^", f"`poly(x, 2)` {TWO}"),
        ("poly(f, 2)", "     ^", f"`f` {NO_NUMBER}"),
        ("C(poly(x, 2))", "  ^^^^^^^^^^", f"`poly(x, 2)` {NO_COLUMN}"),
        ("C(3)", "  ^", f"`3` {NO_COLUMN}"),
        ("C('a')", "  ^^^", f"`'a'` {NO_COLUMN}"),
    ],
)
def test_expressions_without_a_value(text, carets, message):
    assert refusal(text) == f"{message}\n    {text}\n    {carets}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("poly(n, 3)", "`poly(n, 3)` needs 4 different values or more; `n` has 3."),
        ("scale(one)", "`scale(one)` needs 2 different values or more; `one` has 1."),
        ("center(one)", "`center(one)` needs 2 different values or more; `one` has 1."),
        ("bs(one)", "`bs(one)` needs 2 different values or more; `one` has 1."),
        (
            "log(x - 4)",
            f"`log(x - 4)` {INFINITE} 6 of 12 rows: `0`, `1`, `2`, `6`, `9` and 1 more. {CORRECT}",
        ),
        (
            "I(x/0)",
            f"`I(x/0)` {INFINITE} 12 of 12 rows: `0`, `1`, `2`, `3`, `4` and 7 more. {CORRECT}",
        ),
        (
            "sqrt(-z)",
            f"`sqrt(-z)` {INFINITE} 12 of 12 rows: `0`, `1`, `2`, `3`, `4` and 7 more. {CORRECT}",
        ),
        ("I(z*1e200)", "`I(z * 1e200)` has values of the order of 5e+200: rescale it."),
        ("I(z*1e-200)", "`I(z * 1e-200)` has values of the order of 5e-200: rescale it."),
    ],
)
def test_values_that_cannot_be_used(text, message):
    assert refusal(text, DataError) == message


def test_a_factor_is_coded_once(monkeypatch):
    coded, labels = evaluate.coded, []
    monkeypatch.setattr(evaluate, "coded", lambda *args: labels.append(args[0]) or coded(*args))
    frame = pd.DataFrame({"y": [1.0, 3.0, 2.0, 5.0], "f": list("abab"), "g": list("aabb")})
    build_design(read_formula("y ~ f + (1 | f:g) + (1 | g)"), frame)
    assert labels == ["f", "g"]


def test_the_values_of_a_predictor_are_computed_once():
    calls = []

    def own(x):
        calls.append(len(x))
        return x + 1.0

    frame = pd.DataFrame({"y": [1.0, 2, 4, 3, 5, 7], "x": np.arange(6.0), "g": list("aabbcc")})
    formula = read_formula("y ~ own(x) + (own(x) | g)", {"own": own})
    build_design(formula, frame, functions={"own": own})
    assert calls == [6]
