"""A formula is text from anywhere: it may name columns and listed functions, and do no more."""

import ast
import builtins
import contextlib
import io
import os
import pathlib
import pickle
import re
import subprocess
import time
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ranef
import ranef as rf
from ranef.design.design import build_design
from ranef.errors import FormulaError, RanefError
from ranef.formula.terms import read_formula

PACKAGE = pathlib.Path(ranef.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "y": RNG.normal(size=30),
        "x": RNG.normal(size=30),
        "z": RNG.uniform(1, 2, size=30),
        "f": list("uvw") * 10,
        "g": list("abcde") * 6,
    }
)
FILE = "canary.txt"

PAYLOADS = [
    # what formulaic, patsy and R would run
    f"y ~ {{__import__('os').system('touch {FILE}')}}",
    f"y ~ I(open('{FILE}', 'w').write('x')*x)",
    f"y ~ I(x.to_csv('{FILE}'))",
    f"y ~ np.save('{FILE}', x)",
    f"y ~ np.load('{FILE}')",
    f'y ~ I({{cat("x", file="{FILE}"); x}})',
    f"y ~ system('touch {FILE}')",
    # calls of what is not listed
    f"y ~ __import__('os').system('touch {FILE}')",
    "y ~ __import__('os')",
    "y ~ __builtins__",
    "y ~ eval('x')",
    "y ~ exec('x')",
    "y ~ compile('x', 'x', 'eval')",
    f"y ~ open('{FILE}', 'w')",
    "y ~ print(x)",
    "y ~ input()",
    "y ~ globals()",
    "y ~ getattr(x, 'to_csv')",
    "y ~ setattr(x, 'a', 1)",
    "y ~ type(x)",
    "y ~ vars()",
    "y ~ breakpoint()",
    "y ~ exit()",
    f"y ~ np.savetxt('{FILE}', x)",
    f"y ~ np.fromfile('{FILE}')",
    f"y ~ np.lib.npyio.save('{FILE}', x)",
    f"y ~ np.log.__class__('{FILE}')",
    "y ~ np.random.seed(1)",
    "y ~ np.log.__self__(x)",
    "y ~ numpy.log(x)",
    "y ~ math.log(x)",
    "y ~ os.system('x')",
    f"y ~ pd.read_pickle('{FILE}')",
    f"y ~ x.to_pickle('{FILE}')",
    "y ~ x.apply(print)",
    "y ~ Q('x')",
    "y ~ hashed(x)",
    "y ~ lag(x)",
    "y ~ np(x)",
    "y ~ I.__call__(x)",
    # attributes, subscripts, and other syntax of Python
    "y ~ x.__class__",
    "y ~ x.__class__.__mro__",
    "y ~ (x).__class__",
    "y ~ (x).to_csv()",
    "y ~ log(x).__class__",
    "y ~ ''.__class__",
    "y ~ 1 .real",
    "y ~ 1.real",
    "y ~ x[0]",
    "y ~ x['a']",
    "y ~ [x for x in (1, 2)]",
    "y ~ {x: 1}",
    "y ~ lambda: x",
    "y ~ (lambda: x)()",
    "y ~ (x := 1)",
    "y ~ I(x := 1)",
    "y ~ f'{x}'",
    "y ~ f\"{__import__('os')}\"",
    "y ~ I(f'{x}')",
    "y ~ x if x else y",
    "y ~ not x",
    "y ~ x and z",
    "y ~ x or z",
    "y ~ x is None",
    "y ~ x in z",
    "y ~ await x",
    "y ~ yield",
    "y ~ *x",
    "y ~ I(*x)",
    "y ~ I(**x)",
    "y ~ x @ z",
    "y ~ x // z",
    "y ~ x %% z",
    "y ~ x % z",
    "y ~ x << 2",
    "y ~ ~x",
    "y ~ x; import os",
    "y ~ x\nimport os",
    "y ~ x # comment",
    "y ~ x \\\n + z",
    "y ~ 'a' 'b'",
    "y ~ 'a' + 'b'",
    "y ~ I('a' + 'b')",
    "y ~ I('a'*9)",
    "y ~ x = 1",
    "y ~ a$b",
    "y ~ base::eval(x)",
    "y ~ x -> z",
    "y ~ function(x) x",
    "y ~ .data",
    "y ~ ..x",
    "y ~ ...",
    # backticks name columns and nothing else
    "y ~ `__import__('os')`",
    f"y ~ `open('{FILE}', 'w')`",
    "y ~ `x.__class__`",
    "y ~ `{x}`",
    "y ~ ``",
    "y ~ `x",
    # letters that look like others, and letters that cannot be seen
    "y ~ \uff4c\uff4f\uff47(x)",
    "y ~ \uff45val(x)",
    "y ~ l\u043eg(x)",
    "y ~ \uff58",
    "y ~ \u0445",
    "y ~ x\u200b",
    "y ~ x\u202e",
    "y ~ x\u0000",
    "y ~ \ufeffx",
    "y ~ x\u2009\u2028z",
    "y ~ \uff08x\uff09",
    "y ~ \u0661",
    "y ~ __\U0001d4d8mport__('os')",
    # arguments that reach into a function
    "y ~ poly(x, 2, _state=x)",
    "y ~ poly(x, 2, _spec='x')",
    "y ~ poly(x, 2, _context='x')",
    "y ~ poly(x, 2, _metadata='x')",
    "y ~ poly(x, 2, data=x)",
    "y ~ poly(x, 2, x=x)",
    "y ~ scale(x, self=1)",
    "y ~ bs(x, knots=x)",
    "y ~ poly(x, 1e9)",
    "y ~ poly(x, 99)",
    "y ~ bs(x, df=1e9)",
    "y ~ bs(x, degree=1e6)",
    "y ~ cr(x, df=9999)",
    "y ~ poly(x, f)",
    "y ~ log(x, out=z)",
    "y ~ np.log(x, out=z)",
    "y ~ np.log(z, where='x')",
    "y ~ C(f, contr.__class__)",
    "y ~ C(f, contr.register)",
    "y ~ C(f, contr.sum.__init__)",
    "y ~ C(f, contr.sum(contr.sum(x)))",
    "y ~ C(f, contr.custom(x))",
    "y ~ C(f, contr.treatment(base=x))",
    "y ~ C(f, contr.treatment(**x))",
    "y ~ C(f, eval('x'))",
    "y ~ C(f, levels=x)",
    "y ~ C(f, spans_intercept=FALSE)",
    "y ~ contr.treatment(x)",
    "y ~ contr.eval('x')",
    "y ~ (1 | eval('g'))",
    "y ~ (eval('x') | g)",
    "eval('y') ~ x",
    "y ~ offset(eval('x'))",
    # sizes
    "y ~ " + "x" * 5000,
    "y ~ " + "(" * 60 + "x" + ")" * 60,
    "y ~ " + "I(" * 500 + "x" + ")" * 500,
    "y ~ " + "-" * 3000 + "x",
    "y ~ I(x" + "+1" * 1000 + ")",
    "y ~ x" + "*x" * 1000,
    "y ~ (x + z + f + g)^99",
    "y ~ " + "*".join(f"I(x > {i})" for i in range(12)),
    "y ~ x^9^9^9^9",
    "y ~ " + "(x | g) + " * 50 + "1",
]


class ReachedError(BaseException):
    """Not an Exception, so that nothing catches it on the way."""


GUARDED = [
    *((builtins, name) for name in ("eval", "exec", "compile", "open", "input", "breakpoint")),
    *((os, name) for name in ("system", "popen", "remove", "mkdir", "putenv")),
    *((np, name) for name in ("save", "savetxt", "load", "fromfile")),
    (io, "open"),
    (subprocess, "Popen"),
    (pickle, "loads"),
    (pd.Series, "to_csv"),
    (pd.Series, "to_pickle"),
    (pd, "read_pickle"),
]


def guarded(act):
    """Run with all of the above raising, and return the error."""
    rf.Model("y ~ bs(x, df=4) + C(f, contr.sum)*poly(z, 2) + (x | g)", FRAME)  # all is imported
    with contextlib.ExitStack() as stack:
        for owner, name in GUARDED:
            stack.enter_context(mock.patch.object(owner, name, side_effect=ReachedError))
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            return error
    return None


@pytest.mark.parametrize("text", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_payload_is_refused_and_leaves_no_trace(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = FRAME.copy(deep=True)
    assert isinstance(guarded(lambda: rf.Model(text, FRAME)), FormulaError)
    assert list(tmp_path.iterdir()) == []
    pd.testing.assert_frame_equal(FRAME, before)


@pytest.mark.parametrize("guard", GUARDED, ids=lambda guard: guard[1])
def test_the_guards_work(guard):
    owner, name = guard
    found = guarded(lambda: vars(owner)[name]("x"))
    assert isinstance(found, ReachedError)


def test_names_outside_of_the_data_are_never_looked_up():
    secret = np.ones(30)  # noqa: F841 -- what R and formulaic would find
    for text in ("y ~ secret", "y ~ FRAME", "y ~ np", "y ~ rf", "y ~ (1 | secret)"):
        with pytest.raises(FormulaError, match="is not in the data"):
            rf.Model(text, FRAME)


def test_a_dangerous_name_is_the_name_of_a_column():
    names = ["__import__", "__builtins__", "eval", "os.system", "x.to_csv", "__class__", "np.save"]
    frame = FRAME.assign(**{name: RNG.normal(size=30) for name in names})
    model = rf.Model("y ~ " + " + ".join(f"`{name}`" for name in names), frame)
    assert model.design.fixed == ("Intercept", *names)
    bare = rf.Model("y ~ " + " + ".join(names), frame)
    np.testing.assert_array_equal(bare.design.rows.X, model.design.rows.X)
    with pytest.raises(FormulaError, match="the function `eval` is not available"):
        rf.Model("y ~ eval(x)", frame)


@pytest.mark.parametrize(
    "label", ["__import__('os')", "{0.__class__}", "%s", "${x}", "`", "\\", "'", "]"]
)
def test_labels_are_text(label):
    frame = FRAME.assign(f=[label, "a", "b"] * 10, g=[label, "a"] * 15)
    model = rf.Model("y ~ 0 + f + (0 + f | g)", frame)
    assert f"f[{label}]" in model.design.fixed
    assert f"f[{label}]" in model.design.terms[0].coefs
    assert label in model.design.terms[0].levels
    assert f"beta[f[{label}]]" in repr(model)


# ------------------------------------------------------------------------------- the sources


def calls(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_no_source_evaluates_text(source):
    forbidden = {"eval", "exec", "compile", "__import__", "locals", "vars", "setattr"}
    called = [node.func for node in calls(source)]
    assert not forbidden & {func.id for func in called if isinstance(func, ast.Name)}
    attributes = {func.attr for func in called if isinstance(func, ast.Attribute)}
    assert not {"eval", "exec", "query", "system", "popen", "loads", "read_pickle"} & attributes - (
        {"loads"} if "json.loads" in source.read_text(encoding="utf-8") else set()
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_no_source_imports_what_runs_or_unpickles(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    assert not imported & {"subprocess", "ctypes", "code", "runpy", "patsy", "pty"}


PATH_OF_A_FORMULA = [
    "formula/syntax",
    "formula/terms",
    "formula/functions",
    "design/evaluate",
    "design/model_matrix",
    "design/data_frame",
]


@pytest.mark.parametrize("name", [*PATH_OF_A_FORMULA, "design/design"])
def test_attributes_are_looked_up_by_constant_names_only(name):
    source = PACKAGE / f"{name}.py"
    looked_up = [
        node.args[1]
        for node in calls(source)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
    ]
    assert all(isinstance(arg, ast.Constant) for arg in looked_up)


@pytest.mark.parametrize("name", PATH_OF_A_FORMULA)
def test_only_the_evaluation_knows_formulaic_and_only_its_transforms(name):
    text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    known = ["from formulaic.transforms import TRANSFORMS"] if name == "design/evaluate" else []
    assert re.findall(r"(?:from|import) formulaic.*", text) == known


# ----------------------------------------------------------------------------------------- fuzz

WORDS = st.sampled_from(
    [
        *"yxzfg10~+-*/:|()^,=<.[]{}@;#\\\n\x00",
        *["2.5", "||", "(", ")", "**", "==", "%in%", "I", "log", "poly", "scale", "C", "factor"],
        *["offset", "contr.sum", "np.log", "bs", "df=4", "`x`", "'a'", "TRUE", "None", "eval"],
    ]
)
SIDES = st.lists(WORDS, max_size=14).map(" ".join)
NEAR_FORMULAS = st.builds("y ~ {} + ({} | g) {}".format, SIDES, SIDES, SIDES)


@settings(max_examples=250, deadline=2000)
@given(st.one_of(SIDES, NEAR_FORMULAS, st.text(max_size=60)))
def test_token_soup_is_a_model_or_refused(text):
    start = time.perf_counter()
    with contextlib.suppress(RanefError):
        rf.Model(text, FRAME)
    assert time.perf_counter() - start < 2


PARTS = st.sampled_from(["x", "z", "f", "g", "I(x^2)", "poly(z, 2)", "C(f, contr.sum)", "(x + f)"])
JOINS = st.sampled_from([" + ", "*", ":", "/", " - ", " %in% "])


@settings(max_examples=60, deadline=2000)
@given(st.lists(st.tuples(JOINS, PARTS), max_size=6), st.sampled_from(["", "^2", "^3"]))
def test_any_expansion_is_a_design(pairs, power):
    text = "x" + "".join(join + part for join, part in pairs)
    try:
        design = build_design(read_formula(f"y ~ ({text}){power}"), FRAME)
    except FormulaError as error:
        assert "means no more than" in str(error) or "expands to more than" in str(error)  # noqa: PT017
        return
    assert design.rows.X.shape == (30, len(design.fixed))
    assert len(set(design.fixed)) == len(design.fixed)


def test_reading_takes_time_in_proportion_to_the_length():
    texts = ["y ~ " + "+".join(f"x{i % 90:02}" for i in range(n)) for n in (100, 1000)]
    times = []
    for text in texts:
        start = time.perf_counter()
        for _ in range(3):
            read_formula(text)
        times.append(time.perf_counter() - start)
    assert times[1] < 100 * times[0]
