"""Fit a smooth curve to noisy points."""

import argparse

import numpy as np

import fastbackprop as fb


def curve(x: np.ndarray) -> np.ndarray:
    """What the points were, before noise."""
    return np.sin(3 * x) + 0.5 * x


def main(epochs: int = 600, picture: str | None = None) -> float:
    """Train on 200 points; return how far the network is from the curve, as a root mean square."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (200, 1))
    y = curve(x) + rng.normal(0, 0.2, x.shape)

    net = fb.Network([1, 32, 32, 1], activation="tanh", loss="mse", random_state=0)
    rate = fb.CosineDecay(0.01, decay_steps=epochs * 4)  # an epoch takes 4 steps, on 50 points each
    net.fit(x, y, epochs=epochs, batch_size=50, optimizer=fb.Adam(rate), verbose=0)

    grid = np.linspace(-2, 2, 401).reshape(-1, 1)
    error = float(np.sqrt(np.mean((net.predict(grid) - curve(grid)) ** 2)))
    print(f"The points are off the curve by 0.2 (rms), the network by {error:.3f}.")
    if picture is not None:
        draw(picture, x, y, grid, net.predict(grid))
    return error


def draw(path: str, x: np.ndarray, y: np.ndarray, grid: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the points, the curve and the network's outputs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    ax.plot(x, y, ".", color="0.7", label="points")
    ax.plot(grid, curve(grid), "--", color="black", label="curve")
    ax.plot(grid, predicted, color="#0072B2", label="network")
    ax.set(xlabel="x", ylabel="y")
    ax.legend()
    figure.savefig(path, dpi=150)
    print(f"Drawn in {path}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--picture", metavar="FILE", help="draw it there (needs matplotlib)")
    main(**vars(parser.parse_args()))
