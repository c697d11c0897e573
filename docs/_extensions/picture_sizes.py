"""Pictures of the gallery once more: for dark pages, and with the fonts of a slide.

In a page a cell that ends with a semicolon draws. After `watch()` its last statement is run again
in other styles, and each picture is an output of the cell.
"""

from __future__ import annotations

import ast
from io import BytesIO
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.core.getipython import get_ipython
from IPython.display import Image, display

PAGE = {"figure.facecolor": "#14181e", "axes.facecolor": "#14181e", "savefig.facecolor": "#14181e"}
DARK: list[Any] = ["dark_background", PAGE]
SLIDE = {"font.size": 16.0}
STYLES: tuple[list[Any], ...] = (DARK, [SLIDE], [*DARK, SLIDE])


def pictures(code: str, names: dict[str, Any]) -> list[bytes]:
    """Return what the last statement of a cell draws: dark, on a slide, and on a dark slide."""
    last = ast.unparse(ast.parse(code).body[-1])
    drawn = []
    for style in STYLES:
        with plt.style.context(style):
            exec(last, names)  # noqa: S102 -- the page's own code
            file = BytesIO()
            plt.gcf().savefig(file, dpi=mpl.rcParams["figure.dpi"], bbox_inches="tight")
            plt.close("all")
        drawn.append(file.getvalue())
    return drawn


def watch() -> None:
    """Draw what cells of this page draw in other styles, too."""
    shell: Any = get_ipython()

    def again(result: Any) -> None:
        if result.success and result.info.raw_cell.rstrip().endswith(";"):
            for picture in pictures(result.info.raw_cell, shell.user_ns):
                display(Image(picture))

    shell.events.register("post_run_cell", again)
