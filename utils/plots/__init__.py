"""Figures, and nothing else: arrays and tables in, a `matplotlib.figure.Figure` out.

One module per notebook, and `style`, which they share. Nothing here computes a result, opens a
file or touches matplotlib's global state; the caller shows, saves or discards the figure.
"""
