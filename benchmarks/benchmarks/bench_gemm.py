"""The three matrix products of a layer alone: rates, shares of the peak, ratios to BLAS."""

from fastbackprop import machine

from .common import EFFORT, THREADS, check, installed, share_of_peak, thread_count

SHAPES = [(64, 784, 128), (512, 512, 512)]


def checked_layer(shape, dtype, product, threads):
    layer = machine.LayerProducts(*shape, dtype)
    expected = numpy_products(layer)[product]()
    check(layer.result(product, threads), expected, dtype)
    return layer


def numpy_products(layer):
    return {
        "z = x w": lambda: layer.x @ layer.w,
        "dw = x' dz": lambda: layer.x.T @ layer.dz,
        "dx = dz w'": lambda: layer.dz @ layer.w.T,
    }


class Products:
    params = [list(machine.PRODUCTS), SHAPES, ["float32", "float64"], THREADS]
    param_names = ["product", "n, n_in, n_out", "dtype", "threads"]

    def setup(self, product, shape, dtype, threads):
        self.threads = thread_count(threads)
        self.layer = checked_layer(shape, dtype, product, self.threads)

    def track_gflops(self, product, shape, dtype, threads):
        return self.layer.flops / self.layer.seconds(product, self.threads, EFFORT) / 1e9

    track_gflops.unit = "GFLOP/s"


class ShareOfPeak:
    params = [list(machine.PRODUCTS), ["float32", "float64"]]
    param_names = ["product", "dtype"]

    def setup(self, product, dtype):
        self.layer = checked_layer((128, 512, 512), dtype, product, 1)

    def track_share_of_peak(self, product, dtype):
        seconds = self.layer.seconds(product, 1, EFFORT)
        return share_of_peak(self.layer.flops, seconds, dtype, 1)

    track_share_of_peak.unit = "of the measured peak"


class RatioToBlas:
    """How many times as long NumPy's and PyTorch's products take, on all cores."""

    params = [list(machine.PRODUCTS), ["numpy", "torch"]]
    param_names = ["product", "library"]

    def setup(self, product, library):
        self.threads = installed("fastbackprop.execution").available_threads()
        self.layer = layer = checked_layer((256, 256, 256), "float32", product, self.threads)
        if library == "numpy":
            self.other = numpy_products(layer)[product]
            return
        torch = installed("torch")
        x, w, dz = (torch.from_numpy(matrix.copy()) for matrix in (layer.x, layer.w, layer.dz))
        left, right = {"z": (x, w), "dw": (x.T, dz), "dx": (dz, w.T)}[product.split()[0]]
        self.other = lambda: left @ right

    def track_ratio(self, product, library):
        ours = self.layer.seconds(product, self.threads, EFFORT)
        return machine.call_seconds(self.other, EFFORT) / ours

    track_ratio.unit = "times fastbackprop's"
