"""Why a layer refused its input, in words that name the layer, both shapes and the mend."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from layerwise.network.walk import Visit, Walk, shape

_CASTS = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "bfloat16"}


def explain(found: Walk) -> str:
    """The sentence for a walk that failed.

    Parameters
    ----------
    found : of a model that raised; ``found.error`` says what

    Examples
    --------
    >>> import torch
    >>> from layerwise.network.walk import walk
    >>> model = nn.Sequential(nn.Linear(10, 18), nn.Linear(20, 5))
    >>> print(explain(walk(model, torch.zeros(4, 10))))
    layer '1' (Linear(20, 5)) takes 20 features and gets 18, shape (4, 18), from layer '0' \
(Linear(10, 18)): make it Linear(18, 5), or let layer '0' give 20
    """
    visit = found.failed
    said = str(found.error).strip().partition("\n")[0]
    if visit is None:
        after = f" after {found.visits[-1].title}" if found.visits else ""
        what = f"the model's own forward failed{after}: {type(found.error).__name__}: {said}"
        return what + _arguments(found)
    if not visit.inputs:
        return f"{visit.title} was called without a tensor: {said}"
    x = visit.inputs[0]
    told = _place(visit, x) or _dtype(visit, x, _giver(found, x)) or _width(visit, x, found)
    if told is None:
        told = f"refuses its input of shape {shape(x)} and type {_type(x)}: {said}"
    return f"{visit.title} {told}{_arguments(found)}"


def _arguments(found: Walk) -> str:
    """How several inputs are given, where the model itself was called with too few or too many."""
    said = str(found.error)
    if len(found.visits) > (found.failed is not None) or not isinstance(found.error, TypeError):
        return ""
    if "argument" not in said:
        return ""
    return ". Several inputs go as ((X1, X2), y), or by name as ({'left': X1, 'right': X2}, y)"


def _place(visit: Visit, x: Tensor) -> str | None:
    """Weights and values on two devices."""
    weight = next(visit.module.parameters(), None)
    if weight is None or weight.device == x.device:
        return None
    return f"has its weights on {weight.device} and gets values on {x.device}: move one of them"


def _dtype(visit: Visit, x: Tensor, giver: Visit | None) -> str | None:
    """Values of another type than the weights, or floats where an embedding wants row numbers."""
    source = "pass X" if giver is None else "on its input call "
    if isinstance(visit.module, nn.Embedding | nn.EmbeddingBag):
        if _type(x) in ("int64", "int32"):
            n, low, high = visit.module.num_embeddings, int(x.min()), int(x.max())
            if low < 0 or high >= n:
                return f"has rows 0 to {n - 1} and is asked for {high if high >= n else low}"
            return None
        return f"takes whole numbers and gets {_type(x)}: {source}.long()"
    weight = next(visit.module.parameters(), None)
    if weight is None or weight.dtype == x.dtype or _type(weight) not in _CASTS:
        return None
    mend = f"{source}.{_CASTS[_type(weight)]}()"
    if giver is None and _type(x) in _CASTS:
        mend += f", or make the network {_type(x)} with model.{_CASTS[_type(x)]}()"
    return f"has {_type(weight)} weights and gets {_type(x)} values: {mend}"


def _width(visit: Visit, x: Tensor, found: Walk) -> str | None:
    """Another number of features, channels or dimensions than the layer was made for."""
    module, giver = visit.module, _giver(found, x)
    source = f"from {giver.title}" if giver else "from the data"
    if isinstance(module, nn.Linear):
        got, wanted = x.shape[-1] if x.dim() else 1, module.in_features
        if got == wanted:
            return None
        told = f"takes {_n(wanted, 'feature')} and gets {got}, shape {shape(x)}, {source}"
        if giver is None and x.dim() == 1:
            one = "X[:, None] makes it one feature of each row"
            return f"{told}: {one if wanted == 1 else 'each row has one number only'}"
        if x.dim() > 2 and prod(x.shape[1:]) == wanted:
            return f"{told}: put nn.Flatten() before it"
        mend = f"make it Linear({got}, {module.out_features})"
        if giver is not None and isinstance(giver.module, nn.Linear):
            mend += f", or let layer {giver.name!r} give {wanted}"
        return f"{told}: {mend}"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        dims = len(module.kernel_size)
        if x.dim() not in (dims + 1, dims + 2):
            order = ("N", "channels", *("depth", "height", "width")[3 - dims :])
            told = f"takes ({', '.join(order)}) and gets {shape(x)}, {source}"
            return f"{told}: X[:, None] adds a channel" if x.dim() == dims + 1 else told
        channels = x.shape[-dims - 1]
        if channels != module.in_channels:
            wanted = module.in_channels
            told = f"takes {_n(wanted, 'channel')} and gets {channels}, shape {shape(x)}"
            hint = ""
            if giver is None and x.dim() == dims + 1:
                hint = ": X[:, None] adds a channel"
            elif giver is None and x.shape[-1] == wanted:
                hint = ": the channels are last here, X.movedim(-1, 1) brings them to where they go"
            return f"{told}, {source}{hint}"
        return None
    if isinstance(module, nn.RNNBase) and x.shape[-1] != module.input_size:
        told = f"takes {_n(module.input_size, 'feature')} at each step and gets {x.shape[-1]}"
        hint = ": X[:, :, None] makes each number a step" if giver is None and x.dim() == 2 else ""
        return f"{told}, shape {shape(x)}, {source}{hint if module.input_size == 1 else ''}"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        got = x.shape[1] if x.dim() > 1 else x.shape[0]
        if got != module.num_features:
            told = f"takes {_n(module.num_features, 'feature')} and gets {got}, shape {shape(x)}"
            return f"{told}, {source}: make it {type(module).__name__}({got})"
        return None
    if isinstance(module, nn.LayerNorm):
        sizes = tuple(module.normalized_shape)
        if tuple(x.shape[-len(sizes) :]) != sizes:
            last = "last dimension" if len(sizes) == 1 else f"last {len(sizes)} dimensions"
            told = f"normalises the {last}, of size {', '.join(map(str, sizes))},"
            return f"{told} and gets shape {shape(x)}, {source}"
    return None


def _giver(found: Walk, x: Tensor) -> Visit | None:
    """The layer that gave these values their width; None if they are the data's own."""
    while True:
        visit = next((v for v in reversed(found.visits) if v.output is x), None)
        if visit is None or not visit.inputs or next(visit.module.parameters(), None) is not None:
            break
        if visit.inputs[0].shape[-1:] != x.shape[-1:]:
            break  # such as Flatten: it has no parameters and makes another width
        x = visit.inputs[0]
    if visit is not None:
        return visit
    for visit in reversed(found.visits):
        same = visit.output is not None and visit.output.shape[-1:] == x.shape[-1:]
        if same and next(visit.module.parameters(), None) is not None:
            return visit
    return None


def _n(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
