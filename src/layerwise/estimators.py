"""scikit-learn estimators: any table, strings and gaps included, into a network."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from layerwise.data.frames import table_of
from layerwise.data.schema import Schema, enforce, infer_schema
from layerwise.data.split import FOLDS, deal, split_rows
from layerwise.data.table import MISSING, Table
from layerwise.data.target import Target
from layerwise.errors import DataError, DataWarning, SettingError
from layerwise.learn import Learnt, learn
from layerwise.prepare import Part
from layerwise.training.recipe import SMALL, Recipe
from layerwise.weights import check_weight

FOLDED = 50  # rows; of fewer a fold is too small to judge by, and every member trains on all

_SETTINGS = [entry.name for entry in fields(Recipe)]


class _Network(BaseEstimator):
    """What both estimators share: the settings, reading X, and the way to `learn`."""

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (256, 128),
        *,
        members: int = 5,
        activation: str = "silu",
        bins: int | str = "auto",
        dropout: float | str = "auto",
        norm: str | None = None,
        loss: str = "auto",
        optimizer: str = "adamw",
        optimizer_options: Mapping[str, Any] | None = None,
        lr: float | str = "auto",
        momentum: float = 0.9,
        weight_decay: float | str = "auto",
        schedule: str = "auto",
        warmup: float | str = "auto",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        batch_size: int | str = "auto",
        epochs: int = 200,
        patience: int | None = 10,
        min_delta: float = 0.0,
        monitor: str = "loss",
        time_limit: float | None = None,
        dtype: str = "auto",
        device: str = "cpu",
        engine: str = "auto",
        threads: int = 1,
        validation_fraction: float = 0.15,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.members = members
        self.activation = activation
        self.bins = bins
        self.dropout = dropout
        self.norm = norm
        self.loss = loss
        self.optimizer = optimizer
        self.optimizer_options = optimizer_options
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.warmup = warmup
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.min_delta = min_delta
        self.monitor = monitor
        self.time_limit = time_limit
        self.dtype = dtype
        self.device = device
        self.engine = engine
        self.threads = threads
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags

    # ------------------------------------------------------------ fitting

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train on X and y.

        Parameters
        ----------
        X : DataFrame (pandas, polars, pyarrow, …), array or sparse matrix of shape
            (n_samples, n_features); numbers, strings, booleans, dates, with gaps
        y : array of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array of shape (n_samples,), at least 0; 2 is the row twice, 0 is no row
        X_val, y_val, sample_weight_val : rows that decide on the best epoch. Without them
            each of several members holds out a fold of the rows, from 50 rows on; one network
            ``validation_fraction`` of them, from 200 rows on. Below, all rows train for all epochs

        Returns
        -------
        self

        Raises
        ------
        DataError, SettingError
            Both are ``ValueError``; the message names column and row, or setting.
        """
        again = self.warm_start and hasattr(self, "_learnt")
        recipe = self._recipe()
        if not 0 <= self.validation_fraction < 1:
            raise SettingError(
                "validation_fraction has to be a share of at least 0 and below 1; got "
                f"{self.validation_fraction!r}"
            )
        table, y, weight = self._read(X, y, sample_weight, reset=not again)
        start = self._learnt if again else None
        target = start.model.target if start else self._make_target(y, weight)
        if start:
            self._refuse_other_classes(y, target)
        seed = self._seed()
        self._weight_unit = 1.0 if weight is None else float(weight.mean())
        part = Part(table, y, weight)
        valid = fold = None
        classes = target.codes(y) if target.task in ("binary", "multiclass") else None
        if X_val is not None:
            if y_val is None:
                raise DataError("X_val needs y_val")
            valid = Part(*self._read(X_val, y_val, sample_weight_val, reset=False))
        elif recipe.members > 1:
            if len(part) >= FOLDED and self.validation_fraction:
                fold = deal(len(part), FOLDS, seed=seed, classes=classes)
        elif len(part) >= SMALL and recipe.patience and self.validation_fraction:
            split = split_rows(
                len(part), valid=self.validation_fraction, test=0, seed=seed, classes=classes
            )
            part, valid = part.take(split.train), part.take(split.valid)
            if not start and target.is_regression:
                target = self._make_target(part.y, part.weight)
        schema = start.model.schema if start else _input_schema(part.table)
        valid = valid and replace(valid, table=_enforce(valid.table, schema))
        part = replace(part, table=_enforce(part.table, schema))
        self._keep(self._learn(part, valid, schema, target, recipe, seed, start, fold=fold))
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, target: Target | None) -> Self:
        """One epoch over these rows; the first call settles encoder, network and optimizer."""
        first = not hasattr(self, "_learnt")
        table, y, weight = self._read(X, y, sample_weight, reset=first)
        start = None if first else self._learnt
        recipe = replace(self._recipe(), epochs=1, patience=None, schedule="constant", warmup=0.0)
        if getattr(self, "class_weight", None) == "balanced":
            raise SettingError(
                "class_weight='balanced' needs all rows at once; give partial_fit a dict of weights"
            )
        if start:
            target, schema = start.model.target, start.model.schema
            recipe = replace(recipe, lr=start.model.recipe["lr"] if self.lr == "auto" else self.lr)
        else:
            target = target or self._make_target(y, weight)
            schema = _input_schema(table)
            self._weight_unit = 1.0 if weight is None else float(weight.mean())
        part = Part(_enforce(table, schema), y, weight)
        unit = self._weight_unit
        self._keep(self._learn(part, None, schema, target, recipe, self._seed(), start, unit))
        return self

    def _learn(
        self,
        part: Part,
        valid: Part | None,
        schema: Schema,
        target: Target,
        recipe: Recipe,
        seed: int,
        start: Learnt | None,
        weight_unit: float | None = None,
        fold: np.ndarray | None = None,
    ) -> Learnt:
        callbacks = []
        if self.verbose:
            from layerwise.progress import Progress

            callbacks.append(Progress(sys.stderr))
        learnt = learn(
            part, valid, schema, target, recipe, seed=seed,
            class_weight=getattr(self, "class_weight", None), callbacks=callbacks, start=start,
            weight_unit=weight_unit, fold=fold, examined=True,
        )  # fmt: skip
        stopped = learnt.history.stopped
        if stopped.startswith(("diverged", "interrupted")):
            kept = f"the weights of epoch {learnt.history.best_epoch} are kept"
            warnings.warn(f"training {stopped}; {kept}", ConvergenceWarning, stacklevel=3)
        return learnt

    def _keep(self, learnt: Learnt) -> None:
        self._learnt = learnt
        self.model_ = learnt.model
        self.module_ = learnt.network
        self.history_ = learnt.history
        self.out_of_fold_ = learnt.out_of_fold
        self.n_iter_ = len(learnt.history)
        if not learnt.model.target.is_regression:
            self.classes_ = learnt.model.target.classes

    @property
    def findings_(self) -> Any:
        """What the doctor says of the training; looked at when first asked for."""
        return self.history_.findings

    def _recipe(self) -> Recipe:
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return Recipe(**{**settings, "optimizer_options": self.optimizer_options or {}})

    def _seed(self) -> int:
        if self.random_state is None:
            # fresh, and NumPy's global random state is left as it was
            return int(np.random.SeedSequence().generate_state(1)[0])
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    # ------------------------------------------------------------ reading

    def _read(
        self, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[Table, np.ndarray, np.ndarray | None]:
        """The rows with a weight above 0: their table, y, and weights or None."""
        table = self._table(X, reset=reset)
        if y is None:
            raise DataError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = check_array(y, ensure_2d=False, dtype=None, allow_nd=False, input_name="y")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if len(table) != len(y):
            raise DataError(
                f"X has {len(table)} rows and y has {len(y)}; inconsistent numbers of samples"
            )
        y = self._check_y(y)
        if sample_weight is None:
            return table, y, None
        weight = np.asarray(sample_weight, dtype=np.float64)
        if weight.shape != (len(y),):
            raise DataError(
                f"sample_weight has shape {weight.shape}; expected one weight for each row, "
                f"({len(y)},)"
            )
        weight = check_weight(weight)
        kept = weight > 0
        return (table, y, weight) if kept.all() else (table.take(kept), y[kept], weight[kept])

    def _table(self, X: Any, *, reset: bool) -> Table:
        """X as a table, with scikit-learn's checks of number and names of the columns."""
        if _is_frame(X):
            table = table_of(X, missing=MISSING)
            if nw.dependencies.is_into_dataframe(X):
                validate_data(self, X, reset=reset, skip_check_array=True)
            elif reset:  # a dict or an Arrow stream, which scikit-learn does not know
                self.feature_names_in_ = np.array(table.names, dtype=object)
                self.n_features_in_ = len(table.names)
            if not table.n_rows:
                raise DataError("found array with 0 sample(s): X has no rows")
            return replace(table, source="X")
        X = validate_data(
            self, X, reset=reset, accept_sparse=("csr", "csc", "coo"), dtype=None,
            ensure_all_finite=False,
        )  # fmt: skip
        table = table_of(X.toarray() if sparse.issparse(X) else X)
        return replace(table, source="X")

    def _outputs(self, X: Any) -> np.ndarray:
        """Raw outputs of shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        model = self.model_
        table = self._table(X, reset=False)
        return model.outputs(enforce(table, model.schema, model.encoder.names))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def _check_y(self, y: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _make_target(self, y: np.ndarray, weight: np.ndarray | None) -> Target:
        raise NotImplementedError

    def _refuse_other_classes(self, y: np.ndarray, target: Target) -> None:
        pass


class NetworkClassifier(ClassifierMixin, _Network):
    """A fully connected network that tells classes apart.

    Two classes, many classes, or several labels at once (y of 0 and 1 with shape
    (n_samples, n_labels)). X may be any table with numbers, strings, booleans, dates and gaps.

    Parameters
    ----------
    hidden_layer_sizes : units of each hidden layer; ``()`` is a logistic regression
    members : networks whose answers are averaged, each trained on its own folds of the rows
    activation : relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, tanh, sigmoid, hardtanh
    bins : by which each number enters, beside itself: how far it fills each; "auto" is 16 from 500
        training rows on, 0 is none. A number of few values, up to 33 then, has one between each two
    dropout : share of hidden values set to zero while training; "auto" is 0.1 from 200 rows on
    norm : "batch", "layer" or None
    loss : "auto", the cross-entropy on logits
    optimizer, optimizer_options : a class of ``torch.optim`` by name, and more of its arguments
    lr, momentum, weight_decay : of the optimizer; "auto" is 0.003, or 0.005 where all rows make one
        step; decay spares biases and norms
    schedule, warmup : constant, cosine, linear, exponential, step or one_cycle; share of the steps
        in which the rate climbs. "auto" is a cosine from 200 rows on, after 2 % of the steps
    clip_norm, clip_value : limits of the gradients
    batch_size : rows of a step; "auto" takes all of a small table, else 32 to 256
    epochs, patience, min_delta, monitor : at most so many epochs; stop after so many without a gain
        of at least min_delta in the monitored value ("loss" or a metric) on the validation rows
    time_limit : seconds
    dtype, device, threads : "auto" precision is float64 below 200 rows; one thread gives the same
        bytes everywhere
    engine : "native" trains on layerwise's own core, "torch" on PyTorch, and "auto" on the core
        where it can run the network
    validation_fraction : share of the rows that decide on the best epoch of one network; several
        members hold out their folds, whatever the share, but none at 0
    class_weight : None, "balanced" or a dict from class to weight
    warm_start : go on from the last fit
    random_state : an int makes a fit repeatable to the byte; the global state is never touched
    verbose : 1 shows the training on stderr

    Attributes
    ----------
    classes_ : the class labels, sorted
    model_ : the `layerwise.Model`: encoder, network and target; ``model_.save(path)``
    module_ : the network as ``nn.Sequential``, with the weights of the best epoch; of several
        members a `layerwise.network.bag.Bag` of them
    out_of_fold_ : of several members, their answers for rows that they were not trained on
    history_ : one row for each epoch; ``history_.best_epoch`` was kept
    n_iter_ : epochs trained

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> clf = NetworkClassifier((16,), random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (256, 128),
        *,
        members: int = 5,
        activation: str = "silu",
        bins: int | str = "auto",
        dropout: float | str = "auto",
        norm: str | None = None,
        loss: str = "auto",
        optimizer: str = "adamw",
        optimizer_options: Mapping[str, Any] | None = None,
        lr: float | str = "auto",
        momentum: float = 0.9,
        weight_decay: float | str = "auto",
        schedule: str = "auto",
        warmup: float | str = "auto",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        batch_size: int | str = "auto",
        epochs: int = 200,
        patience: int | None = 10,
        min_delta: float = 0.0,
        monitor: str = "loss",
        time_limit: float | None = None,
        dtype: str = "auto",
        device: str = "cpu",
        engine: str = "auto",
        threads: int = 1,
        validation_fraction: float = 0.15,
        class_weight: str | Mapping[Any, float] | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, members=members, activation=activation, bins=bins,
            dropout=dropout, norm=norm, loss=loss, optimizer=optimizer,
            optimizer_options=optimizer_options, lr=lr, momentum=momentum,
            weight_decay=weight_decay, schedule=schedule, warmup=warmup,
            clip_norm=clip_norm, clip_value=clip_value, batch_size=batch_size, epochs=epochs,
            patience=patience, min_delta=min_delta, monitor=monitor, time_limit=time_limit,
            dtype=dtype, device=device, engine=engine, threads=threads,
            validation_fraction=validation_fraction, warm_start=warm_start,
            random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`
        classes : all classes there will ever be; needed in the first call

        Returns
        -------
        self

        Notes
        -----
        The first call settles how columns are encoded, so it should see typical rows.
        """
        target = None
        if not hasattr(self, "_learnt"):
            if classes is None:
                raise DataError("classes must be passed on the first call to partial_fit")
            if not (np.ndim(y) == 2 and np.shape(y)[1] > 1):
                target = Target.classification(np.unique(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise DataError(
                f"classes={classes!r} is not the same as on last call to partial_fit, which had "
                f"{self.classes_!r}"
            )
        return self._partial_fit(X, y, sample_weight, target)

    def predict(self, X: Any) -> np.ndarray:
        """Class labels of shape (n_samples,), or 0/1 of shape (n_samples, n_labels)."""
        outputs = self._outputs(X)
        return self.model_.target.decode(outputs)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of shape (n_samples, n_classes), columns in the order of ``classes_``."""
        outputs = self._outputs(X)
        return self.model_.target.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _check_y(self, y: np.ndarray) -> np.ndarray:
        kind = type_of_target(y, input_name="y")
        if kind not in _CLASSES:
            check_classification_targets(y)
        if y.ndim == 2 and kind != "multilabel-indicator":
            raise DataError(f"y of kind {kind} is not supported; several labels are 0 or 1 each")
        return y

    def _make_target(self, y: np.ndarray, weight: np.ndarray | None) -> Target:
        if y.ndim == 2:
            return Target.multilabel(y.shape[1])
        classes = np.unique(y)
        if len(classes) < 2:
            raise DataError(
                f"NetworkClassifier needs at least 2 classes in y; got 1 class: {classes[0]!r}"
            )
        return Target.classification(classes)

    def _refuse_other_classes(self, y: np.ndarray, target: Target) -> None:
        if target.task != "multilabel":
            target.encode(y)


class NetworkRegressor(RegressorMixin, _Network):
    """A fully connected network that predicts one number or several.

    X may be any table with numbers, strings, booleans, dates and gaps. The target is standardised
    for training and scaled back for the answer.

    Parameters
    ----------
    hidden_layer_sizes : units of each hidden layer; ``()`` is a linear regression
    members : networks whose answers are averaged, each trained on its own folds of the rows
    activation : relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, tanh, sigmoid, hardtanh
    bins : by which each number enters, beside itself: how far it fills each; "auto" is 16 from 500
        training rows on, 0 is none. A number of few values, up to 33 then, has one between each two
    dropout : share of hidden values set to zero while training; "auto" is 0.1 from 200 rows on
    norm : "batch", "layer" or None
    loss : "auto" or "mse", "l1", "huber"
    optimizer, optimizer_options : a class of ``torch.optim`` by name, and more of its arguments
    lr, momentum, weight_decay : of the optimizer; "auto" is 0.003, or 0.005 where all rows make one
        step; decay spares biases and norms
    schedule, warmup : constant, cosine, linear, exponential, step or one_cycle; share of the steps
        in which the rate climbs. "auto" is a cosine from 200 rows on, after 2 % of the steps
    clip_norm, clip_value : limits of the gradients
    batch_size : rows of a step; "auto" takes all of a small table, else 32 to 256
    epochs, patience, min_delta, monitor : at most so many epochs; stop after so many without a gain
        of at least min_delta in the monitored value ("loss" or a metric) on the validation rows
    time_limit : seconds
    dtype, device, threads : "auto" precision is float64 below 200 rows; one thread gives the same
        bytes everywhere
    engine : "native" trains on layerwise's own core, "torch" on PyTorch, and "auto" on the core
        where it can run the network
    validation_fraction : share of the rows that decide on the best epoch of one network; several
        members hold out their folds, whatever the share, but none at 0
    warm_start : go on from the last fit
    random_state : an int makes a fit repeatable to the byte; the global state is never touched
    verbose : 1 shows the training on stderr

    Attributes
    ----------
    model_ : the `layerwise.Model`: encoder, network and target; ``model_.save(path)``
    module_ : the network as ``nn.Sequential``, with the weights of the best epoch; of several
        members a `layerwise.network.bag.Bag` of them
    out_of_fold_ : of several members, their answers for rows that they were not trained on
    history_ : one row for each epoch; ``history_.best_epoch`` was kept
    n_iter_ : epochs trained

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> reg = NetworkRegressor((16,), random_state=0).fit(X, y)
    >>> reg.score(X, y) > 0.4
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch on these rows; the first call settles encoding and target scale."""
        return self._partial_fit(X, y, sample_weight, None)

    def predict(self, X: Any) -> np.ndarray:
        """Numbers of shape (n_samples,) or (n_samples, n_outputs)."""
        outputs = self._outputs(X)
        return self.model_.target.decode(outputs)

    def _check_y(self, y: np.ndarray) -> np.ndarray:
        try:
            return y.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"y has dtype {y.dtype}; a regression needs numbers") from None

    def _make_target(self, y: np.ndarray, weight: np.ndarray | None) -> Target:
        return Target.regression(y, weight)


_CLASSES = ("binary", "multiclass", "multilabel-indicator")


def _is_frame(X: Any) -> bool:
    if sparse.issparse(X):  # one kind of sparse matrix is a dict
        return False
    return hasattr(X, "columns") or hasattr(X, "__arrow_c_stream__") or isinstance(X, Mapping)


def _input_schema(table: Table) -> Schema:
    """Roles of X's columns: who passes a column means it, so only texts can be left out."""
    schema = infer_schema(table)
    numeric = {"number": "number", "boolean": "boolean", "datetime": "date", "text": "category"}
    roles = {
        c.name: numeric[table[c.name].kind]
        for c in schema
        if c.role == "constant" or (c.role == "identifier" and table[c.name].kind == "number")
    }
    schema = schema.with_roles(roles, "a column of X")
    for entry in schema:
        if not entry.is_input:
            warnings.warn(
                f"column {entry.name!r} is left out: {entry.reason}", DataWarning, stacklevel=4
            )
    return schema


def _enforce(table: Table, schema: Schema) -> Table:
    return enforce(table, schema, [entry.name for entry in schema.inputs])
