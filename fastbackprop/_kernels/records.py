"""The two structures that Python fills in and kernels read: a ``Job`` and its ``Layer`` table.

They are what makes one compiled kernel serve every network. Addresses are integers; offsets into
the flat parameter vector and into a workspace count elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numba.np import numpy_support

from fastbackprop._kernels.jit import kernel

_I, _F = np.int64, np.float64

LAYER = np.dtype(
    [
        ("n_in", _I),
        ("n_out", _I),
        ("has_bias", _I),
        ("activation", _I),  # codes.py
        ("alpha", _F),  # slope of leaky_relu, α of elu
        ("w", _I),  # offset in the parameters: n_in rows, then the bias row if there is one
        ("ld_w", _I),
        ("x", _I),  # offset in the workspace of the input, whose column n_in is all ones
        ("ld_x", _I),
        # Of the first layer, where it has many inputs; see columns.py.
        ("compact", _I),  # the input without columns of zeros; rows of ld_x
        ("marks", _I),  # int64, one for each vector of columns
        ("middle", _I),  # inputs of the first half of a sum that is made in two; else n_in
        ("parts", _I),  # the two halves of such a sum; rows of ld_a
        ("part", _I),  # elements from one half to the other
        ("z", _I),  # pre-activation; the same place as ``a`` unless the derivative needs it
        ("a", _I),  # activation, and the next layer's input unless dropout comes between
        ("ld_a", _I),
        ("dz", _I),  # gradient of the loss with respect to z
        ("ld_dz", _I),
        ("keep_below", _I),  # dropout of the input: kept where a random uint32 is below; 2³² = none
        ("keep_scale", _F),  # 1 / probability of being kept
        ("frozen", _I),  # whether training leaves its parameters as they are
    ],
    align=True,
)

JOB = np.dtype(
    [
        # the network
        ("layers", _I),
        ("n_layers", _I),
        ("params", _I),
        ("loss", _I),
        ("loss_parameter", _F),  # δ of huber, q of quantile
        ("score", _I),  # how accuracy is counted: SCORE_*
        # the data
        ("x", _I),
        ("x_kind", _I),  # position of the element type in simd.ELEMENT_TYPES
        ("x_size", _I),  # bytes of an element
        ("x_row", _I),  # strides in bytes
        ("x_column", _I),
        ("x_starts", _I),  # int64, n + 1: where each row of a compressed (CSR) x begins; or 0
        ("x_columns", _I),  # int64, the column of each of its elements
        ("x_scale", _F),
        ("x_offset", _F),
        ("labels", _I),  # int64, one a row; or 0
        ("targets", _I),  # rows of n_out floats; or 0
        ("weights", _I),  # float64, one a row; or 0
        ("order", _I),  # int64 row numbers, n for each epoch; or 0 for 0, 1, 2, ...
        ("n", _I),
        ("batch", _I),
        ("evaluates", _I),  # whether rows only go forward, in blocks; else there are steps
        # which steps, and what becomes of their gradients
        ("first", _I),
        ("last", _I),
        ("epoch_steps", _I),  # of which each epoch has so many; 0 where all are of one
        ("training", _I),  # whether dropout is active
        ("seed", _I),
        ("epoch", _I),  # that of step 0
        ("update", _I),
        ("rates", _I),  # float64, the learning rate of each step
        ("steps_before", _I),  # optimizer steps done before step 0
        ("momentum", _F),
        ("dampening", _F),
        ("nesterov", _F),
        ("beta1", _F),
        ("beta2", _F),
        ("eps", _F),
        (
            "eps_uncorrected",
            _F,
        ),  # whether ε is added to √v before the correction for its start at 0
        ("alpha", _F),
        ("weight_decay", _F),
        ("decoupled", _F),
        ("centered", _F),
        ("clip_norm", _F),
        ("first_trained", _I),  # layers before it are frozen, and need no gradient
        ("penalty", _F),  # ½ penalty · Σ w² over the weights, not the biases, over a batch's weight
        ("row_squares", _I),  # float64, one a row of parameters: see penalize_rows
        ("slot0", _I),
        ("slot1", _I),
        ("slot2", _I),
        # Whether a step stores its whole gradient before it changes anything, so that the norm can
        # be clipped, or the step be dropped while it is made.
        ("stores", _I),
        ("gradients", _I),
        # Parts of a batch whose gradients are made one by one, block by block, and then added; 0 is
        # the whole batch at once. They lie one after the other from ``gradients`` on.
        ("chunks", _I),
        ("chunk_size", _I),  # elements from one chunk's gradients to the next
        ("row_norms", _I),  # float64, one a row of parameters, for clipping
        # results
        ("outputs", _I),  # (n, n_out) contiguous; or 0
        ("input_gradients", _I),  # (n, n_in), rows of the first layer's ld_x; or 0
        ("row_loss", _I),  # float64, one a row of the batch (training) or of the data (evaluation)
        ("row_score", _I),  # the same; as it is where there is no score
        ("step_loss", _I),  # float64, one a step: sums, not means
        ("step_score", _I),
        ("step_weight", _I),
        # the team
        ("threads", _I),
        ("by_inputs", _I),  # the layers, from the first, that the team divides by their inputs
        ("barrier", _I),
        ("spins", _I),  # of a wait at the barrier, before the thread gives way to others
        ("stop", _I),  # int64[STOP_WORDS]
        ("work", _I),
        ("target_rows", _I),  # offset in the workspace; rows of the last layer's ld_dz
        (
            "work_stride",
            _I,
        ),  # elements from one thread's workspace to the next; 0 where they share it
        ("zeros", _I),  # a row of zeros, as wide as the widest row of parameters or inputs
        ("scratch", _I),
        ("scratch_stride", _I),  # elements from one thread's scratch to the next
        ("products", _I),  # offset in a thread's scratch of products that are not yet used
        ("columns", _I),  # offset in a thread's scratch of its two lists of live columns; or 0
        ("list_words", _I),  # integers from one list to the other
    ],
    align=True,
)

# Words of ``stop``. Steps are counted from 1 in two of them, where 0 is none.
STOP_REQUESTED = 0  # by Python
STOP_DROPPED = 1  # the step dropped for it; negative where that was decided after its gradient
STOP_STEPS_DONE = 2
STOP_BAD_ROW = 3  # the step with a row that is not finite; in an evaluation, whether there is one
STOP_FIRST_IS_BACK = 4  # whether the first thread has returned
STOP_WORDS = 5

SCORE_NONE = 0
SCORE_LARGEST = 1  # the largest output is at the largest target
SCORE_THRESHOLD = 2  # each output is on its target's side of ½ (of 0 for logits)

# A loss that only jacobian() uses: Σ target · output, whose gradient is the target itself.
LINEAR = 8

_JOB_TYPE = numpy_support.from_dtype(JOB)
_LAYER_TYPE = numpy_support.from_dtype(LAYER)


def _record_at(record: Any) -> Any:
    @intrinsic
    def at(typingctx, address):
        """The record at an address."""

        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], context.get_value_type(record))

        return record(types.intp), codegen

    return at


job_at = _record_at(_JOB_TYPE)
layer_at = _record_at(_LAYER_TYPE)


@kernel
def epoch_of(job, step):
    """The epoch that a step is in, counted from that of step 0, and the step's number there."""
    if job.epoch_steps == 0:
        return 0, step
    return step // job.epoch_steps, step % job.epoch_steps
