"""Replace a slow simulation by a network that answers like it, some hundred times as fast.

The simulation: how far a ball flies against the drag of the air. Its surrogate learns from a few
thousand throws, and is then asked for the angle of the longest one.
"""

import argparse
from time import perf_counter

import numpy as np

import fastbackprop as fb

LOW, HIGH = np.array([10.0, 15.0, 0.0]), np.array([40.0, 75.0, 0.02])  # of each column of throws


def distance(throws: np.ndarray) -> np.ndarray:
    """Metres that balls fly, for rows of speed (m/s), angle (degrees) and drag (1/m).

    The velocity v changes by −g − drag·|v|·v, here in steps of 2 ms until all balls are down.
    """
    speed, angle, drag = throws.T
    vx, vy = speed * np.cos(np.radians(angle)), speed * np.sin(np.radians(angle))
    x, y, dt = np.zeros(len(throws)), np.zeros(len(throws)), 0.002
    while True:
        v = np.hypot(vx, vy)
        vx, vy = vx - dt * drag * v * vx, vy - dt * (9.81 + drag * v * vy)
        flies = y + dt * vy > 0
        if not flies.any():
            return x
        x, y = np.where(flies, x + dt * vx, x), np.where(flies, y + dt * vy, -1.0)


def main(throws: int = 4000, epochs: int = 200) -> float:
    """Train on so many throws; return the share of the distance's variance that is explained."""
    rng = np.random.default_rng(0)
    X = rng.uniform(LOW, HIGH, (throws, 3))
    X_test = rng.uniform(LOW, HIGH, (1000, 3))
    y, y_test = distance(X), distance(X_test)

    # Inputs from -1 to 1 and targets around 0 are easiest to learn.
    centre, reach = (HIGH + LOW) / 2, (HIGH - LOW) / 2
    mean, spread = y.mean(), y.std()
    net = fb.Network([3, 64, 64, 1], activation="silu", loss="mse", random_state=0)
    steps = epochs * -(-throws // 64)
    net.fit(
        (X - centre) / reach,
        (y - mean) / spread,
        epochs=epochs,
        batch_size=64,
        optimizer=fb.Adam(fb.CosineDecay(0.005, decay_steps=steps)),
        verbose=0,
    )

    def surrogate(throws: np.ndarray) -> np.ndarray:
        return net.predict((throws - centre) / reach)[:, 0] * spread + mean

    error = surrogate(X_test) - y_test
    r2 = float(1 - error.var() / y_test.var())
    print(f"1,000 other throws: R² {r2:.5f}, error {error.std():.2f} m of {y_test.std():.0f} m")

    angles = np.arange(15.0, 75.0, 0.1)
    candidates = np.column_stack([np.full_like(angles, 30.0), angles, np.full_like(angles, 0.01)])
    for name, function in (("simulation", distance), ("surrogate", surrogate)):
        start = perf_counter()
        best = angles[function(candidates).argmax()]
        milliseconds = 1000 * (perf_counter() - start)
        print(f"Longest at 30 m/s, by the {name}: {best:.1f} degrees, in {milliseconds:.2f} ms")
    return r2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--throws", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=200)
    main(**vars(parser.parse_args()))
