"""Loaders of the data sets the package comes with, and of a user's own files."""

from fastbackprop.datasets.digits import load_digits
from fastbackprop.datasets.idx import read_idx
from fastbackprop.datasets.mnist import load_mnist, load_mnist_small, sample_image, sample_images
from fastbackprop.datasets.splits import Dataset, stratified_holdout
from fastbackprop.datasets.tables import Table, read_csv, read_npz
from fastbackprop.shards import Shards

__all__ = [
    "Dataset",
    "Shards",
    "Table",
    "load_digits",
    "load_mnist",
    "load_mnist_small",
    "read_csv",
    "read_idx",
    "read_npz",
    "sample_image",
    "sample_images",
    "stratified_holdout",
]
