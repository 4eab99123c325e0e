"""Examples to read first, each a script of a few seconds that needs no network.

`mnist`
    Handwritten digits, with the loop over epochs and mini-batches written out on the tape.
`regression`
    A curve through noisy points.
`surrogate`
    A fast stand-in for a slow simulation.
`pipeline`
    A scikit-learn pipeline, tuned by a grid search.
`classify_image`
    What digit is in an image file?
`larger_than_memory`
    Training from files of which memory holds one at a time.

``python -m fastbackprop.examples.regression`` runs one, and ``--help`` tells its options.
"""
