"""The three matrix products of a layer alone: rates, shares of the peak, ratios to BLAS."""

import statistics

from fastbackprop import machine
from fastbackprop.cores import available_threads

from .common import EFFORT, THREADS, check, installed, share_of_peak, thread_count


def checked_layer(shape, dtype, threads):
    layer = machine.LayerProducts(*shape, dtype)
    for product, numpy_product in numpy_products(layer).items():
        check(layer.result(product, threads), numpy_product(), dtype)
    return layer


def numpy_products(layer):
    return {
        "z = x w": lambda: layer.x @ layer.w,
        "dw = x' dz": lambda: layer.x.T @ layer.dz,
        "dx = dz w'": lambda: layer.dz @ layer.w.T,
    }


def mean_seconds(layer, threads):
    """Return the geometric mean over the three products."""
    return statistics.geometric_mean(layer.seconds(p, threads, EFFORT) for p in machine.PRODUCTS)


class Products:
    params = [
        list(machine.PRODUCTS),
        [(64, 784, 128), (512, 512, 512)],
        ["float32", "float64"],
    ]
    param_names = ["product", "n, n_in, n_out", "dtype"]

    def setup(self, product, shape, dtype):
        self.layer = checked_layer(shape, dtype, 1)

    def track_gflops(self, product, shape, dtype):
        return self.layer.flops / self.layer.seconds(product, 1, EFFORT) / 1e9

    track_gflops.unit = "GFLOP/s"


class ShareOfPeak:
    """The mean of the three products."""

    params = [["float32", "float64"], THREADS]
    param_names = ["dtype", "threads"]

    def setup(self, dtype, threads):
        self.threads = thread_count(threads)
        self.layer = checked_layer((128, 512, 512), dtype, self.threads)

    def track_share_of_peak(self, dtype, threads):
        seconds = mean_seconds(self.layer, self.threads)
        return share_of_peak(self.layer.flops, seconds, dtype, self.threads)

    track_share_of_peak.unit = "of the measured peak"


class RatioToBlas:
    """How many times as long the products of NumPy and PyTorch take, on all cores."""

    params = [["numpy", "torch"]]
    param_names = ["library"]

    def setup(self, library):
        self.layer = layer = checked_layer((256, 256, 256), "float32", available_threads())
        if library == "numpy":
            self.products = list(numpy_products(layer).values())
            return
        torch = installed("torch")
        x, w, dz = (torch.from_numpy(matrix.copy()) for matrix in (layer.x, layer.w, layer.dz))
        self.products = [lambda: x @ w, lambda: x.T @ dz, lambda: dz @ w.T]

    def track_ratio(self, library):
        seconds = [machine.call_seconds(product, EFFORT) for product in self.products]
        ours = mean_seconds(self.layer, available_threads())
        return statistics.geometric_mean(seconds) / ours

    track_ratio.unit = "times fastbackprop's"
