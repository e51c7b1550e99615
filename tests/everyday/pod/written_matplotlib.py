"""matplotlib, in the order of what its users' guide and gallery show first: lines, styles, subplots, labels,
bars, images, 3D, files."""

import hashlib
import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np


def _drawn(figure, kind="png", **more):
    kept = io.BytesIO()
    figure.savefig(kept, format=kind, **more)
    plt.close(figure)
    return {"bytes": len(kept.getvalue()), "digest": hashlib.sha256(kept.getvalue()).hexdigest()}


def a_simple_line():
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3, 4], [1, 4, 2, 3])
    plt.show()
    return _drawn(figure)


def labels_legend_and_mathematics():
    x, (figure, axes) = np.linspace(0, 2, 100), plt.subplots(figsize=(5, 2.7), layout="constrained")
    for power in (1, 2, 3):
        axes.plot(x, x**power, label=f"$x^{power}$")
    axes.set(xlabel="x label", ylabel="y label", title=r"$\sigma_i = \frac{1}{2}$ — Größe")
    axes.legend()
    return _drawn(figure)


def subplot_mosaic():
    figure, axes = plt.subplot_mosaic([["left", "right"], ["bottom", "bottom"]])
    for name, each in axes.items():
        each.set_title(name)
    return [_drawn(figure), sorted(axes)]


def scatter_and_colorbar():
    random = np.random.default_rng(19680801)
    figure, axes = plt.subplots()
    shown = axes.scatter(random.random(50), random.random(50), c=random.random(50), s=80 * random.random(50), alpha=0.5)
    figure.colorbar(shown)
    return _drawn(figure)


def bars_with_labels():
    figure, axes = plt.subplots()
    bars = axes.bar(["apple", "blueberry", "cherry", "orange"], [40, 100, 30, 55], color=["tab:red", "tab:blue", "tab:red", "tab:orange"])
    axes.bar_label(bars)
    return _drawn(figure)


def histogram_and_dates():
    figure, (above, below) = plt.subplots(2)
    counts, edges, _ = above.hist(np.random.default_rng(1).normal(size=1000), bins=10)
    below.plot(np.arange("2021-11-15", "2021-12-25", dtype="datetime64[D]"), np.arange(40))
    figure.autofmt_xdate()
    return [_drawn(figure), counts, edges]


def a_surface_in_3d():
    figure, axes = plt.subplots(subplot_kw={"projection": "3d"})
    x, y = np.meshgrid(np.arange(-5, 5, 0.5), np.arange(-5, 5, 0.5))
    axes.plot_surface(x, y, np.sin(np.hypot(x, y)), cmap="viridis")
    return _drawn(figure)


def styles_and_settings():
    print("ggplot" in plt.style.available, mpl.get_backend())
    with plt.style.context("ggplot"), mpl.rc_context({"lines.linewidth": 3}):
        figure, axes = plt.subplots()
        axes.plot(np.sin(np.linspace(0, 2 * np.pi)), "r-o")
        return _drawn(figure)


def svg_and_pdf():
    digests = []
    for kind, more in (("svg", {"metadata": {"Date": None}}), ("pdf", {"metadata": {"CreationDate": None}})):
        with mpl.rc_context({"svg.hashsalt": "same"}):
            figure, axes = plt.subplots()
            axes.fill_between([1, 2, 3], [1, 4, 9])
            digests.append(_drawn(figure, kind, **more))
    return digests


def an_animation_in_a_gif():
    from matplotlib import animation

    figure, axes = plt.subplots(figsize=(2, 2))
    (line,) = axes.plot([], [])
    axes.set(xlim=(0, 10), ylim=(0, 10))

    def step(number):
        line.set_data(range(number), range(number))
        return (line,)

    animation.FuncAnimation(figure, step, frames=5).save("moved.gif", writer="pillow")
    plt.close(figure)
    with open("moved.gif", "rb") as kept:
        return hashlib.sha256(kept.read()).hexdigest()
