"""ONNX: the same outputs in onnxruntime and back, and files that others wrote or tampered with."""

import warnings

import numpy as np
import pytest

import fastbackprop as fb

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

ACTIVATIONS = [
    "identity",
    "relu",
    fb.Activation("leaky_relu", 0.3),
    "sigmoid",
    "tanh",
    "softplus",
    fb.Activation("elu", 0.7),
    "silu",
    "gelu",
]
OUTPUTS = [("mse", name) for name in ACTIVATIONS] + [
    ("cross_entropy", "softmax"),
    ("binary_cross_entropy", "sigmoid"),
    ("poisson", "exp"),
]
DTYPES = ("float32", "float64")
RNG = np.random.default_rng(0)
X = 3 * RNG.standard_normal((50, 5))
W1, B1 = RNG.standard_normal((5, 4)).astype("f4"), RNG.standard_normal(4).astype("f4")
W2, B2 = RNG.standard_normal((4, 3)).astype("f4"), RNG.standard_normal(3).astype("f4")


def named(value):
    return value.name if isinstance(value, fb.Activation) else str(value)


def make_net(activation="tanh", loss="mse", output=None, dtype="float32", front=()):
    net = fb.Network(
        [
            *front,
            fb.Dense(5, 8, activation),
            fb.Dense(8, 7, activation, bias=False),
            fb.Dropout(0.5),
            fb.Dense(7, 3),
        ],
        loss=loss,
        output_activation=output,
        random_state=0,
        dtype=dtype,
    )
    net.set_parameters(np.random.default_rng(1).normal(0, 0.4, net.n_parameters))
    return net


def run(path, X):
    """The outputs of onnxruntime, or of ONNX's own evaluator where there is none."""
    try:
        import onnxruntime
    except ImportError:
        session = reference.ReferenceEvaluator(str(path))
    else:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["output"], {"input": X})[0]


def graph(nodes, constants=(), outputs=("y",), inputs=("x",), **options):
    """A model of (operator, inputs, output, attributes), as bytes."""
    kind = options.pop("kind", onnx.TensorProto.FLOAT)
    made = [
        helper.make_node(op, names, [out], f"n{i}", **dict(attributes))
        for i, (op, names, out, *attributes) in enumerate(
            (op, names, out, *(list(extra[0].items()) if extra else ()))
            for op, names, out, *extra in nodes
        )
    ]
    proto = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info(name, kind, ["n", None]) for name in inputs],
        [helper.make_tensor_value_info(name, kind, ["n", None]) for name in outputs],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in dict(constants).items()
        ],
    )
    options.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(proto, ir_version=8, **options)


def saved(folder, model):
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


TWO = {"W1": W1, "B1": B1, "W2": W2, "B2": B2}
CHAIN = [
    ("MatMul", ["x", "W1"], "m1"),
    ("Add", ["m1", "B1"], "z1"),
    ("Relu", ["z1"], "a1"),
    ("Gemm", ["a1", "W2", "B2"], "y"),
]
EXPECTED = np.maximum(X @ W1 + B1, 0) @ W2 + B2


class TestWriting:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        ("activation", "loss", "output"),
        [
            *((activation, "mse", None) for activation in ACTIVATIONS),
            *(("tanh", *pair) for pair in OUTPUTS),
        ],
        ids=named,
    )
    def test_same_outputs_there_and_back(self, tmp_path, activation, loss, output, dtype):
        net = make_net(activation, loss, output, dtype)
        path = tmp_path / "net.onnx"
        net.to_onnx(path)
        onnx.checker.check_model(str(path), full_check=True)
        inputs = X.astype(dtype)
        expected = net.predict(inputs)
        actual = run(path, inputs)
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
        back = fb.from_onnx(path, loss=loss)
        np.testing.assert_array_equal(back.get_parameters(), net.get_parameters())
        np.testing.assert_array_equal(back.predict(inputs), expected)
        functions = [layer.activation for layer in back.layers]
        assert functions == [
            fb.Activation(name) if isinstance(name, str) else name
            for name in (activation, activation, output or "identity")
        ]

    def test_versions_and_the_free_batch(self, tmp_path):
        path = tmp_path / "net.onnx"
        make_net().to_onnx(path)
        model = onnx.load(path)
        assert (model.ir_version, model.opset_import[0].version) == (8, 17)
        for value, columns in ((model.graph.input[0], 5), (model.graph.output[0], 3)):
            rows, width = value.type.tensor_type.shape.dim
            assert (rows.dim_param, width.dim_value) == ("batch", columns)
        for n in (1, 7):
            assert run(path, X[:n].astype("f4")).shape == (n, 3)

    @pytest.mark.parametrize("name", ["gelu", "softplus", "elu"])
    def test_far_inputs(self, tmp_path, name):
        net = fb.Network([1, 1], name, "mse", output_activation=name, dtype="float64")
        net.set_parameters([1.0, 0.0])
        net.to_onnx(tmp_path / "net.onnx")
        far = np.array([[-800.0], [-30.0], [-1e-9], [0.0], [30.0], [800.0]])
        np.testing.assert_allclose(run(tmp_path / "net.onnx", far), net.predict(far), atol=1e-6)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_other_dtype(self, tmp_path, dtype):
        net = make_net("gelu", dtype="float64" if dtype == "float32" else "float32")
        net.to_onnx(tmp_path / "net.onnx", dtype=dtype)
        actual = run(tmp_path / "net.onnx", X.astype(dtype))
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, net.predict(X), rtol=1e-5, atol=2e-6)
        assert fb.from_onnx(tmp_path / "net.onnx").dtype == dtype

    @pytest.mark.parametrize("offset", [0.0, -0.5])
    def test_rescaling(self, tmp_path, offset):
        net = make_net(front=[fb.Rescaling(0.125, offset)], dtype="float64")
        net.to_onnx(tmp_path / "net.onnx")
        np.testing.assert_allclose(run(tmp_path / "net.onnx", X), net.predict(X), atol=1e-12)
        assert fb.from_onnx(tmp_path / "net.onnx").layers[0] == fb.Rescaling(0.125, offset)

    def test_bad_arguments_leave_the_old_file(self, tmp_path):
        path = tmp_path / "net.onnx"
        path.write_text("old")
        with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64', got 'int8'"):
            make_net().to_onnx(path, dtype="int8")
        net = fb.Network([1, 1], dtype="float64")
        net.set_parameters([1e300, 0])
        with pytest.raises(ValueError, match="too large for float32"):
            net.to_onnx(path, dtype="float32")
        assert path.read_text() == "old"

    def test_too_large_for_the_format(self, tmp_path, monkeypatch):
        monkeypatch.setattr("fastbackprop.exchange.onnx_writer._MOST_BYTES", 100)
        with pytest.raises(ValueError, match=r"take \d+ bytes; .* up to 100"):
            make_net().to_onnx(tmp_path / "net.onnx")


class TestReading:
    def check(self, folder, nodes, constants=TWO, expected=EXPECTED, **options):
        path = saved(folder, graph(nodes, constants))
        net = fb.from_onnx(path, **options)
        np.testing.assert_allclose(net.predict(X), expected, rtol=1e-5, atol=1e-5)
        return net

    def test_matmul_and_add(self, tmp_path):
        net = self.check(tmp_path, CHAIN)
        assert net.sizes == [5, 4, 3]
        assert net.loss_function == fb.Loss("mse")

    def test_gemm_with_factors_and_transposition(self, tmp_path):
        nodes = [
            ("Gemm", ["x", "W1", "B1"], "z1", {"transB": 1, "alpha": 2.0, "beta": 0.5}),
            ("Relu", ["z1"], "a1"),
            ("Transpose", ["W2"], "W2t", {"perm": [1, 0]}),
            ("MatMul", ["a1", "W2t"], "m2"),
            ("Add", ["B2", "m2"], "y"),
        ]
        self.check(tmp_path, nodes, {"W1": W1.T / 2, "B1": 2 * B1, "W2": W2.T.copy(), "B2": B2})

    def test_constants_as_nodes_and_what_comes_in_front(self, tmp_path):
        w1 = numpy_helper.from_array(W1)
        nodes = [
            ("Cast", ["x"], "c", {"to": 1}),
            ("Flatten", ["c"], "f", {"axis": 1}),
            ("Identity", ["f"], "i"),
            ("Constant", [], "K1", {"value": w1}),
            ("Constant", [], "shape", {"value_ints": [-1, 3]}),
            ("MatMul", ["i", "K1"], "m1"),
            ("Add", ["m1", "B1"], "z1"),
            ("Relu", ["z1"], "a1"),
            ("Dropout", ["a1"], "d1"),
            ("Gemm", ["d1", "W2", "B2"], "g"),
            ("Reshape", ["g", "shape"], "y"),
        ]
        self.check(tmp_path, nodes)

    def test_the_formulas_that_others_write(self, tmp_path):
        """Legacy torch.onnx writes gelu so; the second activation is silu."""
        nodes = [
            ("Gemm", ["x", "W1", "B1"], "z1"),
            ("Div", ["z1", "root"], "s"),
            ("Erf", ["s"], "e"),
            ("Add", ["e", "one"], "p"),
            ("Mul", ["z1", "p"], "t"),
            ("Mul", ["t", "half"], "a1"),
            ("Gemm", ["a1", "W2", "B2"], "z2"),
            ("Sigmoid", ["z2"], "g"),
            ("Mul", ["z2", "g"], "y"),
        ]
        path = saved(
            tmp_path,
            graph(
                nodes,
                {
                    **TWO,
                    "root": np.float32(2**0.5),
                    "one": np.float32(1),
                    "half": [np.float32(0.5)],
                },
            ),
        )
        names = [layer.activation.name for layer in fb.from_onnx(path).layers]
        assert names == ["gelu", "silu"]

    def test_scaled_inputs(self, tmp_path):
        nodes = [
            ("Sub", ["x", "half"], "s"),
            ("Div", ["s", "two"], "d"),
            ("Gemm", ["d", "W1", "B1"], "y"),
        ]
        constants = {"W1": W1, "B1": B1, "half": np.float32(0.5), "two": np.float32(2)}
        net = self.check(tmp_path, nodes, constants, ((X - 0.5) / 2) @ W1 + B1)
        assert net.layers[0] == fb.Rescaling(0.5, -0.25)

    def test_one_of_several_outputs(self, tmp_path):
        nodes = [*CHAIN[:3], ("Gemm", ["a1", "W2", "B2"], "z2")]
        nodes += [("Softmax", ["z2"], "p", {"axis": 1}), ("ArgMax", ["p"], "label")]
        model = graph(nodes, TWO, outputs=("label", "p"))
        path = saved(tmp_path, model)
        net = fb.from_onnx(path, output="p")
        assert net.loss_function == fb.Loss("cross_entropy")
        np.testing.assert_allclose(net.predict(X).sum(axis=1), 1, atol=1e-6)
        with pytest.raises(fb.FileFormatError, match=r"outputs \['label', 'p'\]; name one"):
            fb.from_onnx(path)
        with pytest.raises(fb.FileFormatError, match="no output 'q'"):
            fb.from_onnx(path, output="q")
        with pytest.raises(fb.FileFormatError, match=r"node 'n5' \(ArgMax\): .* not known"):
            fb.from_onnx(path, output="label")
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        np.testing.assert_array_equal(
            fb.from_onnx(saved(tmp_path, model)).predict(X), net.predict(X)
        )

    @pytest.mark.parametrize("names", [["no", "perhaps", "yes"], [3, 5, 7]])
    @pytest.mark.parametrize("form", ["ZipMap", "ArrayFeatureExtractor"])
    def test_names_of_classes(self, tmp_path, names, form):
        kind = "strings" if isinstance(names[0], str) else "int64s"
        nodes = [*CHAIN[:3], ("Gemm", ["a1", "W2", "B2"], "z2"), ("Softmax", ["z2"], "p")]
        if form == "ZipMap":
            nodes += [("ZipMap", ["p"], "y", {f"classlabels_{kind}": names})]
        else:
            nodes += [("Identity", ["p"], "y"), ("ArgMax", ["p"], "i")]
            nodes += [("ArrayFeatureExtractor", ["names", "i"], "label")]
        model = graph(
            nodes, {**TWO, "names": np.array(names, object if kind == "strings" else "i8")}
        )
        model.graph.node[5].domain = "ai.onnx.ml" if form == "ZipMap" else ""
        assert fb.from_onnx(saved(tmp_path, model)).classes == tuple(names)
        refused(
            tmp_path, graph([*nodes[:-1], ("ZipMap", ["p"], "y", {"c": [1, 2]})], TWO), "classes"
        )

    def test_two_classes_of_one_sigmoid(self, tmp_path):
        nodes = [
            ("Gemm", ["x", "w", "b"], "z"),
            ("Sigmoid", ["z"], "p"),
            ("Sub", ["one", "p"], "q"),
        ]
        nodes += [("Concat", ["q", "p"], "y", {"axis": 1})]
        constants = {"w": W1[:, :1], "b": B1[:1], "one": [np.float32(1)]}
        p = 1 / (1 + np.exp(-(X @ W1[:, 0] + B1[0])))
        net = self.check(tmp_path, nodes, constants, np.stack([1 - p, p], axis=1))
        assert net.loss_function == fb.Loss("cross_entropy")
        for wrong in (["p", "q"], ["p", "p"], ["q", "z"]):
            model = graph([*nodes[:3], ("Concat", wrong, "y", {"axis": 1})], constants)
            refused(tmp_path, model, r"'n3' \(Concat\): only of 1 - p and p")

    def test_softplus_with_a_limit(self, tmp_path):
        """As the exporter of PyTorch by torch.export writes it."""
        nodes = [("Gemm", ["x", "W1", "B1"], "z"), ("Softplus", ["z"], "s")]
        nodes += [("Greater", ["z", "limit"], "far"), ("Where", ["far", "z", "s"], "y")]
        expected = np.logaddexp(0, X @ W1 + B1)
        for limit in (np.float32(20), [np.float32(20)]):
            self.check(tmp_path, nodes, {**TWO, "limit": limit}, expected)
        refused(
            tmp_path, graph(nodes, {**TWO, "limit": np.float32(2)}), r"\(Greater\): only with 20"
        )
        constants = {**TWO, "limit": np.float32(20)}
        for wrong in (["far", "s", "z"], ["s", "z", "s"]):
            model = graph([*nodes[:3], ("Where", wrong, "y")], constants)
            refused(tmp_path, model, r"\(Where\): only in softplus")

    def test_a_single_output_without_its_axis(self, tmp_path):
        nodes = [("Gemm", ["x", "w"], "z"), ("Squeeze", ["z", "axes"], "y")]
        constants = {"w": W1[:, :1], "axes": np.array([-1])}
        self.check(tmp_path, nodes, constants, X @ W1[:, :1])
        refused(tmp_path, graph(nodes, {**constants, "axes": np.array([0])}), r"\(Squeeze\): only")
        refused(tmp_path, graph(nodes, {**constants, "w": W1}), r"\(Squeeze\): only the last axis")

    def test_arguments(self, tmp_path):
        path = saved(tmp_path, graph(CHAIN, TWO))
        net = fb.from_onnx(path, loss="cross_entropy", dtype="float64")
        assert net.dtype == np.float64
        np.testing.assert_allclose(net.predict(X).sum(axis=1), 1)
        with pytest.raises(ValueError, match="unknown loss"):
            fb.from_onnx(path, loss="mean")
        with pytest.raises(FileNotFoundError):
            fb.from_onnx(tmp_path / "none")

    @pytest.mark.parametrize("dynamo", [True, False])
    @pytest.mark.parametrize("bias", [True, False])
    def test_what_pytorch_writes(self, tmp_path, bias, dynamo):
        torch = pytest.importorskip("torch")
        if dynamo:
            pytest.importorskip("onnxscript")
        nn = torch.nn
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(5, 8, bias=bias), nn.GELU(), nn.Linear(8, 6), nn.ELU(0.3)
        )
        for layer in (nn.SiLU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.Tanh(), nn.Sigmoid()):
            module.extend([nn.Linear(6, 6, bias=bias), layer])
        module.extend([nn.Linear(6, 3), nn.Softmax(dim=1)]).eval()
        inputs = torch.as_tensor(X, dtype=torch.float32)
        path = tmp_path / "torch.onnx"
        options = {"external_data": False} if dynamo else {"opset_version": 17}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (inputs,), str(path), dynamo=dynamo, **options)
        net = fb.from_onnx(path)
        expected = module(inputs).detach().numpy()
        np.testing.assert_allclose(net.predict(X.astype("f4")), expected, atol=1e-6)
        assert [layer.activation.name for layer in net.layers] == [
            *("gelu", "elu", "silu", "leaky_relu", "softplus", "tanh", "sigmoid", "softmax")
        ]

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("zipmap", [True, False])
    @pytest.mark.parametrize("kind", ["three", "two", "multilabel"])
    def test_what_skl2onnx_writes(self, tmp_path, kind, zipmap):
        skl2onnx = pytest.importorskip("skl2onnx")
        from sklearn.neural_network import MLPClassifier

        numbers = np.arange(len(X))
        y = {
            "three": np.array(["a", "b", "c"])[numbers % 3],
            "two": np.array(["no", "yes"])[numbers % 2],
            "multilabel": np.stack([numbers % 2, numbers % 3 == 0, numbers % 5 == 0], axis=1),
        }[kind]
        classifier = MLPClassifier((7, 4), max_iter=20, random_state=0).fit(X, y)
        options = {id(classifier): {"zipmap": zipmap}} if kind != "multilabel" else {}
        model = skl2onnx.to_onnx(classifier, X[:1].astype("f4"), options=options)
        net = fb.from_onnx(saved(tmp_path, model))
        np.testing.assert_allclose(net.predict(X), classifier.predict_proba(X), atol=1e-6)
        assert net.classes == tuple(classifier.classes_.tolist())

    @pytest.mark.filterwarnings("ignore")
    def test_a_regressor_of_skl2onnx(self, tmp_path):
        skl2onnx = pytest.importorskip("skl2onnx")
        from sklearn.neural_network import MLPRegressor

        regressor = MLPRegressor(max_iter=20, random_state=0).fit(X, X[:, 0])
        net = fb.from_onnx(saved(tmp_path, skl2onnx.to_onnx(regressor, X[:1].astype("f4"))))
        np.testing.assert_allclose(net.predict(X)[:, 0], regressor.predict(X), atol=2e-6)


def refused(folder, model, words):
    path = saved(folder, model)
    with pytest.raises(fb.FileFormatError, match=words) as caught:
        fb.from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("nodes", "words"),
        [
            ([("Conv", ["x", "W1"], "y")], r"'n0' \(Conv\): this operator is not known"),
            ([("Relu", ["x"], "y")], "no dense layer"),
            ([("Relu", ["x"], "a"), ("Gemm", ["a", "W1"], "y")], r"'n1' \(Gemm\): .*the first"),
            ([*CHAIN[:2], ("Sin", ["z1"], "y")], r"'n2' \(Sin\)"),
            ([*CHAIN[:3], ("Gemm", ["a1", "SQ"], "y")], r"\(Gemm\): it takes 5 inputs, but is"),
            ([*CHAIN[:3], ("Mul", ["a1", "a1"], "q"), ("Gemm", ["q", "W2"], "y")], "no activation"),
            ([*CHAIN[:3], ("Add", ["a1", "m1"], "y")], r"\(Add\): it reads 'm1', which .* earlier"),
            ([*CHAIN[:3], ("Add", ["a1", "x"], "y")], "it reads 'x', which comes from an earlier"),
            ([("Gemm", ["x", "W1", "B1"], "y", {"transA": 1})], "transA"),
            ([("Gemm", ["x", "W1", "B2"], "y")], r"'B2' is float32 of shape \(3,\)"),
            ([("MatMul", ["W1", "x"], "y")], r"\(MatMul\): 'x' is not a constant"),
            ([("MatMul", ["x", "B1"], "y")], r"shape \(4,\); expected a matrix"),
            ([("Gemm", ["nothing", "W1"], "y")], "depends on 0 inputs"),
            ([("MatMul", ["x", "nothing"], "y")], "'nothing', which nothing before it gives"),
            ([("Gemm", ["y", "W1"], "y")], "depends on 0 inputs"),
            ([("Gemm", ["x", "W1"], "z"), ("Softmax", ["z"], "y", {"axis": 0})], "axis = 0"),
            ([("Gemm", ["x", "W1"], "z"), ("Flatten", ["z"], "y", {"axis": 2})], "axis = 2"),
            ([("Gemm", ["x", "W1"], "z"), ("Cast", ["z"], "y", {"to": 7})], "to = 7"),
            ([("Gemm", ["x", "W1"], "z"), ("Max", ["z", "six"], "y")], "Max with the number 6"),
            ([("Gemm", ["x", "W1"], "z"), ("LeakyRelu", ["z"], "y", {"alpha": -1.0})], "no act"),
            ([("Gemm", ["x", "SQ"], "a"), ("Gemm", ["a", "SQ"], "y")], "shares the weights 'SQ'"),
            (
                [("Transpose", ["SQ"], "T"), ("Gemm", ["x", "SQ"], "a"), ("Gemm", ["a", "T"], "y")],
                "shares the weights 'T'",
            ),
            (
                [("Gemm", ["x", "SQ"], "a"), ("Softmax", ["a"], "s"), ("Gemm", ["s", "W1"], "y")],
                "softmax comes before it",
            ),
            ([("Gemm", ["x", "NAN"], "y")], "layer 0 contain NaN"),
            ([("Gemm", ["x", "W1", "MAX"], "y", {"beta": 2.0})], "layer 0 contain NaN"),
            ([("Gemm", ["x", "W1", "MAX"], "z"), ("Add", ["z", "MAX"], "y")], "layer 0 contain"),
        ],
    )  # fmt: skip
    def test_graphs(self, tmp_path, nodes, words):
        constants = {
            **TWO,
            "SQ": np.eye(5, dtype="f4"),
            "six": np.float32(6),
            "NAN": np.full((5, 2), np.nan, "f4"),
            "MAX": np.full(4, 3e38, "f4"),
        }
        refused(tmp_path, graph(nodes, constants), words)

    def test_other_domains(self, tmp_path):
        model = graph(CHAIN, TWO)
        model.graph.node[2].domain = "com.microsoft"
        refused(tmp_path, model, r"'n2' \(Relu\) is of the domain 'com.microsoft'")

    def test_two_inputs(self, tmp_path):
        nodes = [("Add", ["x", "x2"], "s"), ("Gemm", ["s", "W1"], "y")]
        refused(tmp_path, graph(nodes, TWO, inputs=("x", "x2")), "depends on 2 inputs")

    def test_external_data_is_not_read(self, tmp_path):
        (tmp_path / "secret").write_bytes(W1.tobytes())
        model = graph(CHAIN, TWO)
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], "secret")
        model.graph.initializer[0].ClearField("raw_data")
        refused(tmp_path, model, "'W1' is in another file")

    @pytest.mark.parametrize("dims", [[2**31, 2**31], [5, 5], [-5, -4], [5, 4, 0], []])
    def test_sizes_are_those_of_the_bytes(self, tmp_path, dims):
        model = graph(CHAIN, TWO)
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        refused(tmp_path, model, "'W1' has the shape")

    def test_element_types(self, tmp_path):
        refused(tmp_path, graph(CHAIN, {**TWO, "W1": W1.astype(np.float16)}), "element type 10")

    def test_deep_formulas(self, tmp_path):
        nodes = [("Gemm", ["x", "W1"], "t0")]
        nodes += [("Exp", [f"t{i}"], f"t{i + 1}") for i in range(50_000)]
        refused(tmp_path, graph([*nodes, ("Identity", ["t50000"], "y")], TWO), r"\(Exp\): .*longer")

    def test_damaged_files(self, tmp_path):
        content = graph(CHAIN, TWO).SerializeToString()
        refused(tmp_path, b"\xff" * 100, "not an ONNX file")
        refused(tmp_path, b"", "outputs")
        rng = np.random.default_rng(0)
        for trial in range(400):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 1 + trial % 4):
                damaged[place] = rng.integers(256)
            path = saved(tmp_path, bytes(damaged[: len(content) - (trial % 3) * trial]))
            try:
                net = fb.from_onnx(path)
            except fb.FileFormatError:
                continue
            assert net.n_parameters < 200
