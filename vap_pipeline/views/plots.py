"""How every figure looks: its style, its colours, and PNG."""

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

# Colours that people with any kind of colour vision can tell apart (Okabe & Ito).
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, ORANGE = "#CC79A7", "#E69F00"
LIGHT_GREEN, LIGHT_PINK = "#8FD3BD", "#E8C4D8"
BLACK, DARK_GREY, GREY, LIGHT_GREY, GRID = "#333333", "#555555", "#777777", "#999999", "#EEEEEE"
SPEAKERS = (BLUE, VERMILION)  # A and B

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,  # show $ literally
}


def style() -> Any:
    """Return the context in which figures are drawn."""
    return rc_context(_STYLE)


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG: the same figure gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()
