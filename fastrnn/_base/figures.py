"""Where plots begin: a matplotlib figure without pyplot, which would keep it and might open a window."""


def new_figure(who, width, height):
    """An empty figure, inches wide and high; without matplotlib an ImportError that names `who` asked for it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{who} needs matplotlib: pip install fastrnn[plot]") from error
    return Figure(figsize=(width, height), layout="constrained")
