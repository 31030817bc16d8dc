"""Whatever Python passes to the core, it answers or raises: it never reads where it must not.

Run under AddressSanitizer by ``make sanitize``, where a read beyond an array ends the process.
``LAYERWISE_FUZZ=100000`` tries more than the calls of a usual run.
"""

from __future__ import annotations

import os
import random
import threading
from typing import Any

import numpy as np
import pytest

from layerwise.engine import native

pytestmark = pytest.mark.skipif(not native.AVAILABLE, reason="this installation has no core")

core = native._core
CALLS = int(os.environ.get("LAYERWISE_FUZZ", 6000))
RAISED = (ValueError, TypeError, RuntimeError, IndexError, OverflowError, MemoryError)

LINEAR = ("Linear", 4, True, 0, 0.0, 0.0, [], [])
INPUT = ("InputLayer", 7, False, 2, 0.0, 0.0, [3, 2], [3, 0])
PLANS = {
    "plain": ([LINEAR, ("ReLU", 0, False, 0, 0.0, 0.0, [], []),
               ("Linear", 3, True, 0, 0, 0, [], [])], 4),
    "categories": ([INPUT, ("BatchNorm1d", 7, True, 0, 1e-5, 0.1, [], []),
                    ("Linear", 3, False, 0, 0.0, 0.0, [], [])], 4),
    "wide": ([("Linear", 37, True, 0, 0.0, 0.0, [], []),
              ("BatchNorm1d", 37, True, 0, 1e-5, -1.0, [], []),
              ("LayerNorm", 37, True, 1, 1e-5, 0.0, [], []),
              ("PReLU", 0, False, 37, 0.0, 0.0, [], []), ("Linear", 3, True, 0, 0, 0, [], [])], 4),
    "norms": ([LINEAR, ("LayerNorm", 4, True, 1, 1e-5, 0.0, [], []),
               ("PReLU", 0, False, 4, 0.0, 0.0, [], []), ("Dropout", 0, False, 0, 0.3, 0, [], []),
               ("Linear", 3, True, 0, 0, 0, [], []), ("LogSoftmax", 0, False, 0, 0, 0, [], [])], 4),
}  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 17, 100, 2**24, 2**24 + 1, 2**31 - 1, -(2**31), 2**31,
           2**32 + 1, 2**62, 2**63 - 1, -(2**63), 2**64)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"))


def _network(plan: str, in_double: bool, instruction_set: str = "") -> Any:
    layers, n_inputs = PLANS[plan]
    network = core.Network(layers, n_inputs, in_double, instruction_set)
    rng = np.random.default_rng(0)
    dtype = np.float64 if in_double else np.float32
    groups = []
    for i, (rows, columns, start, stop) in enumerate(network.parameters):
        network.put(0, i, rng.normal(size=(rows, columns)).astype(dtype))
        group = core.Group()
        group.start, group.stop, group.lr = start, stop, 0.01
        groups.append(group)
    network.groups = groups
    return network


def _arguments(draw: random.Random, dtype: type, by_class: bool, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(draw.randint(0, 999))
    X = rng.normal(size=(n, 4)).astype(dtype)
    X[:, 2:] = rng.integers(0, 3, size=(n, 2))
    y = rng.integers(0, 3, n) if by_class else rng.normal(size=(n, 3)).astype(dtype)
    kind = draw.choice(["cross_entropy", "nll"] if by_class else ["mse", "huber", "bce_logits"])
    w = rng.random(n).astype(dtype) if draw.random() < 0.5 else None
    return {"X": X, "y": y, "w": w, "loss": core.Loss(kind, 1.0, None, -100, by_class),
            "order": rng.permutation(n)}  # fmt: skip


def _spoiled(draw: random.Random, value: Any) -> Any:
    """Something near the value that is not it."""
    if isinstance(value, np.ndarray):
        return _spoiled_array(draw, value)
    if isinstance(value, bool):
        return draw.choice([None, "yes", 1])
    if isinstance(value, int):
        return draw.choice(NUMBERS)
    if isinstance(value, float):
        return draw.choice(FLOATS)
    if isinstance(value, str):
        return draw.choice(["", "x", "SGD", "NAdam", "RMSprop", "Adagrad", "ReLU", "Linear", None])
    if isinstance(value, list):
        return draw.choice([[], [1], [0, 0], [-1, 2], [2**24, 3], [2**31 - 1] * 2, None])
    return draw.choice([None, 3, "text", [1, 2], object(), np.zeros(3), core.Loss("mse")])


def _spoiled_array(draw: random.Random, a: np.ndarray) -> Any:
    way = draw.randint(0, 15)
    flat = a.reshape(-1)
    if way == 0:
        return a[: draw.randint(0, len(a))]
    if way == 1:
        return np.concatenate([a, a])
    if way == 2:
        return a.astype(
            draw.choice(["f2", "f4", "f8", "i4", "i8", "u1", "c8", "?", ">f4", ">i8", "O"])
        )
    if way == 3:
        return a[..., None]
    if way == 4:
        return flat
    if way == 5:
        return a[::2] if draw.random() < 0.5 else a[::-1]
    if way == 6:
        return np.asfortranarray(a)
    if way == 7:
        a.setflags(write=False)
        return a
    if way == 8:  # not aligned
        raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
        raw[:] = a.view(np.uint8).reshape(-1) if a.size else 0
        return raw.view(a.dtype).reshape(a.shape)
    if way == 9:
        return a.tolist()
    if way == 10:
        return draw.choice([None, 7, "abc", b"abcdefgh", memoryview(b"12345678"), object()])
    if way == 11:
        return np.broadcast_to(flat[:1], a.shape) if a.size else a
    if way == 12:
        return np.zeros((0, *a.shape[1:]), a.dtype)
    if a.size:  # single cells of any value
        a = a.copy()
        numbers = a.dtype.kind == "f"
        cells = FLOATS if numbers else [n for n in NUMBERS if -(2**63) <= n < 2**63]
        for _ in range(draw.randint(1, 3)):
            with np.errstate(all="ignore"):
                a.reshape(-1)[draw.randrange(a.size)] = draw.choice(cells)
    return a


def _call(draw: random.Random, network: Any, dtype: type) -> None:
    by_class, n = draw.random() < 0.5, draw.choice([0, 1, 2, 3, 9, 40])
    given = _arguments(draw, dtype, by_class, n)
    name = draw.choice(["predict", "measure", "gradients", "epoch", "put", "get", "seed", "groups",
                        "batches", "kept_batches", "epochs", "Network", "Loss"])  # fmt: skip
    if name == "predict":
        values = [given["X"], np.zeros((n, 3), dtype)]
    elif name == "measure":
        index = given["order"][: draw.randint(0, n)] if draw.random() < 0.5 else None
        outputs = np.zeros((n if index is None else len(index), 3), dtype)
        values = [*(given[k] for k in ("X", "y", "w", "loss")), index, outputs]
    elif name == "epochs":
        values = _several(draw, given, len(network.parameters), dtype)
    elif name == "gradients":
        values = list(given.values())
    elif name == "epoch":
        rates = np.full((max(n, 1), len(network.parameters)), 0.01)
        values = [*given.values(), draw.choice([1, 3, 8, 100]), "Adam", rates, 1.0, 1.0, 0.05]
    elif name in ("put", "get"):
        slot = draw.randrange(len(network.parameters))
        rows, columns, *_ = network.parameters[slot]
        values = [draw.randint(0, 7), slot, np.zeros((rows, columns), dtype)]
    elif name == "seed":
        values = [3]
    elif name in ("batches", "kept_batches"):
        values = [draw.choice(NUMBERS)]
    elif name == "Loss":
        values = ["mse", 1.0, np.ones(3, dtype), -100, False]
    elif name == "Network":
        layers, n_inputs = PLANS[draw.choice(list(PLANS))]
        layers = [list(layer) for layer in layers]
        layer = draw.choice(layers)
        at = draw.randrange(8)
        layer[at] = draw.choice(list(NATURES)) if at == 0 else _spoiled(draw, layer[at])
        values = [[tuple(one) for one in layers], n_inputs, True, ""]
    else:
        groups = network.groups
        group = draw.choice(groups)
        field = draw.choice(["start", "stop", "steps", "lr", "beta1", "eps", "mu_product"])
        setattr(group, field, _spoiled(draw, getattr(group, field)))
        network.groups = groups
        return
    if draw.random() < 0.9:
        i = draw.randrange(len(values))
        values[i] = _spoiled(draw, values[i])
    made = getattr(core if name in ("Loss", "Network") else network, name)(*values)
    if name == "Network":
        if made.parameters and made.parameters[-1][3] < 10**6 and made.n_outputs < 10**4:
            made.predict(given["X"].astype(np.float64), np.zeros((n, made.n_outputs)))
    elif name == "Loss":
        network.measure(given["X"], given["y"], None, made)


def _several(draw: random.Random, given: dict[str, Any], n_groups: int, dtype: type) -> list[Any]:
    """What three epochs take, with rows of their own to decide or without."""
    rows, n = [given[k] for k in ("X", "y", "w")], len(given["order"])
    size, held, index = draw.choice([1, 3, 8, 100]), None, None
    if draw.random() < 0.5:
        held = tuple(rows)
    if draw.random() < 0.5:
        index = given["order"][: draw.randint(0, n)]
    m = n if index is None else len(index)
    rates = np.full((3 * max(n, 1), n_groups), 0.01)
    seeds = np.arange(3)
    outputs = np.zeros((3, m, 3), dtype)
    orders, stop = np.stack([given["order"]] * 3), draw.choice([None, lambda: False, lambda: 3])
    return [*rows, given["loss"], orders, size, "Adam", rates, 1.0, 1.0, 0.05, stop, held, index,
            seeds, outputs, draw.choice(FLOATS), 0.0, draw.choice(NUMBERS), 2, True]  # fmt: skip


NATURES = ("Linear", "Identity", "Dropout", "PReLU", "BatchNorm1d", "LayerNorm", "Softmax",
           "LogSoftmax", "InputLayer", "ReLU", "Softplus", "GELU", "nonsense", "")  # fmt: skip


@pytest.mark.parametrize("in_double", [False, True])
@pytest.mark.parametrize("plan", PLANS)
def test_nothing_that_is_passed_makes_the_core_read_outside(plan, in_double):
    draw = random.Random(f"{plan} {in_double}")
    dtype = np.float64 if in_double else np.float32
    network, raised, done = _network(plan, in_double), 0, 0
    for i in range(CALLS // 6):
        if i % 50 == 0:
            network = _network(plan, in_double, draw.choice(core.instruction_sets()))
        try:
            _call(draw, network, dtype)
            done += 1
        except RAISED:
            raised += 1
    assert raised > 0.2 * CALLS / 6
    assert done > 0.2 * CALLS / 6


def _given(plan: str = "plain", n: int = 9) -> tuple[Any, dict[str, Any]]:
    return _network(plan, False), _arguments(random.Random(0), np.float32, False, n)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("X", np.zeros((9, 3), np.float32), r"X has shape \(9, 3\); expected \(9, 4\)"),
        ("X", np.zeros(9, np.float32), r"X has to be of shape \(rows, columns\)"),
        ("X", np.zeros((9, 4)), "X has another type than the network, float32"),
        ("y", np.zeros((9, 2), np.float32), r"y has shape \(9, 2\); expected \(9, 3\)"),
        ("y", np.zeros(9, np.int64), r"y has shape \(9\); expected \(9, 3\)"),
        ("w", np.zeros(8, np.float32), r"w has shape \(8\); expected \(9\)"),
        ("order", np.array([0, 9]), "order names row 9 of 9"),
        ("order", np.array([0, -1]), "order names row -1 of 9"),
        ("loss", core and core.Loss("nll", 1.0, None, -100, False), "takes another kind of y"),
        ("loss", core and core.Loss("mse", 1.0, None, -100, True), "takes another kind of y"),
        (
            "loss",
            core and core.Loss("mse", 1.0, np.ones(2, np.float32)),
            "the loss's weight has sh",
        ),
    ],
)
def test_an_error_says_what_was_found_and_what_was_expected(name, value, message):
    network, given = _given()
    given[name] = value
    with pytest.raises(ValueError, match=message):
        network.gradients(**given)


def test_what_the_core_does_not_know_is_named():
    network, given = _given()
    with pytest.raises(ValueError, match="the core does not know Adamax"):
        network.epoch(**given, batch_size=3, optimizer="Adamax")
    with pytest.raises(ValueError, match="the core does not know ctc"):
        core.Loss("ctc")
    with pytest.raises(ValueError, match="the core does not know Conv1d"):
        core.Network([("Conv1d", 3, True, 0, 0.0, 0.0, [], [])], 3, True)
    with pytest.raises(ValueError, match="batch_size has to be at least 1"):
        network.epoch(**given, batch_size=0, optimizer="SGD")
    with pytest.raises(ValueError, match="rates have to be of shape"):
        network.epoch(**given, batch_size=3, optimizer="SGD", rates=np.ones((2, 4)))
    with pytest.raises(ValueError, match="there is no such parameter"):
        network.put(0, 4, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="there are the buffers 0 to 7"):
        network.get(8, 0, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="what was kept is only read"):
        network.put(6, 0, np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="nothing was kept"):
        network.get(6, 0, np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="the array has 15 numbers; expected 16"):
        network.put(0, 0, np.zeros(15, np.float32))


@pytest.mark.parametrize(("start", "stop"), [(-16, 0), (0, 10**6), (16, 0), (3, 16), (0, 15)])
def test_an_optimizer_keeps_to_the_parameters(start, stop):
    network, given = _given()
    groups = network.groups
    groups[0].start, groups[0].stop = start, stop
    network.groups = groups
    with pytest.raises(ValueError, match="where no parameter does"):
        network.epoch(**given, batch_size=3, optimizer="SGD")


def test_a_batch_has_rows():
    network, given = _given()
    given["order"] = given["order"][:0]
    with pytest.raises(ValueError, match="a batch has at least one row"):
        network.gradients(**given)
    told = network.epoch(**given, batch_size=3, optimizer="SGD")
    assert (told.steps, told.complete) == (0, True)


def test_an_array_to_write_into_is_never_a_copy():
    network, given = _given()
    backwards = np.zeros((3, 9), np.float32).T
    with pytest.raises(TypeError):
        network.predict(given["X"], backwards)
    locked = np.zeros((9, 3), np.float32)
    locked.setflags(write=False)
    with pytest.raises(TypeError):
        network.predict(given["X"], locked)
    with pytest.raises(TypeError):
        network.get(0, 0, np.zeros((8, 4), np.float32)[::2])


def test_arrays_that_may_only_be_read_are_read():
    network, given = _given()
    for array in (given["X"], given["y"], given["order"]):
        array.setflags(write=False)
    network.epoch(**given, batch_size=3, optimizer="SGD")


def test_arrays_that_nobody_else_holds_live_as_long_as_they_are_read():
    _, given = _given(n=4000)
    weight = np.ones(3, np.float32)
    loss = core.Loss("bce_logits", 1.0, weight)
    del weight
    threads = []
    for _ in range(3):
        one = _network("plain", False)
        arguments = (given["X"].copy(), given["y"].copy(), None, loss, given["order"].copy())
        threads.append(threading.Thread(target=one.epoch, args=(*arguments, 2, "Adam")))
        del arguments, one
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("n_inputs", [0, -1, 2**24 + 1])
def test_a_network_has_inputs(n_inputs):
    with pytest.raises(ValueError, match="no such number of inputs"):
        core.Network([LINEAR], n_inputs, True)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (("Linear", 2**24 + 1, True, 0, 0.0, 0.0, [], []), "no such number of columns"),
        (("Linear", -1, True, 0, 0.0, 0.0, [], []), "no such number of columns"),
        (("BatchNorm1d", 5, True, 0, 1e-5, 0.1, [], []), "as many columns as it takes"),
        (("LayerNorm", 3, True, 1, 1e-5, 0.1, [], []), "as many columns as it takes"),
        (("PReLU", 0, False, 3, 0.0, 0.0, [], []), "one slope, or one for each column"),
        (("Dropout", 0, False, 0, 1.0, 0.0, [], []), "dropout leaves nothing"),
        (("Dropout", 0, False, 0, float("nan"), 0.0, [], []), "dropout leaves nothing"),
        (INPUT, "an input layer comes first"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        core.Network([LINEAR, layer], 3, True)


@pytest.mark.parametrize(
    "changes", [{1: 8}, {3: 1}, {3: -1}, {6: [3]}, {6: [3, -2]}, {7: [3]}, {7: [3, -1]},
                {6: [3, 2**24]}, {6: [2**31 - 1, 2]}],
)  # fmt: skip
def test_an_input_layer_fits_its_columns(changes):
    layer = [changes.get(i, value) for i, value in enumerate(INPUT)]
    with pytest.raises(ValueError, match=r"input layer|category"):
        core.Network([tuple(layer)], 4, True)
