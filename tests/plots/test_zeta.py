"""Zeta plots: what is on the axes, and where."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ranef.errors import RanefError
from ranef.plots.zeta import ZetaPanel, draw_zeta, zeta_plots

LINE = np.linspace(1.0, 5.0, 21)
NODES = LINE[::5]
WALD = ZetaPanel("$a$", LINE, 2 * (LINE - 3), NODES, 2 * (NODES - 3), 3.0, 2.0, (2.0, 4.0))


def drawn(panel):
    axes = plt.figure().add_subplot()
    draw_zeta(axes, panel)
    return axes


def test_the_limits_are_drawn_up_to_the_line():
    segments = [collection.get_segments()[0] for collection in drawn(WALD).collections]
    np.testing.assert_allclose(segments, [[[2, 0], [2, -2]], [[4, 0], [4, 2]]])
    assert len(drawn(replace(WALD, limits=(2.0, np.inf))).collections) == 1
    assert not drawn(replace(WALD, limits=(np.nan, np.nan))).collections


def test_line_nodes_and_tangent():
    level, tangent, line, nodes = drawn(WALD).lines
    assert (np.asarray(level.get_ydata()) == 0).all()
    np.testing.assert_allclose(tangent.get_data(), [[1, 5], [-4, 4]])
    np.testing.assert_allclose(line.get_data(), [WALD.values, WALD.zeta])
    np.testing.assert_allclose(nodes.get_data(), [WALD.nodes, WALD.node_zeta])
    assert len(drawn(replace(WALD, slope=np.nan)).lines) == 3


def test_the_name_is_written_as_it_is():
    axes = drawn(WALD)
    axes.figure.canvas.draw()
    assert axes.get_title(loc="left") == "$a$"


@pytest.mark.parametrize(("count", "labelled"), [(1, [0]), (3, [0]), (5, [0, 3])])
def test_a_panel_each(count, labelled):
    axes = zeta_plots([WALD] * count)
    assert [i for i, one in enumerate(axes) if one.get_ylabel()] == labelled


def test_given_axes():
    figure, given = plt.subplots(1, 2)
    assert list(zeta_plots([WALD, WALD], ax=given)) == list(given)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(RanefError, match="one axes for each panel, 1 in all"):
        zeta_plots([WALD], ax=given)


@pytest.fixture(autouse=True)
def _close():
    plt.close("all")
    yield
    plt.close("all")
