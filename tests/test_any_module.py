"""``layerwise.fit``: the plain loop on whatever module there is, and nothing else changed."""

from __future__ import annotations

import copy
import random
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, random_split

import layerwise as lw
from layerwise.engine.native import AVAILABLE
from layerwise.training.fit import copy_state
from nets import Recurrent, Residual, Towers

N = 50
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _rows(n=N, seed=0):
    """X (n, 10), numbers y (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, 10, generator=generator)
    return X, X[:, :1] * X[:, 1:2] + 0.1 * torch.randn(n, 1, generator=generator)


def _classes(n=N, seed=0):
    """X (n, 10), classes y (n,)."""
    X, _ = _rows(n, seed)
    return X, (X[:, 0] > 0.5).long() + (X[:, 0] > -0.5).long()


def _mlp(n_outputs=1, *more, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 12), nn.ReLU(), *more, nn.Linear(12, n_outputs))


def _sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.05, **options})


def _fit(model=None, data=None, loss=None, optimizer="adamw", **options):
    model = _mlp() if model is None else model
    options = {"epochs": 3, "batch_size": 16, **options}
    if isinstance(data, DataLoader):
        del options["batch_size"]
    data = _rows() if data is None else data
    return lw.fit(model, data, nn.MSELoss() if loss is None else loss, optimizer, **options)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _plain(model, data, loss, optimizer, *, epochs, size, seed=0, clip=None, step=None, epoch=None):
    """The loop that everybody writes; the weights after each epoch and the losses."""
    X, y = data
    shuffle = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # as in fit: with more, sums are added up in another order
    states, losses = [], []
    for _ in range(epochs):
        order = torch.randperm(len(X), generator=shuffle)
        starts = [i for i in range(0, len(X), size) if len(X) - i > 1]
        model.train()
        total = 0.0
        for start, stop in zip(starts, [*starts[1:], len(X)]):
            part = order[start:stop]

            def closure(part=part):
                optimizer.zero_grad()
                value = loss(model(X[part]), y[part])
                value.backward()
                if clip is not None:
                    clip(model.parameters())
                return value

            if isinstance(optimizer, torch.optim.LBFGS):
                total += optimizer.step(closure).item() * len(part)
            else:
                total += closure().item() * len(part)
                optimizer.step()
            if step is not None:
                step()
        states.append(copy_state(model))
        losses.append(total / len(X))
        if epoch is not None:
            epoch(losses[-1])
    return states, losses


def _assert_same(model, state):
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def _equals_plain(model, data, loss, make, *, epochs=4, size=16, clip=None, schedule=None, **more):
    """Train a copy by hand and the model by fit, and compare every weight."""
    twin = copy.deepcopy(model)
    optimizer, other = make(model), make(twin)
    told = {}
    if schedule is not None:
        theirs = schedule(other)
        each_step = isinstance(theirs, lr_scheduler.OneCycleLR | lr_scheduler.CyclicLR)
        if isinstance(theirs, lr_scheduler.ReduceLROnPlateau):
            told = {"epoch": theirs.step}
        else:
            told = {"step" if each_step else "epoch": lambda *_: theirs.step()}
        more["schedule"] = schedule(optimizer)
    history = lw.fit(
        model, data, loss, optimizer, epochs=epochs, batch_size=size, engine="torch", **more
    )  # the core agrees with it to rounding, see test_native.py
    states, losses = _plain(
        twin, data, loss, other, epochs=epochs, size=size, clip=clip,
        seed=more.get("random_state", 0), **told,
    )  # fmt: skip
    assert len(history) == epochs
    assert history["train_loss"] == losses
    _assert_same(model, states[history.best_epoch - 1])
    for ours, its in zip(optimizer.param_groups, other.param_groups):
        assert ours["lr"] == its["lr"]


# ---------------------------------------------------------------- the plain loop


MAKE = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, weight_decay=0.1),
    "lbfgs": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=2),
}


@pytest.mark.parametrize("name", MAKE)
def test_it_is_the_plain_loop_to_the_last_bit(name):
    _equals_plain(_mlp(), _rows(), nn.MSELoss(), MAKE[name])


@pytest.mark.parametrize("name", ["momentum", "adam", "lbfgs"])
@pytest.mark.parametrize("limit", ["clip_norm", "clip_value"])
def test_clipping_is_that_of_torch(name, limit):
    clip = {"clip_norm": nn.utils.clip_grad_norm_, "clip_value": nn.utils.clip_grad_value_}[limit]
    _equals_plain(
        _mlp(), _rows(), nn.MSELoss(), MAKE[name], clip=lambda p: clip(p, 0.02), **{limit: 0.02}
    )


@pytest.mark.parametrize(
    "more", [nn.Dropout(0.3), nn.BatchNorm1d(12), nn.LayerNorm(12)], ids=lambda m: type(m).__name__
)
def test_layers_with_a_state_of_their_own_train_as_in_the_plain_loop(more):
    model = _mlp(3, copy.deepcopy(more))
    _equals_plain(model, _classes(), nn.CrossEntropyLoss(), MAKE["adam"], random_state=7)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.StepLR(o, 2, gamma=0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=4 * 3),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.5)], [2]
        ),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5),
    ],
    ids=["step", "cosine", "one_cycle", "cyclic", "sequential", "plateau"],
)
def test_a_scheduler_of_torch_steps_as_in_the_plain_loop(schedule):
    _equals_plain(_mlp(), _rows(48), nn.MSELoss(), MAKE["momentum"], schedule=schedule)


def test_parameter_groups_keep_their_rates_under_a_scheduler():
    def make(model):
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.2}]
        return torch.optim.SGD(groups, lr=0.01)

    model = _mlp()
    _equals_plain(model, _rows(), nn.MSELoss(), make)
    _equals_plain(
        model, _rows(), nn.MSELoss(), make, schedule=lambda o: lr_scheduler.StepLR(o, 1, 0.5)
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential", "step", "one_cycle"])
def test_a_schedule_scales_the_rate_of_each_group_and_puts_it_back(schedule):
    used, model = [], _mlp()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    optimizer.register_step_pre_hook(
        lambda one, *_: used.append([group["lr"] for group in one.param_groups])
    )
    _fit(model, optimizer=optimizer, schedule=schedule, warmup=0.25, epochs=4)
    rates = np.array(used)
    np.testing.assert_allclose(rates[:, 1], 2 * rates[:, 0])
    assert len(used) == 4 * 4
    assert rates[0, 0] < rates[4:, 0].max() <= 0.1
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]


def test_a_name_a_class_and_an_instance_are_the_same_optimizer():
    trained = []
    for kind in ("sgd", torch.optim.SGD, None):
        model = _mlp()
        settings = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.0}
        if kind is None:
            _fit(model, optimizer=_sgd(model, momentum=0.8, fused=True))
        else:
            _fit(model, optimizer=kind, **settings)
        trained.append(model)
    for other in trained[1:]:
        _assert_same(other, trained[0].state_dict())


def test_an_optimizer_goes_on_where_it_was():
    model, twin = _mlp(), _mlp()
    optimizer, other = MAKE["adam"](model), MAKE["adam"](twin)
    for _ in range(2):
        history = _fit(model, optimizer=optimizer, epochs=1, engine="torch")
        states, _ = _plain(twin, _rows(), nn.MSELoss(), other, epochs=1, size=16)
        _assert_same(model, states[history.best_epoch - 1])


# ---------------------------------------------------------------- any module


def _digits(n=600):
    digits = load_digits()
    return digits.images[:n] / 16, digits.target[:n]


def test_a_small_cnn_reads_digits():
    torch.manual_seed(0)
    images, y = _digits(1000)
    X = torch.tensor(images, dtype=torch.float32)[:, None]
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
    history = lw.fit(
        model, (X[:800], y[:800]), nn.CrossEntropyLoss(), valid=(X[800:], y[800:]), lr=0.01,
        epochs=8, metrics="accuracy", monitor="accuracy",
    )  # fmt: skip
    assert history.best["accuracy"] == max(history["accuracy"]) > 0.9


class Lines(nn.Module):
    """An LSTM over the lines of an image."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True)
        self.out = nn.Linear(24, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def test_an_lstm_learns_to_read_line_by_line():
    torch.manual_seed(0)
    history = lw.fit(Lines(), _digits(), nn.CrossEntropyLoss(), lr=0.02, epochs=4)
    assert history.best["loss"] < 1 < history["train_loss"][0]


def _lazy():
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))


class Tied(nn.Module):
    """The same layer twice, and its weight once more."""

    def __init__(self):
        super().__init__()
        self.inp, self.mid, self.out = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.again = self.mid
        self.inp.weight = self.mid.weight

    def forward(self, x):
        return self.out(self.again(self.mid(self.inp(x).relu()).relu()).relu())


class Boxes(nn.Module):
    """Layers in lists and dicts, a parameter and a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.rooms = nn.ModuleDict(
            {
                "hall": nn.ModuleList(
                    [nn.Linear(10, 6), nn.Sequential(nn.Sequential(nn.Linear(6, 6)))]
                )
            }
        )
        self.scale = nn.ParameterList([nn.Parameter(torch.ones(3))])
        self.register_buffer("shift", torch.zeros(3))
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        for layer in self.rooms["hall"]:
            x = layer(x).tanh()
        return self.out(x) * self.scale[0] + self.shift


MODULES = {
    "linear": (lambda: nn.Linear(10, 3), _classes),
    "mlp": (lambda: _mlp(3), _classes),
    "residual": (Residual, _classes),
    "tied": (Tied, _classes),
    "boxes": (Boxes, _classes),
    "lazy": (_lazy, _classes),
    "weight_norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(10, 6)), nn.ReLU(), nn.Linear(6, 3)
        ),
        _classes,
    ),
    "transformer": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (5, 2)), nn.TransformerEncoderLayer(2, 1, 8, batch_first=True),
            nn.Flatten(), nn.Linear(10, 3),
        ),
        _classes,
    ),
    "words": (Recurrent, lambda: (torch.randint(0, 50, (N, 7)), _classes()[1])),
    "two inputs": (Towers, lambda: ((_classes()[0][:, :3], _classes()[0][:, 3:8]), _classes()[1])),
    "named inputs": (
        Towers, lambda: ({"b": _classes()[0][:, 3:8], "a": _classes()[0][:, :3]}, _classes()[1]),
    ),
    "two inputs of arrays": (
        Towers,
        lambda: ([_classes()[0][:, :3].numpy(), _classes()[0][:, 3:8].numpy()], _classes()[1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_all_kinds_learn(name):
    torch.manual_seed(1)
    make, data = MODULES[name]
    model = make()
    modes = [module.training for module in model.modules()]
    history = lw.fit(model, data(), nn.CrossEntropyLoss(), lr=0.02, epochs=15)
    assert history.best["loss"] < 0.9 * history["train_loss"][0]
    assert [module.training for module in model.modules()] == modes


def test_named_inputs_go_by_their_names():
    by_place, by_name = Towers(), Towers()
    by_name.load_state_dict(by_place.state_dict())
    X, y = _classes()
    lw.fit(by_place, ((X[:, :3], X[:, 3:8]), y), "cross_entropy", epochs=2)
    lw.fit(by_name, ({"b": X[:, 3:8], "a": X[:, :3]}, y), "cross_entropy", epochs=2)
    _assert_same(by_name, by_place.state_dict())


def test_a_float64_model_trains_in_float64_and_arrays_follow_it():
    model, data = _mlp().double(), _rows()
    _equals_plain(model, (data[0].double(), data[1].double()), nn.MSELoss(), MAKE["adam"])
    from_arrays, from_tensors = _mlp().double(), _mlp().double()
    _fit(from_arrays, (data[0].numpy(), data[1].numpy()))
    _fit(from_tensors, (data[0].double(), data[1].double()))
    _assert_same(from_arrays, from_tensors.state_dict())


def test_a_bfloat16_model_takes_arrays():
    X, y = _rows()
    model = _mlp().bfloat16()
    assert len(_fit(model, (X.numpy(), y.numpy()), nn.L1Loss())) == 3
    assert model[0].weight.dtype == torch.bfloat16


def test_several_outputs_go_to_a_loss_of_ones_own():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = nn.Linear(10, 8), nn.Linear(8, 1), nn.Linear(8, 3)

        def forward(self, x):
            h = self.body(x).relu()
            return {"number": self.a(h)}, (self.b(h), h)

    def loss(outputs, y):
        return F.mse_loss(outputs[0]["number"], y["n"]) + F.cross_entropy(outputs[1][0], y["k"])

    X, y = _rows()
    data = (X, {"n": y, "k": _classes()[1].numpy()})
    history = lw.fit(
        Two(), data, loss, valid=data, epochs=10, lr=0.01,
        metrics={"hits": lambda outputs, y: (outputs[1][0].argmax(1) == y["k"]).float().mean()},
        monitor="hits", mode="max",
    )  # fmt: skip
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert history.best["hits"] == max(history["hits"])


def test_an_autoencoder_learns_its_input():
    X, _ = _rows()
    model = nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 10))  # a bottleneck is no idle stack
    history = lw.fit(model, (X, X), "mse", epochs=20)
    assert history["loss"][-1] < history["loss"][0]


def test_a_frozen_part_in_evaluation_mode_stays_as_it_is():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
    model = nn.Sequential(body.requires_grad_(False), nn.Linear(8, 3))
    body.eval()
    before, modes = copy_state(body), []
    body.register_forward_hook(lambda module, *_: modes.append(module[1].training))
    history = _fit(model, _classes(), nn.CrossEntropyLoss())
    _assert_same(body, before)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert set(modes) == {False}
    assert model.training
    assert not body.training
    assert body.train().training  # and can be woken again
    _fit(model, _classes(), nn.CrossEntropyLoss())
    assert not torch.equal(body[1].running_mean, before["1.running_mean"])


def test_a_model_in_evaluation_mode_is_trained_and_comes_back_in_it():
    model = _mlp(1, nn.BatchNorm1d(12)).eval()
    before = model[2].running_mean.clone()
    _fit(model)
    assert not model.training
    assert not torch.equal(model[2].running_mean, before)


# ---------------------------------------------------------------- data


class Items(Dataset):
    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[0])

    def __getitem__(self, i):
        return tuple(part[i] for part in self.parts)


class Stream(IterableDataset):
    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(list(zip(*self.parts)))


def test_a_data_loader_is_used_as_it_is():
    X, y = _rows()
    model, twin = _mlp(), _mlp()
    optimizer, other = MAKE["adam"](model), MAKE["adam"](twin)
    history = _fit(model, DataLoader(TensorDataset(X, y), 16, shuffle=True), optimizer=optimizer)
    torch.manual_seed(0)
    for _ in range(3):
        for Xb, yb in DataLoader(TensorDataset(X, y), 16, shuffle=True):
            other.zero_grad()
            nn.MSELoss()(twin(Xb), yb).backward()
            other.step()
    assert history.best_epoch == 3
    _assert_same(model, twin.state_dict())


def _together(pairs):
    left, right, y = zip(*pairs)
    return (torch.stack(left), torch.stack(right)), torch.stack(y)


def test_datasets_and_loaders_of_all_kinds_train():
    X, y = _rows()
    Xa, ya = X.numpy(), y.numpy()
    sources = [
        TensorDataset(X, y),
        random_split(TensorDataset(X, y), [40, 10])[0],
        random_split(random_split(TensorDataset(X, y), [40, 10])[0], [30, 10])[0],
        Items(X, y),
        Items(Xa, ya),
        random_split(Items(X, y), [40, 10])[0],
        Stream(X, y),
        DataLoader(TensorDataset(X, y), 8, shuffle=True),
        DataLoader(TensorDataset(X, y, torch.rand(N)), 8),
        DataLoader(Items(Xa, ya), 8, drop_last=True),
        DataLoader(Stream(X, y), 8),
        DataLoader(list(zip(X, y)), batch_sampler=[[0, 1, 2], [3, 4]]),
    ]
    for source in sources:
        model = _mlp()
        before = copy_state(model)
        history = lw.fit(model, source, nn.MSELoss(), valid=source, epochs=2)
        assert len(history) == 2
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert history.best["valid_loss"] == min(history["valid_loss"])


def test_a_collate_function_may_give_several_inputs():
    X, _ = _rows()
    y = _classes()[1]
    loader = DataLoader(list(zip(X[:, :3], X[:, 3:8], y)), 10, collate_fn=_together)
    model, twin = Towers(), Towers()
    twin.load_state_dict(model.state_dict())
    lw.fit(model, loader, "cross_entropy", _sgd(model), epochs=1)
    optimizer = _sgd(twin)
    for (a, b), yb in loader:
        optimizer.zero_grad()
        F.cross_entropy(twin(a, b), yb).backward()
        optimizer.step()
    _assert_same(model, twin.state_dict())


def test_weights_from_a_loader_are_taken_as_they_are():
    X, y = _rows()
    w = torch.linspace(0, 2, N)
    model, twin = _mlp(), _mlp()
    _fit(model, DataLoader(TensorDataset(X, y, w), N), optimizer=_sgd(model), epochs=1)
    (w * ((twin(X) - y) ** 2).mean(dim=1)).mean().backward()
    _sgd(twin).step()
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_a_subset_of_tensors_is_rows_in_memory():
    X, y = _rows()
    part = random_split(TensorDataset(X, y), [30, 20])[0]
    model, twin = _mlp(), _mlp()
    _fit(model, part)
    _fit(twin, (X[part.indices], y[part.indices]))
    _assert_same(model, twin.state_dict())


def test_rows_that_come_from_another_network_do_not_learn():
    X, y = _rows()
    body = nn.Linear(10, 10)
    for given in (body(X), X.clone().requires_grad_()):
        _fit(_mlp(), (given, y))
    assert body.weight.grad is None


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        ([{"x": 1, "y": 2}], "a batch of the loader is dict; it has to be"),
        ([torch.ones(4, 10)], "a batch of the loader is Tensor"),
        ([(torch.ones(4, 10),) * 4], "a batch of the loader is 4 parts"),
        ([(["a", "b"], torch.ones(2, 1))], "holds what is no tensor of rows"),
        ([((), torch.ones(2, 1))], "holds what is no tensor of rows"),
        ([(torch.ones(4, 10),) * 3], r"read as row weights \(4,\).*several inputs go as"),
        ([], "the data gave no batch"),
    ],
)
def test_a_batch_that_is_no_pair_is_refused(batches, told):
    loader = DataLoader(batches, batch_size=None) if batches else DataLoader(Stream())
    with pytest.raises(lw.DataError, match=told):
        _fit(data=loader)


def test_a_loader_of_nothing_is_refused():
    with pytest.raises(lw.DataError, match="no DataLoader can be made of Items"):
        _fit(data=Items([]))
    with pytest.raises(lw.DataError, match="the valid data gave no batch"):
        _fit(valid=DataLoader(Stream()))


def test_a_network_made_for_one_size_of_batch_is_checked_with_that_size():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.RNN(2, 4, batch_first=True), nn.Linear(4, 1)
            self.register_buffer("start", torch.zeros(1, 10, 4))

        def forward(self, x):
            return self.out(self.rnn(x.view(10, 5, 2), self.start)[0][:, -1])

    X, y = _rows()
    assert len(_fit(Fixed(), DataLoader(TensorDataset(X, y), 10))) == 3
    with pytest.raises(lw.NetworkError, match=r"the model's own forward failed.*10, 5, 2"):
        _fit(Fixed(), (X, y))


def test_the_first_batch_of_a_loader_meets_the_checks():
    X, y = _rows()
    model = _mlp()
    before = copy_state(model)
    with pytest.raises(lw.NetworkError, match="would stretch both"):
        _fit(model, DataLoader(TensorDataset(X, y[:, 0]), 16))
    with pytest.warns(lw.NetworkWarning, match="column 3 of X has values around"):
        _fit(_mlp(), DataLoader(TensorDataset(X + 500 * (torch.arange(10) == 3), y), 16), lr=1e-6)
    _assert_same(model, before)


def test_a_doubt_is_told_once_at_the_line_of_the_call():
    X, y = _rows()
    model = nn.Sequential(nn.Linear(10, 12), nn.Linear(12, 1))
    for data in ((X, y), DataLoader(TensorDataset(X, y), 8)):
        with pytest.warns(lw.NetworkWarning, match="no activation between") as told:
            lw.fit(model, data, "mse", valid=data, epochs=2)
        assert [one.filename for one in told] == [__file__]


def test_a_layer_replaced_after_the_optimizer_was_made_is_told():
    model = _mlp()
    optimizer = _sgd(model)
    model[2] = nn.Linear(12, 1)
    with pytest.warns(lw.NetworkWarning, match="make it after the last layer is in place"):
        _fit(model, optimizer=optimizer)


def test_validation_data_are_named_in_what_is_wrong_with_them():
    X, y = _rows()
    with pytest.raises(lw.NetworkError, match=r"^valid data: layer '0'.*takes 10 features"):
        _fit(valid=(X[:, :4], y))
    with pytest.raises(lw.NetworkError, match=r"^valid data: layer '0'.*takes 10 features"):
        _fit(valid=DataLoader(TensorDataset(X[:, :4], y), 8))
    bad = X.clone()
    bad[2, 1] = torch.nan
    with pytest.raises(lw.DataError, match=r"^valid X, row 3, column 1 has nan"):
        _fit(valid=(bad, y))
    with pytest.raises(lw.DataError, match=r"^valid data: y, row 1 is class 3"):
        _fit(_mlp(3), _classes(), nn.CrossEntropyLoss(), valid=(X, _classes()[1] + 3))


def test_columns_of_validation_frames_stand_in_the_same_order():
    pd = pytest.importorskip("pandas")
    X, y = _rows()
    frame = pd.DataFrame(X.numpy(), columns=list("abcdefghij"))
    with pytest.raises(lw.DataError, match=r"column 0 of valid X is 'j', and of X 'a'"):
        _fit(data=(frame, y), valid=(frame[frame.columns[::-1]], y))
    assert len(_fit(data=(frame, y), valid=(frame, y))) == 3
    assert len(_fit(data=(frame, y), valid=(X, y))) == 3


# ---------------------------------------------------------------- what is left behind


class Everything:
    """All the state that training must leave as it was."""

    def __init__(self, model):
        self.model = model
        self.modes = [module.training for module in model.modules()]
        self.grads = [
            (p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
        ]
        self.parameters = list(model.parameters())
        self.requires = [p.requires_grad for p in model.parameters()]
        self.hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        self.members = [set(vars(m)) for m in model.modules()]
        self.process = self._process()

    def _process(self):
        return (
            torch.get_rng_state().tolist(), random.getstate(),
            str(np.random.get_state(legacy=False)),  # noqa: NPY002
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), warnings.filters[:],
        )  # fmt: skip

    def assert_same(self):
        now = Everything(self.model)
        for name in ("modes", "requires", "hooks", "members", "process"):
            assert getattr(now, name) == getattr(self, name), name
        for one, other in zip(self.parameters, now.parameters, strict=True):
            assert one is other
        for (grad, copied), (new, _) in zip(self.grads, now.grads):
            assert grad is new
            assert grad is None or torch.equal(grad, copied)


def _with_state():
    model = _mlp(1, nn.BatchNorm1d(12), nn.Dropout(0.2))
    F.mse_loss(model(_rows()[0]), _rows()[1]).backward()
    model[0].bias.grad = None
    model[2].eval()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(123)
    return model, calls


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_everything_but_the_weights_is_as_it_was():
    model, calls = _with_state()
    before, weights = Everything(model), copy_state(model)
    loader = DataLoader(TensorDataset(*_rows()), 8, shuffle=True)
    for data in (_rows(), loader):
        _fit(model, data, valid=loader, progress=False)
        before.assert_same()
    assert calls
    assert not torch.equal(model[0].weight, weights["0.weight"])


def _stop(error, at):
    """A loss that raises at a call of the training, after those of the checks."""
    calls = []

    def loss(outputs, y):
        calls.append(1)
        if len(calls) > at:
            raise error
        return F.mse_loss(outputs, y)

    return loss


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("mine")], ids=repr)
def test_an_end_in_the_first_epoch_leaves_the_weights_too(error):
    model, _ = _with_state()
    before, weights = Everything(model), copy_state(model)
    with pytest.raises(type(error)):
        _fit(model, loss=_stop(error, 3))
    before.assert_same()
    _assert_same(model, weights)


def test_an_error_in_a_later_epoch_leaves_the_weights_too():
    model, _ = _with_state()
    before, weights = Everything(model), copy_state(model)
    with pytest.raises(ZeroDivisionError):
        _fit(model, loss=_stop(ZeroDivisionError(), 12), epochs=9)

    def fails(event):
        raise LookupError

    with pytest.raises(LookupError):
        _fit(model, callbacks=[fails])
    before.assert_same()
    _assert_same(model, weights)


def test_an_interrupt_in_a_later_epoch_keeps_the_best():
    model, _ = _with_state()
    before, seen = Everything(model), []

    def interrupt(event):
        seen.append(copy_state(model))
        if event.row["epoch"] == 3:
            raise KeyboardInterrupt

    history = _fit(model, epochs=9, callbacks=[interrupt])
    assert (history.stopped, len(history)) == ("interrupted", 3)
    _assert_same(model, seen[history.best_epoch - 1])
    before.assert_same()


@pytest.mark.parametrize(
    "wrong", [{"data": (_rows()[0][:, :3], _rows()[1])}, {"schedule": "sideways"}, {"optimizer": 5}]
)
def test_a_refusal_leaves_everything_too(wrong):
    model, _ = _with_state()
    before, weights = Everything(model), copy_state(model)
    with pytest.raises(lw.LayerwiseError):
        _fit(model, **wrong)
    before.assert_same()
    _assert_same(model, weights)


def test_a_training_that_blows_up_at_once_leaves_the_weights():
    model = _mlp()
    weights = copy_state(model)
    with pytest.raises(lw.TrainingError, match=r"not finite.*Lower the learning rate"):
        _fit(model, optimizer="sgd", lr=1e6, epochs=20)
    _assert_same(model, weights)


def test_a_training_that_blows_up_later_keeps_the_best():
    model, seen = _mlp(), []
    optimizer = _sgd(model, lr=0.01)

    def push(event):
        seen.append(copy_state(model))
        if event.row["epoch"] == 3:
            for group in optimizer.param_groups:
                group["lr"] = 1e9

    history = _fit(model, optimizer=optimizer, epochs=9, callbacks=[push])
    assert history.stopped.startswith("diverged: the loss is not finite at epoch")
    assert history.best_epoch <= 3
    _assert_same(model, seen[history.best_epoch - 1])


def test_what_a_loader_and_a_model_draw_is_put_back():
    def forward(self, x):
        return nn.Sequential.forward(self, x + 0.01 * torch.randn(x.shape))

    noisy = type("Noisy", (nn.Sequential,), {"forward": forward})
    loader = DataLoader(TensorDataset(*_rows()), 8, shuffle=True)
    for random_state in (0, 1):
        model = noisy(*_mlp(), nn.Dropout(0.1))
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        _fit(model, loader, random_state=random_state)
        assert torch.equal(torch.rand(3), expected)


# ---------------------------------------------------------------- best, and the end


def test_the_weights_are_those_of_the_best_epoch():
    model, seen = _mlp(), []
    history = _fit(
        model, valid=_rows(20, 1), optimizer=_sgd(model, lr=0.3), epochs=12, patience=None,
        callbacks=[lambda event: seen.append(copy_state(model))],
    )  # fmt: skip
    assert history.stopped == "epochs"
    assert history.best_epoch == 1 + int(np.argmin(history["valid_loss"])) < 12
    _assert_same(model, seen[history.best_epoch - 1])


def test_training_stops_after_patience_epochs_without_gain():
    model = _mlp()
    history = _fit(model, valid=_rows(20, 1), epochs=300, patience=3, lr=0.05)
    assert history.stopped == "patience"
    assert len(history) == history.best_epoch + 3
    assert history.best["valid_loss"] == min(history["valid_loss"])
    demanding = _fit(valid=_rows(20, 1), epochs=300, patience=3, min_delta=100)
    assert (demanding.best_epoch, len(demanding)) == (1, 4)


@pytest.mark.parametrize("patience", [None, 0])
def test_nothing_stops_early_without_patience_or_validation_data(patience):
    assert len(_fit(valid=_rows(20, 1), epochs=25, patience=patience, lr=0.5)) == 25
    assert len(_fit(epochs=25, patience=2, lr=0.5)) == 25


def test_a_callback_can_end_it_and_is_told_how_it_stands():
    seen = []

    def end(event):
        seen.append(event)
        return event.row["epoch"] == 2

    history = _fit(callbacks=[end], epochs=9)
    assert (history.stopped, len(history)) == ("callback", 2)
    assert [event.row for event in seen] == history.rows
    assert seen[0].epochs == 9


def test_a_time_limit_ends_it():
    history = _fit(
        epochs=10_000, time_limit=0.2, callbacks=[lambda event: time.sleep(0.05)], patience=None
    )
    assert history.stopped == "time limit"
    assert 1 <= len(history) < 10


@pytest.mark.parametrize(
    ("monitor", "mode", "better"),
    [("accuracy", None, max), ("rate", "max", max), ("rate", "min", min)],
)
def test_a_metric_can_decide_on_the_best_epoch(monitor, mode, better):
    def rate(outputs, y):
        return (outputs.argmax(1) == y).float().mean()

    metrics = {"rate": rate} if monitor == "rate" else ["accuracy"]
    history = _fit(
        _mlp(3), _classes(), nn.CrossEntropyLoss(), valid=_classes(20, 1), metrics=metrics,
        monitor=monitor, mode=mode, epochs=8, patience=None, lr=0.02,
    )  # fmt: skip
    assert history.best[monitor] == better(history[monitor])
    assert history.best_epoch == 1 + history[monitor].index(better(history[monitor]))


def test_metrics_count_the_weights_of_the_validation_rows():
    X, y = _classes()
    w = torch.rand(N)
    w[:20] = 0
    model = _mlp(3)
    history = _fit(
        model, (X, y), nn.CrossEntropyLoss(), valid=(X, y, w), metrics="accuracy", epochs=1
    )
    right = (model.eval()(X).argmax(1) == y).double()
    assert history.best["accuracy"] == pytest.approx(float((right * w).sum() / w.sum()), rel=1e-6)


def test_the_losses_of_a_row_of_the_history_can_be_measured_again():
    model, (X, y) = _mlp(1, nn.BatchNorm1d(12)), _rows()
    alone = _fit(model, epochs=1)
    assert set(alone.rows[0]) == {"epoch", "train_loss", "loss", "lr", "seconds"}
    with torch.no_grad():
        assert alone.best["loss"] == pytest.approx(float(F.mse_loss(model.eval()(X), y)), rel=1e-6)
        held = _fit(model, valid=_rows(20, 1), epochs=1)
        X, y = _rows(20, 1)
        expected = float(F.mse_loss(model.eval()(X), y))
    assert held.best["valid_loss"] == pytest.approx(expected, rel=1e-6)


def test_progress_is_shown_on_stderr_only(capsys):
    _fit(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 3/3" in err
    _fit()
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- repeatable


def _bytes(random_state=0, **options):
    model = _mlp()
    _fit(model, random_state=random_state, **options)
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters())


def test_the_same_random_state_gives_the_same_bytes_whatever_the_global_one():
    first = _bytes()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert _bytes() == first
    assert _bytes(np.int64(0)) == first
    assert _bytes(1) != first


def test_python_threads_do_not_disturb_each_other():
    expected, barrier = _bytes(), threading.Barrier(3)

    def run(_):
        barrier.wait()
        model = copy.deepcopy(made)
        _fit(model, random_state=0)
        return b"".join(p.detach().numpy().tobytes() for p in model.parameters())

    made = _mlp()
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(run, range(3))) == {expected}


def test_dropout_and_loaders_repeat_too():
    def once():
        model = _mlp(1, nn.Dropout(0.5))
        _fit(model, DataLoader(TensorDataset(*_rows()), 8, shuffle=True), random_state=3)
        return model

    _assert_same(once(), once().state_dict())


# ---------------------------------------------------------------- weights


def _full_batch(data, loss, n_outputs, valid=None):
    model = _mlp(n_outputs).double()
    options = {"epochs": 3, "batch_size": 1000, "valid": valid}
    history = lw.fit(model, data, loss, torch.optim.SGD(model.parameters(), lr=0.1), **options)
    return model, history


@pytest.mark.parametrize(
    ("loss", "n_outputs", "y"),
    [
        ("mse", 1, _rows()[1].double()),
        (nn.HuberLoss(), 1, _rows()[1].double()),
        ("cross_entropy", 3, _classes()[1]),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3, 2]).double()), 3, _classes()[1]),
        (nn.CrossEntropyLoss(ignore_index=1), 3, _classes()[1]),
        ("bce", 1, (_rows()[1] > 0).double()),
        (lambda outputs, y: (outputs - y).square(), 1, _rows()[1].double()),
    ],
)
def test_weight_2_is_the_row_twice_and_weight_0_no_row(loss, n_outputs, y):
    X = _rows()[0].double()
    counts = torch.tensor([0, 1, 2, 3, 1] * 10)
    twice = torch.repeat_interleave(torch.arange(N), counts)
    valid = (X[twice], y[twice])
    repeated, expected = _full_batch((X[twice], y[twice]), loss, n_outputs, valid)
    weighted, history = _full_batch((X, y, counts), loss, n_outputs, (X, y, counts))
    torch.testing.assert_close(weighted.state_dict(), repeated.state_dict(), rtol=1e-9, atol=1e-9)
    assert history["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-9)
    assert history["valid_loss"] == pytest.approx(expected["valid_loss"], rel=1e-9)


def test_only_the_proportions_of_weights_count():
    X, y = _rows()
    w = torch.rand(N) + 0.5
    first, _ = _full_batch((X.double(), y.double(), w.double()), "mse", 1)
    second, _ = _full_batch((X.double(), y.double(), 40 * w.double()), "mse", 1)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"engine": "native", "loss": lambda outputs, y: (outputs - y).abs()},
         "engine 'native' cannot run this: (the loss is a function|this installation has no)"),
        ({"engine": "troch"}, "unknown engine 'troch'. Did you mean 'torch'"),
        ({"amp": "bf16"}, "amp has to be True, False, torch.bfloat16 or torch.float16"),
        ({"amp": torch.float64}, "amp has to be"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used here"),
        ({"random_state": None}, "random_state has to be a whole number of at least 0; got None"),
        ({"random_state": -1}, "random_state has to be a whole number"),
        ({"random_state": 0.5}, "random_state has to be a whole number"),
        ({"epochs": 0}, "epochs has to be at least 1"),
        ({"batch_size": 0}, "batch_size has to be at least 1"),
        ({"lr": -1}, "lr has to be above 0"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"loss": "msee"}, "unknown loss 'msee'"),
        ({"metrics": "acuracy", "valid": _rows()}, "unknown metric 'acuracy'. Did you mean"),
        ({"metrics": "rmse"}, "metrics are measured on validation data"),
        ({"monitor": "rmse", "valid": _rows()}, "Add it: metrics='rmse'"),
        ({"mode": "up"}, "mode has to be 'min' or 'max'"),
        ({"optimizer": "lbfgs", "amp": torch.float16}, "LBFGS does not go with float16"),
        ({"data": DataLoader(TensorDataset(*_rows())), "schedule": "cosine", "batch_size": 3},
         "batch_size is the DataLoader's own business"),
        ({"data": Stream(*_rows()), "schedule": "cosine"}, "needs the number of batches"),
    ],
)  # fmt: skip
def test_settings_outside_their_limits_are_refused(options, told):
    options = {"data": _rows(), "loss": "mse", **options}
    with pytest.raises(lw.SettingError, match=told):
        lw.fit(_mlp(), options.pop("data"), options.pop("loss"), **options)


def test_a_call_in_the_manner_of_scikit_learn_is_told_the_right_one():
    X, y = _rows()
    with pytest.raises(lw.SettingError, match=r"got Tensor; data and target are one .*\(X, y\)$"):
        lw.fit(_mlp(), X, y, nn.MSELoss())


@pytest.mark.skipif(not AVAILABLE, reason="built without the native core")
def test_the_history_says_which_engine_ran_and_why():
    assert _fit(engine="auto").engine == _fit(engine="native").engine == "native"
    assert (_fit(engine="torch").engine, _fit(engine="torch").engine_reason) == (
        "torch", "as you said",
    )  # fmt: skip
    history = _fit(nn.Sequential(nn.Linear(10, 4), nn.CELU(), nn.Linear(4, 1)))
    assert history.engine == "torch"
    assert "layer '1' is a CELU, which the core does not have" in history.engine_reason


def test_lazy_layers_want_a_first_call_before_a_loader():
    loader = DataLoader(TensorDataset(*_classes()), 16)
    model = _lazy()
    with pytest.raises(lw.NetworkError, match="call the model once on a batch"):
        _fit(model, loader, nn.CrossEntropyLoss())
    model(next(iter(loader))[0])
    assert len(_fit(model, loader, nn.CrossEntropyLoss())) == 3


def test_a_batch_of_one_row_and_batch_normalisation_are_told_what_to_do():
    X, y = _rows(33)
    loader = DataLoader(TensorDataset(X, y), 16)
    model = _mlp(1, nn.BatchNorm1d(12))
    before = copy_state(model)
    with pytest.raises(lw.NetworkError, match="drop_last=True or another batch_size"):
        _fit(model, loader)
    _assert_same(model, before)
    assert len(_fit(model, (X, y))) == 3  # of rows in memory the last one joins the others


# ---------------------------------------------------------------- mixed precision and devices


@pytest.mark.parametrize("amp", [True, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.5}, {"clip_value": 0.1}])
def test_mixed_precision_on_the_cpu_is_near_to_full(amp, clip):
    model, exact = _mlp(3), _mlp(3)
    options = {"loss": nn.CrossEntropyLoss(), "epochs": 5, **clip}
    seen = set()
    model[0].register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    history = _fit(model, _classes(), optimizer=_sgd(model), amp=amp, **options)
    expected = _fit(exact, _classes(), optimizer=_sgd(exact), **options)
    assert seen - {torch.float32} == {torch.float16 if amp == torch.float16 else torch.bfloat16}
    assert model[0].weight.dtype == torch.float32
    assert history["train_loss"] == pytest.approx(expected["train_loss"], rel=0.05)


@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_every_common_loss_takes_mixed_precision(amp):
    X, y = _rows()
    yes = (y > 0).float()
    for loss, target in (
        (nn.L1Loss(), y), (nn.HuberLoss(), y), (nn.SmoothL1Loss(), y), (nn.PoissonNLLLoss(), yes),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])), yes),
    ):  # fmt: skip
        assert len(_fit(_mlp(), (X, target), loss, amp=amp, epochs=1)) == 1
        assert len(_fit(_mlp(), (X, target, yes[:, 0] + 1), loss, amp=amp, epochs=1)) == 1


@cuda
def test_a_model_visits_the_gpu_and_comes_back():
    model, here = _mlp(3), _mlp(3)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3]))
    optimizer = MAKE["adam"](model)
    before = torch.cuda.get_rng_state()
    seen = set()
    model[0].register_forward_hook(lambda _, __, output: seen.add(output.device.type))
    history = _fit(
        model, _classes(), loss, optimizer, device="cuda", valid=_classes(20, 1), metrics="accuracy"
    )
    expected = _fit(here, _classes(), loss, MAKE["adam"](here))
    assert seen == {"cuda"}
    assert {p.device.type for p in [*model.parameters(), *loss.buffers()]} == {"cpu"}
    assert history["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    _plain(model, _classes(), loss, optimizer, epochs=1, size=16)  # its state is back, too


@cuda
@pytest.mark.parametrize("amp", [True, torch.float16])
def test_mixed_precision_on_the_gpu_learns(amp):
    model = _mlp(3).cuda()
    history = _fit(model, _classes(), nn.CrossEntropyLoss(), amp=amp, epochs=20, lr=0.01)
    assert history["train_loss"][-1] < 0.7 * history["train_loss"][0]
    assert model[0].weight.device.type == "cuda"
